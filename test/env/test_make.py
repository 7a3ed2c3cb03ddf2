"""Faults in the spec's env are told before it is made."""

import os
import sys
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from loguru import logger
from pydantic import ValidationError

from slm_lab.env.cartpole import CartPole
from slm_lab.env.check import ATARI_ELSEWHERE, check_env
from slm_lab.env.gym import GymVecEnv
from slm_lab.env.make import make_env
from slm_lab.env.rows import display_hint
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.log import renew_notes
from slm_lab.spec.model import EnvSpec


def faults(name="CartPole-v1", **kwargs):
    return check_env(EnvSpec(name=name, max_frame=1, **kwargs))


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"sutton_barto_reward": True},
        {"max_episode_steps": 9},
        {"name": "LunarLander-v3", "continuous": True, "gravity": -5},
        {"name": "BipedalWalker-v3", "hardcore": True},
    ],
)
def test_what_an_env_takes_is_no_fault(kwargs):
    assert faults(**kwargs) == []


def test_every_fault_at_once():
    assert faults(num_env=4, sutton_reward=True, render_mode="human", max_episode_steps=0) == [
        "env.max_episode_steps: must be a whole number from 1 (got 0)",
        "env.render_mode: not a key of the spec: rendering is asked for on the command line, with --render",
        "env.num_env: CartPole-v1 takes no such argument, did you mean 'num_envs'? (it takes: sutton_barto_reward)",
        (
            "env.sutton_reward: CartPole-v1 takes no such argument, did you mean 'sutton_barto_reward'? "
            "(it takes: sutton_barto_reward)"
        ),
    ]
    assert faults("Acrobot-v1", xyzzy=1) == ["env.xyzzy: Acrobot-v1 takes no such argument (it takes: none)"]


def test_faults_stop_the_making():
    with pytest.raises(LabError, match=r"env\.num_env: CartPole-v1 takes no such argument, did you mean 'num_envs'\?"):
        make_env(EnvSpec(name="CartPole-v1", max_frame=1, num_env=4))


def test_a_bad_value_is_told_in_one_line():
    with pytest.raises(SpecError) as e:
        make_env(EnvSpec(name="LunarLander-v3", max_frame=1, gravity=5))
    assert e.value.faults == [
        "env.gravity: can't make LunarLander-v3 with 5: gravity (current value: 5) must be between -12 and 0"
    ]
    with pytest.raises(SpecError) as e:
        make_env(EnvSpec(name="LunarLander-v3", max_frame=1, gravity="x", continuous=True))
    assert e.value.faults == [
        (
            "env.name: can't make LunarLander-v3 with gravity='x', continuous=True: "
            "'<' not supported between instances of 'float' and 'str'"
        )
    ]


@pytest.mark.parametrize(
    ("name", "key", "value", "mode", "device"),
    [
        ("LunarLander-v3", "gravity", "x", "auto", "cpu"),
        ("FrozenLake-v1", "map_name", "9x9", "auto", "cpu"),
        ("Hopper-v5", "xml_file", "nofile.xml", "auto", "cpu"),
        ("Hopper-v5", "reset_noise_scale", "x", "auto", "cpu"),
        ("Pendulum-v1", "g", "abc", "auto", "cpu"),
        ("Pendulum-v1", "g", "abc", "tensor", "cpu"),
        ("Pendulum-v1", "g", "abc", "tensor", "cpu:0"),
    ],
)
def test_one_bad_value_is_told_under_its_key(name, key, value, mode, device):
    with pytest.raises(SpecError) as e:
        make_env(EnvSpec(name=name, max_frame=1, vectorization=mode, **{key: value}), device=device)
    assert e.value.faults[0].startswith(f"env.{key}: can't make {name} with {value!r}: ")


def test_a_value_that_is_repeated_is_told_under_its_key():
    with pytest.raises(SpecError) as e:
        make_env(EnvSpec(name="FrozenLake-v1", max_frame=1, map_name="9x9", is_slippery=False))
    assert e.value.faults[0].startswith("env.map_name: can't make FrozenLake-v1 with '9x9': ")


def test_what_is_drawn_is_not_stepped_in_threads():
    spec = EnvSpec(name="CarRacing-v3", num_envs=2, max_frame=1, vectorization="thread")
    assert check_env(spec) == ["env.vectorization: CarRacing-v3 can't be drawn in threads: use auto, sync or async"]


def test_a_key_that_only_the_env_itself_refuses_is_told_with_its_path():
    # Hopper hands what it does not know on to its base class
    with pytest.raises(SpecError) as e:
        make_env(EnvSpec(name="Hopper-v5", max_frame=1, frame_skip=4, grvity=-5))
    assert e.value.faults == [
        "env.grvity: can't make Hopper-v5 with -5: MujocoEnv.__init__() got an unexpected keyword argument 'grvity'"
    ]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"reward_clipping": True}, "env.reward_clipping: not a key of the spec: use env.clip_reward"),
        ({"autoreset_mode": 1}, f"env.autoreset_mode: {ATARI_ELSEWHERE['autoreset_mode']}"),
        (
            {"vectorization": "sync"},
            "env.vectorization: ALE/Pong-v5 has a vector env of its own: use auto or native",
        ),
        (
            {"frame_op": "concat", "frame_op_len": 4},
            "env.frame_op: ALE/Pong-v5 shows several frames as it is: use env.stack_num for another number",
        ),
        ({"stack_num": 0}, "env.stack_num: must be whole, from 1 to 1000 (got 0)"),
        ({"frameskip": -1}, "env.frameskip: must be whole, from 1 to 1000 (got -1)"),
        ({"frameskip": [2, 5]}, "env.frameskip: must be whole, from 1 to 1000 (got [2, 5])"),
        ({"noop_max": True}, "env.noop_max: must be whole, from 0 to 10000 (got True)"),
        ({"repeat_action_probability": 3}, "env.repeat_action_probability: must be a number from 0 to 1 (got 3)"),
        ({"grayscale": 1}, "env.grayscale: must be true or false (got 1)"),
    ],
)
def test_what_a_spec_can_not_say_of_atari(keys, text):
    assert faults("ALE/Pong-v5", **keys) == [text]


def test_keys_that_atari_does_not_know():
    (line,) = faults("ALE/Pong-v5", frame_skip=2)
    assert line.startswith("env.frame_skip: ALE/Pong-v5 takes no such argument, did you mean 'frameskip'? (it takes: ")


def test_values_that_atari_takes():
    keys = {"repeat_action_probability": 0, "noop_max": 0, "full_action_space": True, "continuous_action_threshold": 1}
    assert faults("ALE/Pong-v5", **keys) == []


class Needs(gym.Env):
    """Takes anything, needs one thing."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, level, **kwargs):
        raise gym.error.DependencyNotInstalled("tnt is not installed,\nrun `pip install tnt`")


@pytest.fixture
def needs():
    gym.register("Needs-v0", Needs)
    gym.register("Gone-v0", "no_such_package.envs:Gone")
    gym.register("VecOnly-v0", vector_entry_point="no_such_package.envs:Vec")
    yield
    for name in ("Needs-v0", "Gone-v0", "VecOnly-v0"):
        del gym.registry[name]


@pytest.mark.usefixtures("needs")
def test_arguments_that_are_needed():
    assert faults("Needs-v0") == ["env.level: Needs-v0 needs this argument"]
    assert faults("Needs-v0", level=1, anything="goes") == []


@pytest.mark.usefixtures("needs")
def test_packages_that_are_missing():
    with pytest.raises(SpecError) as e:
        make_env(EnvSpec(name="Needs-v0", max_frame=1, level=1))
    assert str(e.value) == "  env.name: can't make Needs-v0 with level=1: tnt is not installed, run `pip install tnt`"
    assert faults("Gone-v0") == ["env.name: can't load Gone-v0: No module named 'no_such_package'"]
    assert faults("VecOnly-v0") == [
        "env.name: VecOnly-v0 comes only as a vector env of its own, which is not supported"
    ]


def test_cartpole_runs_in_numpy_unless_it_is_another(monkeypatch):
    assert type(make_env(EnvSpec(name="CartPole-v1", max_frame=1))) is CartPole
    registration = gym.registry["CartPole-v1"]
    monkeypatch.setattr(registration, "entry_point", gym.envs.classic_control.CartPoleEnv)
    assert type(make_env(EnvSpec(name="CartPole-v1", max_frame=1))) is GymVecEnv


class Endless(gym.Env):
    """Never ends, and can't be drawn."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}

    def render(self):
        raise RuntimeError("gladLoadGL error")


@pytest.fixture
def endless():
    gym.register("Endless-v0", Endless)
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}")
    yield lines
    logger.remove(sink)
    del gym.registry["Endless-v0"]


def test_an_env_without_a_time_limit_is_told_of_once(endless):
    spec = EnvSpec(name="Endless-v0", max_frame=1)
    for _ in range(2):
        assert make_env(spec).info.max_t == 100_000
        env = make_env(spec, training=False)
        assert env.info.max_t == 10_000
    text = "env: Endless-v0 registers no time limit: an episode that does not end by itself is cut off after"
    assert endless == [
        f"{text} 100,000 steps (env.max_t sets another limit)",
        f"{text} 10,000 steps when it is played (env.max_t sets another limit)",
    ]
    env.reset(0)
    for _ in range(10_000):
        step = env.step(np.zeros(1, np.int64))
    assert step.truncated.tolist() == [True]
    assert step.episode_return == [10_000]


def test_a_limit_of_the_spec_needs_no_note(endless):
    for training in (True, False):
        env = make_env(EnvSpec(name="Endless-v0", max_frame=1, max_t=7), training=training)
        assert env.info.max_t == 7
    assert endless == []


def test_a_limit_beyond_that_of_the_env_is_told(endless):
    assert make_env(EnvSpec(name="Pendulum-v1", max_frame=1, max_t=1000)).info.max_t == 200
    told = "env.max_t: Pendulum-v1 ends an episode after 200 steps: env.max_episode_steps sets a longer limit"
    assert endless == [told]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is always a display")
@pytest.mark.parametrize("display", ["", ":0"])
def test_no_display_is_looked_for_where_there_is_none(display, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "")  # so that what is set below is undone
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    spec = EnvSpec(name="CartPole-v1", max_frame=1)
    make_env(spec).close()
    assert os.environ["SDL_VIDEODRIVER"] == ""
    make_env(spec, render="rgb_array").close()
    assert os.environ["SDL_VIDEODRIVER"] == ("" if display else "dummy")


@pytest.mark.usefixtures("endless")
def test_what_can_not_be_drawn_without_a_display_gets_a_hint():
    env = make_env(EnvSpec(name="Endless-v0", max_frame=1), render="rgb_array")
    env.reset(0)
    with pytest.raises(LabError, match=r"gladLoadGL error \(on a machine without a display, set MUJOCO_GL=egl"):
        env.render()
    assert display_hint("out of memory") == ""
    assert display_hint("angle must be single") == ""


@pytest.mark.parametrize(
    "keys",
    [
        {"frame_op": "concat"},
        {"frame_op_len": 4},
        {"frame_op": "mean", "frame_op_len": 4},
        {"clip_obs": -1},
        {"clip_reward": [2, 1]},
        {"clip_reward": [1]},
        {"reward_weights": []},
        {"reward_scale": "signum"},
        {"vectorization": "fast"},
        {"normalize_obs": "yes please"},
    ],
)
def test_values_that_make_no_sense_are_refused(keys):
    with pytest.raises(ValidationError):
        EnvSpec(name="CartPole-v1", max_frame=1, **keys)


class Closes(gym.Env):
    """Counts how many are open."""

    action_space = spaces.Discrete(2)
    opened = 0

    def __init__(self, text=False):
        self.observation_space = spaces.Text(5) if text else spaces.Box(0, 1, (1,))
        Closes.opened += 1

    def close(self):
        Closes.opened -= 1


@pytest.mark.parametrize(
    "keys",
    [{"text": True}, {"wrappers": [{"name": "support.paying:Refuses"}]}, {"action_mask": True, "actions": "box"}],
)
def test_envs_that_are_refused_are_closed(keys, monkeypatch):
    if keys.pop("actions", None):
        monkeypatch.setattr(Closes, "action_space", spaces.Box(-1, 1, (1,)))
    gym.register("Closes-v0", Closes)
    try:
        with pytest.raises(LabError):
            make_env(EnvSpec(name="Closes-v0", num_envs=3, max_frame=1, vectorization="sync", **keys))
    finally:
        del gym.registry["Closes-v0"]
    assert Closes.opened == 0
