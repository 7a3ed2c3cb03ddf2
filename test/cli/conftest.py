"""The command line in this process, in an empty working folder."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.commands import Calls
from typer.testing import CliRunner, Result

from slm_lab.cli.app import app
from slm_lab.experiment import launch
from slm_lab.experiment.session.run import RunResult

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


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Calls:
    """What of `experiment.launch` was called, with which arguments."""
    made: Calls = []
    result = RunResult(folder / "data" / "run", {})

    def note(name: str, answer: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            usual = {"folder": None, "beside": nullcontext, "mode": "train", "sets": {}}
            told = {k: v for k, v in kwargs.items() if k not in usual or v != usual[k]}
            if given := launch.TAKEN_OVER.intersection(told.pop("given", ())):
                told["given"] = given
            made.append((name, *args, told) if told else (name, *args))
            return answer

        return call

    monkeypatch.setattr(launch, "run_spec", note("run_spec", result))
    monkeypatch.setattr(launch, "resume", note("resume", result))
    monkeypatch.setattr(launch, "enjoy", note("enjoy", [1.5, 200.0]))
    return made
