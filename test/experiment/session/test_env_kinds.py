"""Envs of other people's packages, and of every kind of space, are learned in from a spec alone."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment import launch
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.experiment.trial.trial import Trial
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec

PACKAGE = {
    "__init__": """
        '''Envs of somebody else; importing the package registers them.'''
        import gymnasium

        gymnasium.register("Rooms-v0", "rooms_of_a_test.envs:Rooms", max_episode_steps=20)
    """,
    "envs": """
        import gymnasium as gym
        import numpy as np

        class Rooms(gym.Env):
            '''Sees where it is and what it carries; goes, and takes or leaves. Its rewards are for carrying much.'''

            def __init__(self, rooms=4, flat=False):
                if rooms < 2:
                    raise ValueError("rooms must be 2 or more")
                self.rooms = rooms
                here, bag = gym.spaces.Discrete(rooms), gym.spaces.Box(0, 1, (2,))
                self.observation_space = gym.spaces.Tuple([here, bag]) if flat else gym.spaces.Dict(here=here, bag=bag)
                self.action_space = gym.spaces.MultiDiscrete([3, 2])

            def see(self):
                bag = self.bag.astype(np.float32)
                if isinstance(self.observation_space, gym.spaces.Tuple):
                    return self.here, bag
                return {"here": self.here, "bag": bag}

            def reset(self, *, seed=None, options=None):
                super().reset(seed=seed)
                self.here, self.bag = int(self.np_random.integers(self.rooms)), np.zeros(2)
                return self.see(), {}

            def step(self, action):
                go, take = action
                self.here = (self.here + int(go) - 1) % self.rooms
                self.bag[int(take)] = self.np_random.random()
                return self.see(), float(self.bag.sum()), self.here == 0, False, {}
    """,
}
PPO: dict[str, Any] = {
    "agent": {
        "name": "ppo",
        "algorithm": {
            "name": "PPO",
            "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
            "time_horizon": 16,
            "minibatch_size": 32,
            "training_epoch": 1,
        },
        "memory": {"name": "OnPolicyBatchReplay"},
        "net": {"type": "MLPNet", "hid_layers": [16]},
    },
    "meta": {"log_frequency": 100, "compile": "off"},
}
CONV = {"type": "ConvNet", "shared": True, "conv_hid_layers": [[4, 8, 8, 0, 1]], "fc_hid_layers": [8]}


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of an importable package that nobody has imported yet."""
    name = "rooms_of_a_test"
    (tmp_path / name).mkdir()
    for module, text in PACKAGE.items():
        (tmp_path / name / f"{module}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    gym.registry.pop("Rooms-v0", None)
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


def learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, Any], **parts: Any) -> int:
    """Gradient steps of a short run in dev mode."""
    # graphs take longer than these runs
    monkeypatch.setattr(Trial, "_draw", lambda *args: None)
    frames = env.setdefault("max_frame", 192)
    raw = {"name": "kinds", **PPO, "env": {"num_envs": 4, **env}}
    raw = {**raw, "agent": {**raw["agent"], "net": parts.get("net", PPO["agent"]["net"])}}
    raw["meta"] = {**PPO["meta"], **parts.get("meta", {})}
    done = launch.run_spec(load_spec(raw), Mode.DEV, Options(out=tmp_path / "data", device="cpu", progress=False))
    assert done.crashed == []
    last = read_rows(Layout.open(done.folder).session_df(0, 0))[-1]
    assert last["frame"] == frames
    return int(last["opt_step"] or 0)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_env_of_a_package(
    rooms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, flat: bool
) -> None:
    env = {"name": f"{rooms}:Rooms-v0", "rooms": 5, "flat": flat, "vectorization": mode, "normalize_obs": True}
    assert learn(tmp_path, monkeypatch, env) > 0


def test_an_env_that_a_plugin_registers(rooms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert learn(tmp_path, monkeypatch, {"name": "Rooms-v0"}, meta={"plugins": [rooms]}) > 0


def test_faults_in_arguments_of_such_an_env(rooms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match=r"env\.room: Rooms-v0 takes no such argument, did you mean 'rooms'\?"):
        learn(tmp_path, monkeypatch, {"name": f"{rooms}:Rooms-v0", "room": 5})
    raw = {"name": "kinds", **PPO, "env": {"name": f"{rooms}:Rooms-v0", "max_frame": 192, "rooms": 1}}
    with pytest.raises(LabError, match=r"env\.rooms: can't make Rooms-v0 with 1: rooms must be 2 or more"):
        launch.run_spec(load_spec(raw), Mode.DEV, Options(out=tmp_path / "data", device="cpu", progress=False))


@pytest.mark.parametrize("more", [{}, {"continuous": False, "frame_op": "concat", "frame_op_len": 2}])
def test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
    env = {"name": "CarRacing-v3", "num_envs": 2, "max_frame": 64, **more}
    assert learn(tmp_path, monkeypatch, env, net=CONV) > 0


@pytest.mark.parametrize("name", ["FrozenLake-v1", "Blackjack-v1", "MountainCarContinuous-v0"])
def test_other_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert learn(tmp_path, monkeypatch, {"name": name}) > 0
