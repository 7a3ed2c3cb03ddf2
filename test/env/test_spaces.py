"""What agents see of spaces, and what reaches the env of their actions."""

import sys
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec
from loguru import logger

from slm_lab.env.base import MAX_T
from slm_lab.env.make import make_env
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import renew_notes
from slm_lab.spec.model import EnvSpec
from slm_lab.types import Continuous, Discrete, Mixed, MultiBinary, MultiDiscrete


def about_spaces(record):
    return "time limit" not in record["message"]


class Echo(gym.Env):
    """Keeps its actions; shows samples of a space; ends after `ends` steps, in both ways at once."""

    def __init__(self, action_space, observation_space, ends=10**9):
        self.action_space, self.observation_space, self.ends = action_space, observation_space, ends
        self.got: list = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.seen = self.observation_space.sample()
        return self.seen, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.got.append(action)
        self.t += 1
        self.seen = self.observation_space.sample()
        return self.seen, 0.1, self.t == self.ends, self.t == self.ends, {}


class Twice(gym.Wrapper):
    """Two steps in one."""

    def step(self, action):
        first = self.env.step(action)
        return first if first[2] or first[3] else self.env.step(action)


@pytest.fixture
def echo():
    """Makes an Echo through the lab, and gives its gymnasium side too."""
    made: list[Echo] = []

    def create(**kwargs):
        made.append(Echo(**kwargs))
        return made[-1]

    def make(action=None, obs=None, n=1, wrappers=(), limit=None, **kwargs):
        gym.register("Echo-v0", create, additional_wrappers=wrappers, max_episode_steps=limit)
        kwargs |= {"action_space": action or spaces.Discrete(2), "observation_space": obs or spaces.Box(0, 1, (2,))}
        env = make_env(EnvSpec(name="Echo-v0", num_envs=n, max_frame=1, **{"vectorization": "sync", **kwargs}))
        env.reset(0)
        return env, made

    yield make
    gym.registry.pop("Echo-v0", None)


def test_discrete_with_a_start(echo):
    env, made = echo(spaces.Discrete(3, start=-1), n=3)
    assert env.info.action == Discrete(3)
    env.step(np.array([0, 1, 2]))
    assert [e.got[0] for e in made] == [-1, 0, 1]


def test_multi_discrete_with_a_start(echo):
    env, made = echo(spaces.MultiDiscrete([2, 3], start=[0, 5]), n=2)
    assert env.info.action == MultiDiscrete((2, 3))
    env.step(np.array([[0, 0], [1, 2]]))
    assert [e.got[0].tolist() for e in made] == [[0, 5], [1, 7]]


def test_multi_binary(echo):
    env, made = echo(spaces.MultiBinary(3))
    assert env.info.action == MultiBinary(3)
    env.step(np.array([[0, 1, 1]]))
    assert made[0].got[0].tolist() == [0, 1, 1]


def test_reals_are_clipped_and_rescaled(echo):
    low, high = np.array([0, -1, -3], np.float32), np.array([10, 1, 1], np.float32)
    env, made = echo(spaces.Box(low, high), n=4)
    assert env.info.action == Continuous(3, (0, -1, -3), (10, 1, 1))
    env.step(np.array([[-1, -1, -1], [1, 1, 1], [0, 0, 0], [-9, 9, 0.5]], np.float32))
    assert [e.got[0].tolist() for e in made] == [[0, -1, -3], [10, 1, 1], [5, 0, -1], [0, 1, 0]]


def test_infinite_bounds_are_passed_on_as_they_are(echo):
    low, high = np.array([-np.inf, 0, 0], np.float32), np.array([np.inf, np.inf, 4], np.float32)
    env, made = echo(spaces.Box(low, high))
    env.step(np.array([[-7, 3, 0.5]], np.float32))
    assert made[0].got[0].tolist() == [-7, 3, 3]


def test_a_box_without_axes_gets_arrays_without_axes(echo):
    env, made = echo(spaces.Dict(x=spaces.Box(0, 4, ()), y=spaces.Box(-1, 1, (), np.float64)))
    env.step(np.array([[0.5, 2]], np.float32))
    assert env.info.action.widths == (1, 1)
    (x, y) = made[0].got[0].values()
    assert (x, y) == (3, 1)
    assert (x.shape, x.dtype, type(x), y.dtype) == ((), np.float32, np.ndarray, np.float64)


def test_double_precision_actions(echo):
    env, made = echo(spaces.Box(-2, 2, (1,), np.float64))
    env.step(np.array([[0.5]], np.float32))
    assert made[0].got[0].dtype == np.float64
    assert made[0].got[0].tolist() == [1.0]


def test_tuples_and_dicts_of_actions_nested_as_the_env_nests_them(echo):
    inner = spaces.Dict({"turn": spaces.Box(0, 10, (2,), np.float32), "gear": spaces.Discrete(3, start=5)})
    space = spaces.Tuple([inner, spaces.MultiBinary(2), spaces.MultiDiscrete([2, 4], start=[1, -1])])
    env, made = echo(space)
    # a Dict's parts lie in the order of their names
    parts = (Discrete(3), Continuous(2, (0.0, 0.0), (10.0, 10.0)), MultiBinary(2), MultiDiscrete((2, 4)))
    assert env.info.action == Mixed(parts)
    env.step(np.array([[2, -1, 0.5, 1, 0, 1, 3]], np.float32))
    (first, second, third) = made[0].got[-1]
    assert first["gear"] == 7
    assert first["turn"].tolist() == [0, 7.5]
    assert first["turn"].dtype == np.float32
    assert (second.tolist(), third.tolist()) == ([1, 0], [2, 2])


@pytest.mark.parametrize("space", [spaces.Tuple([spaces.Tuple([])]), spaces.Dict({"a": spaces.Dict({})})])
def test_actions_without_a_part_are_refused(echo, space):
    with pytest.raises(LabError, match="takes actions without a part"):
        echo(space)


def test_a_part_that_nobody_can_choose_is_refused(echo):
    with pytest.raises(LabError, match="takes actions from Text"):
        echo(spaces.Dict({"say": spaces.Text(5), "go": spaces.Discrete(2)}))


def test_envs_may_keep_their_actions(echo):
    for space in (spaces.Box(-1, 1, (1,)), spaces.MultiDiscrete([3]), spaces.MultiBinary(1)):
        env, made = echo(space)
        action = np.ones((1, 1), np.float32 if isinstance(space, spaces.Box) else np.int64)
        env.step(action)
        action[:] = 0
        env.step(action)
        assert [a.tolist() for a in made[-1].got] == [[1], [0]]
        del gym.registry["Echo-v0"]


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        (spaces.Box(-1, 1, (2, 3), np.float64), "float32"),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), "uint8"),
        (spaces.Box(0, 255, (3, 7, 3), np.uint8), "uint8"),
        (spaces.Box(-5, 5, (2,), np.int32), "float32"),
    ],
)
def test_observations(echo, space, dtype):
    env, made = echo(obs=space, n=2)
    assert (env.info.obs_shape, env.info.obs_dtype) == (space.shape, dtype)
    assert np.array_equal(env.obs, np.array([e.seen for e in made]).astype(dtype))
    step = env.step(np.array([0, 1]))
    assert np.array_equal(step.obs, np.array([e.seen for e in made]).astype(dtype))
    assert step.obs.dtype == dtype


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_get_their_channels_first_and_the_log_says_so(echo, kind, channels):
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}", filter=about_spaces)
    env, made = echo(obs=spaces.Box(0, 255, (6, 5, channels), kind), n=2)
    logger.remove(sink)
    assert (env.info.obs_shape, env.info.obs_dtype) == ((channels, 6, 5), np.dtype(kind).name)
    for obs in (env.obs, env.step(np.array([0, 0])).obs):
        assert obs.shape == (2, channels, 6, 5)
        assert obs.dtype == kind
    for row, one in zip(env.obs, made, strict=True):
        for c in range(channels):
            assert np.array_equal(row[c], one.seen[:, :, c])
    assert lines == [f"env: images of Echo-v0 are read as {channels} channels of 6 x 5"]


def test_integers_become_one_hot(echo):
    env, made = echo(obs=spaces.Discrete(4, start=2))
    assert (env.info.obs_shape, env.info.obs_dtype) == ((4,), "float32")
    for _ in range(20):
        step = env.step(np.array([0]))
        assert step.obs.tolist() == np.eye(4)[[made[0].seen - 2]].tolist()


def test_several_integers_become_one_hot_each(echo):
    env, made = echo(obs=spaces.MultiDiscrete([2, 3], start=[0, 5]))
    assert (env.info.obs_shape, env.info.obs_dtype) == ((5,), "float32")
    for _ in range(20):
        step = env.step(np.array([0]))
        a, b = made[0].seen
        assert step.obs.tolist() == [[*np.eye(2)[a], *np.eye(3)[b - 5]]]


def test_switches_become_numbers(echo):
    env, made = echo(obs=spaces.MultiBinary(3))
    assert (env.info.obs_shape, env.info.obs_dtype) == ((3,), "float32")
    assert env.step(np.array([0])).obs.tolist() == [made[0].seen.tolist()]


@pytest.mark.parametrize("kind", ["Dict", "Tuple"])
def test_parts_are_flattened_and_the_log_says_so(echo, kind):
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}", filter=about_spaces)
    parts = {"b": spaces.Box(-1, 1, (2, 2)), "a": spaces.Discrete(3), "c": spaces.Tuple([spaces.MultiBinary(2)])}
    space = spaces.Dict(parts) if kind == "Dict" else spaces.Tuple(parts.values())
    env, made = echo(obs=space, n=2)
    logger.remove(sink)
    assert (env.info.obs_shape, env.info.obs_dtype) == ((9,), "float32")
    step = env.step(np.array([0, 0]))
    for row, one in zip(step.obs, made, strict=True):
        a, b, c = (one.seen["a"], one.seen["b"], one.seen["c"]) if kind == "Dict" else [one.seen[k] for k in (1, 0, 2)]
        ordered = [b.ravel(), np.eye(3)[a]]
        want = np.concatenate([*(ordered[::-1] if list(space)[:1] == ["a"] else ordered), c[0]])
        assert np.allclose(row, want)
    what = "a, b, c.0" if list(space)[:1] == ["a"] else "b, a, c.0" if kind == "Dict" else "0, 1, 2.0"
    assert lines == [f"env: observations of Echo-v0 are flattened to 9 numbers ({what})"]


def test_terminated_wins_over_truncated(echo):
    env, _ = echo(ends=2)
    env.step(np.array([0]))
    step = env.step(np.array([0]))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([True], [False])
    assert step.episode_return == [0.2]
    assert step.episode_length == [2]


def test_an_env_without_a_limit_gets_one(echo):
    assert echo()[0].info.max_t == MAX_T


def test_wrappers_of_a_package_are_kept(echo, monkeypatch):
    module = ModuleType("twice_wrapper")
    module.Twice = Twice
    monkeypatch.setitem(sys.modules, "twice_wrapper", module)
    env, made = echo(wrappers=(WrapperSpec("Twice", "twice_wrapper:Twice", {}),), limit=5)
    lengths = []
    for _ in range(6):
        lengths += env.step(np.array([0])).episode_length
    # the limit counts the steps inside, as gymnasium's does
    assert lengths == [3, 3]
    assert len(made[0].got) == 10


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"action": spaces.Sequence(spaces.Discrete(2))}, "takes actions from Sequence"),
        ({"obs": spaces.Text(5)}, "gives observations from Text"),
        ({"obs": spaces.Box(0, 1, (0,))}, "gives observations without a single number"),
        ({"obs": spaces.Dict(a=spaces.Sequence(spaces.Discrete(2)))}, "gives observations from Sequence.* part 'a'"),
    ],
)
def test_spaces_that_nobody_can_deal_with(echo, kwargs, text):
    with pytest.raises(LabError, match=f"^env.name: Echo-v0 {text}"):
        echo(**kwargs)


def test_a_number_alone_is_a_vector_of_one(echo):
    env, made = echo(obs=spaces.Box(0, 1, ()), n=2)
    obs = env.step(np.array([0, 1])).obs
    assert env.info.obs_shape == (1,)
    assert obs.tolist() == [[made[0].seen], [made[1].seen]]


@pytest.mark.parametrize("vectorization", ["sync", "auto"])
@pytest.mark.parametrize(
    ("method", "gives", "text"),
    [
        ("reset", np.zeros(2), "reset of Echo must give .observation, info., as gymnasium asks .got ndarray."),
        ("step", (np.zeros(2), 1.0, False, {}), "step of Echo.* must give 5 values.*got 4"),
        ("step", None, "step of Echo.* must give 5 values.*got None"),
    ],
)
def test_envs_made_for_an_older_gym(echo, monkeypatch, vectorization, method, gives, text):
    monkeypatch.setattr("slm_lab.env.make.available_cores", lambda: 2)
    monkeypatch.setattr(Echo, method, lambda self, *args, **kwargs: gives)
    with pytest.raises(LabError, match=text):
        echo(n=2, vectorization=vectorization)[0].step(np.zeros(2, int))


def test_no_reward_is_refused(echo, monkeypatch):
    monkeypatch.setattr(Echo, "step", lambda self, action: (self.observation_space.sample(), None, False, False, {}))
    with pytest.raises(LabError, match=r"step of Echo.* must give a number as its reward .got None"):
        echo(n=2, vectorization="sync")[0].step(np.zeros(2, int))
