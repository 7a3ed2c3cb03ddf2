"""The install without torch: what it must be able to do, and what it says of the rest."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.hub import StandInHub

Core = Callable[..., subprocess.CompletedProcess[str]]

BLOCK = """
import sys

class OnlyCore:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = {blocked!r}
sys.meta_path.insert(0, OnlyCore())
sys.argv[0] = "slm-lab"
from slm_lab.cli.app import main
main()
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> set[str]:
    """The distributions that these need, and what those need."""
    found: set[str] = set()
    pending = [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        extras = requirement.extras or {""}
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonical(requirement.name)
        if name in found:
            continue
        found.add(name)
        wanted = [Requirement(text) for text in distribution(name).requires or []]
        pending += [w for w in wanted if w.marker is None or any(w.marker.evaluate({"extra": e}) for e in extras)]
    return found


@pytest.fixture(scope="module")
def blocked() -> set[str]:
    """Modules that are installed here, but would not be with the core alone."""
    core = closure([text for text in distribution("slm-lab").requires or [] if "extra ==" not in text])
    assert "huggingface-hub" in core
    assert "torch" not in core
    return {
        module
        for module, owners in packages_distributions().items()
        if not {canonical(owner) for owner in owners} & (core | {"slm-lab"})
    }


@pytest.fixture
def core(blocked: set[str], tmp_path: Path) -> Core:
    """Runs `slm-lab` where only what the core depends on can be imported."""
    assert {"torch", "gymnasium", "safetensors"} <= blocked

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BLOCK.replace("{blocked!r}", repr(sorted(blocked))), *args]
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )

    return run


def test_training_says_what_is_missing(core: Core) -> None:
    done = core("run")
    assert done.returncode == 2
    assert "pip install 'slm-lab[train]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["list-runs"]])
def test_works_without_torch(core: Core, command: list[str]) -> None:
    done = core(*command)
    assert done.returncode == 0, done.stderr


def test_shows_runs(core: Core, finished_run: Path, tmp_path: Path) -> None:
    done = core("plot", "-f", str(finished_run), "-o", "out.png")
    assert done.returncode == 0, done.stderr
    done = core("report", str(finished_run), "-o", "out.html")
    assert done.returncode == 0, done.stderr
    assert "is not installed" in (tmp_path / "out.html").read_text()
    done = core("compare", str(finished_run))
    assert "CartPole-v1" in done.stdout, done.stderr
    done = core("list-runs", "--out", str(finished_run.parent))
    assert finished_run.name in done.stdout, done.stderr


def test_hub(core: Core, finished_run: Path, tmp_path: Path) -> None:
    with StandInHub() as server:
        env = {"HF_ENDPOINT": server.url, "HF_TOKEN": server.token, "HF_REPO": "tester/runs"}
        done = core("push", str(finished_run), **env)
        assert done.returncode == 0, done.stderr
        done = core("list", **env)
        assert finished_run.name in done.stdout, done.stderr
        done = core("pull", "tiny", **env)
        assert done.returncode == 0, done.stderr
    there = tmp_path / "data" / finished_run.name / "model"
    assert {p.name for p in there.glob("*.pt")} == {p.name for p in (finished_run / "model").glob("*.pt")}


def test_run_remote(core: Core, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"mine": {"meta": {}}}')
    done = core("run-remote", "a.json", "mine", "--no-upload", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "python -m slm_lab run job/a.json mine train" in done.stdout
    assert "checked by the job only" in done.stderr
    done = core("run-remote", "a.json", "min", "--no-upload", "--dry-run")
    assert done.returncode == 2
    assert "did you mean 'mine'" in done.stderr
