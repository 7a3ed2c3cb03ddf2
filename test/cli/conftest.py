"""The command line in this process, in an empty working folder."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from slm_lab.cli.app import app

Slm = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def slm() -> Slm:
    """Runs `slm-lab` with these arguments."""

    def run(*args: str, **env: str) -> Result:
        # what is not a user error shows up as it is
        return CliRunner().invoke(app, [*args], env=env, catch_exceptions=False)

    return run


@pytest.fixture(scope="session")
def raw() -> dict[str, Any]:
    """A spec that takes a second."""
    return {
        "agent": {
            "name": "A",
            "algorithm": {
                "name": "PPO",
                "time_horizon": 16,
                "minibatch_size": 32,
                "training_epoch": 1,
                "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
            },
            "memory": {"name": "OnPolicyBatchReplay"},
            "net": {"type": "MLPNet", "hid_layers": [8], "gpu": False},
        },
        "env": {"name": "CartPole-v1", "num_envs": 2, "max_frame": 256},
        "meta": {"log_frequency": 64, "compile": "off"},
    }


@pytest.fixture
def spec_file(folder: Path, raw: dict[str, Any]) -> Path:
    """toy.json with the specs `toy` and `template`, whose env and max_frame are variables."""
    template = {**raw, "env": {"name": "${env}", "num_envs": 2, "max_frame": "${max_frame}"}}
    path = folder / "toy.json"
    path.write_text(json.dumps({"toy": raw, "template": template}))
    return path
