"""Env packages of others train, play and resume exactly; each group of them in an environment of its own, made by uv.

`uv run pytest -m packages` runs them all (some minutes, and about 2 GB the first time); those of the group
`quick` are tested with all other tests.
"""

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "slm-lab" / "packages"
"""Where the environments are kept from one run to the next; they share files with uv's cache."""
GROUPS = {
    "quick": ["minatar==1.0.15", "minigrid==3.2.0"],
    "any": [
        "vizdoom==1.3.2",
        "highway-env==1.12.1",
        "panda-gym==3.0.7",
        "flappy-bird-gymnasium==0.4.0",
        "gym-pusht==0.1.8",
        "popgym==1.0.7",
        "tetris-gymnasium==0.3.1",
        "stable-retro==1.0.1",
        "mo-gymnasium==1.3.2",
    ],
    "mujoco": ["gymnasium-robotics==1.4.2", "shimmy[dm-control]==2.0.1", "PyFlyt==0.21.0", "mujoco<3.9"],
    "metaworld": ["metaworld==3.1.1"],
    "playground": ["playground==0.2.0", "mujoco-mjx==3.17.0", "jax==0.10.2"],
}
"""Packages that can be installed side by side, and beside the lab."""
GRAY = {
    "type": "GrayscaleObservation",
    "observation_shape": {"__tuple__": [128, 64]},  # its class refuses a list
    "stack_size": 4,
    "weights": [0.2989, 0.587, 0.114],
    "scaling": 1.75,
}
OFFLINE = re.compile(r"are you offline|network was disabled|dns error|connect error|unreachable", re.IGNORECASE)
"""What uv says without a network."""


class Case(NamedTuple):
    group: str
    env: dict[str, Any]
    exact: bool = True


CASES = {
    "minigrid": Case("quick", {"name": "minigrid:MiniGrid-Empty-5x5-v0"}),
    "minatar": Case("quick", {"name": "minatar:MinAtar/Breakout-v1"}),
    "vizdoom": Case("any", {"name": "vizdoom.gymnasium_wrapper:VizdoomBasic-v1", "frame_skip": 4}),
    "highway-env": Case("any", {"name": "highway_env:highway-fast-v0"}),
    "highway-env images": Case("any", {"name": "highway_env:highway-fast-v0", "config": {"observation": GRAY}}),
    "panda-gym": Case("any", {"name": "panda_gym:PandaReachDense-v3"}),
    "flappy-bird-gymnasium": Case("any", {"name": "flappy_bird_gymnasium:FlappyBird-v0", "use_lidar": False}),
    "gym-pusht": Case("any", {"name": "gym_pusht:gym_pusht/PushT-v0"}),
    "popgym": Case("any", {"name": "popgym:popgym-RepeatPreviousEasy-v0"}),
    "tetris-gymnasium": Case("any", {"name": "tetris_gymnasium:tetris_gymnasium/Tetris"}),
    "stable-retro": Case("any", {"name": "stable_retro:make", "game": "Airstriker-Genesis-v0"}),
    "mo-gymnasium": Case("any", {"name": "mo_gymnasium:deep-sea-treasure-v0", "reward_weights": [1, 0.1]}),
    "toy-text": Case("any", {"name": "FrozenLake-v1"}),
    "gymnasium-robotics": Case("mujoco", {"name": "gymnasium_robotics:FetchReachDense-v4"}),
    "shimmy": Case("mujoco", {"name": "shimmy:dm_control/cartpole-swingup-v0"}),
    "PyFlyt": Case("mujoco", {"name": "PyFlyt.gym_envs:PyFlyt/QuadX-Hover-v1"}),
    "metaworld": Case("metaworld", {"name": "metaworld:Meta-World/MT1", "env_name": "reach-v3"}),
    "playground": Case(
        "playground",
        {"name": "playground/CartpoleBalance", "vectorization": "native", "normalize_obs": True, "impl": "jax"},
    ),
}


def python_of(group: str) -> str:
    """The interpreter of a group's environment, which is made where there is none; the test is skipped offline."""
    text = json.dumps([GROUPS[group], (ROOT / "pyproject.toml").read_text(encoding="utf-8"), str(ROOT), sys.version])
    folder = CACHE / f"{group}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    done = folder / "done"
    CACHE.mkdir(parents=True, exist_ok=True)
    # two workers of pytest-xdist would wipe each other's environment
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _uv("venv", "--clear", "--python", sys.executable, folder)
            _uv("pip", "install", "--python", python, "-e", f"{ROOT}[train]", *GROUPS[group])
            done.touch()
    return str(python)


def _uv(*words: str | Path) -> None:
    ended = subprocess.run(["uv", *words], capture_output=True, text=True, check=False, cwd=ROOT)
    if ended.returncode != 0 and OFFLINE.search(ended.stderr):
        pytest.skip(f"no network to install packages from: {ended.stderr.strip().splitlines()[-1]}")
    assert ended.returncode == 0, ended.stderr


def test_the_documented_table_is_what_is_tested() -> None:
    text = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    table = text.partition("## Envs of other packages")[2]
    rows = re.findall(r"^\| ([^|`]+) \| ([^|]+) \| `([^`]+)`[^|]*\| yes \| yes \| yes \|$", table, re.MULTILINE)
    pins = {name: version for group in GROUPS.values() for name, _, version in (pin.partition("==") for pin in group)}
    assert {env for _, _, env in rows} == {case.env["name"] for case in CASES.values()}
    assert len(rows) == len({case.env["name"] for case in CASES.values()})
    assert {name: version for name, version, _ in rows if name != "toy-text"}.items() <= pins.items()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.ci if c.group == "quick" else pytest.mark.packages) for n, c in CASES.items()],
)
def test_trains_plays_and_resumes(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    python = python_of(case.group)
    (tmp_path / "env.json").write_text(json.dumps(case.env), encoding="utf-8")

    def run(part: str) -> Any:
        script = ROOT / "test" / "support" / "package_run.py"
        # some packages write settings into the working folder
        done = subprocess.run(
            [python, script, tmp_path, part], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    assert run("begin") == {"stopped": True}
    found = run("resume")
    assert len(found["returns"]) == 2
    assert found["episodes"] >= 4
    assert found["exact"] is case.exact
    inexact = [line for line in found["warnings"] if "can't be resumed exactly" in line]
    assert bool(inexact) is not case.exact
