"""What every env must do, against gymnasium stepped by hand."""

import itertools

import gymnasium as gym
import numpy as np
import pytest

from slm_lab.env.make import make_env
from slm_lab.lib.seeding import episode_seed
from slm_lab.spec.model import EnvSpec
from slm_lab.types import Continuous, Discrete

N, T, MAX_T = 3, 130, 60
CASES = [
    ("CartPole-v1", {}),
    ("CartPole-v1", {"sutton_barto_reward": True}),
    ("Pendulum-v1", {}),
    ("Acrobot-v1", {}),
    ("MountainCar-v0", {}),
    ("MountainCarContinuous-v0", {}),
    ("LunarLander-v3", {}),
    ("LunarLander-v3", {"continuous": True, "enable_wind": True}),
    ("BipedalWalker-v3", {}),
    ("FrozenLake-v1", {}),
]
SCALE = {"Pendulum-v1": 2.0}


def actions_for(space, steps, envs):
    rng = np.random.default_rng(3)
    if isinstance(space, Discrete):
        return rng.integers(space.n, size=(steps, envs))
    assert isinstance(space, Continuous)
    return rng.uniform(-1.3, 1.3, (steps, envs, space.dim)).astype(np.float32)


class Naive:
    """One env of gymnasium's, stepped by hand as its documentation says."""

    def __init__(self, name, kwargs, seed, i):
        self.make = lambda: gym.make(name, max_episode_steps=MAX_T, **kwargs)
        self.keeps_world = name == "BipedalWalker-v3"
        self.scale = SCALE.get(name, 1.0)
        self.env = self.make()
        self.seeds = (episode_seed(seed, i, k) for k in itertools.count())
        self.obs = self.see(self.env.reset(seed=next(self.seeds))[0])
        self.ret, self.length = 0.0, 0

    def see(self, obs):
        space = self.env.observation_space
        if isinstance(space, gym.spaces.Discrete):
            return np.eye(int(space.n), dtype=np.float32)[obs]
        return np.asarray(obs, np.float32)

    def step(self, action):
        if isinstance(self.env.action_space, gym.spaces.Box):
            action = np.clip(action, -1, 1) * np.float32(self.scale)
        obs, reward, terminated, truncated, _ = self.env.step(action)
        final_obs = self.see(obs)
        self.ret += float(reward)
        self.length += 1
        finished = None
        if terminated or truncated:
            finished = (self.ret, self.length)
            self.ret, self.length = 0.0, 0
            if self.keeps_world:
                self.env = self.make()
            obs = self.env.reset(seed=next(self.seeds))[0]
        return self.see(obs), reward, terminated, truncated and not terminated, final_obs, finished


@pytest.fixture(params=CASES, ids=lambda c: "-".join([c[0], *c[1]]))
def case(request):
    name, kwargs = request.param
    env = make_env(EnvSpec(name=name, num_envs=N, max_frame=1, max_t=MAX_T, **kwargs))
    yield name, kwargs, env
    env.close()


def test_steps_are_those_of_gymnasium(case):
    name, kwargs, env = case
    naive = [Naive(name, kwargs, 7, i) for i in range(N)]
    obs = env.reset(7)
    assert np.array_equal(obs, [n.obs for n in naive])
    ends = 0
    for action in actions_for(env.info.action, T, N):
        before = obs.copy()
        acted_on = obs
        step = env.step(action)
        want = [n.step(a) for n, a in zip(naive, action, strict=True)]
        assert np.array_equal(step.obs, [w[0] for w in want])
        assert np.array_equal(step.reward, np.array([w[1] for w in want], np.float32))
        assert step.terminated.tolist() == [w[2] for w in want]
        assert step.truncated.tolist() == [w[3] for w in want]
        assert np.array_equal(step.final_obs, [w[4] for w in want])
        finished = [w[5] for w in want if w[5]]
        assert list(zip(step.episode_return, step.episode_length, strict=True)) == finished
        # what was acted on is still there beside what followed
        assert np.array_equal(acted_on, before)
        assert env.obs is step.obs
        ends += len(finished)
        obs = step.obs
    assert ends >= 2 * N


def test_shapes_and_dtypes(case):
    name, _, env = case
    info = env.info
    obs = env.reset(0)
    step = env.step(actions_for(info.action, 1, N)[0])
    assert info.name == name
    assert (info.num_envs, info.max_t) == (N, MAX_T)
    for array in (obs, step.obs, step.final_obs):
        assert array.shape == (N, *info.obs_shape)
        assert array.dtype == info.obs_dtype
    assert (step.reward.shape, step.reward.dtype) == ((N,), np.float32)
    for array in (step.terminated, step.truncated):
        assert (array.shape, array.dtype) == ((N,), np.bool_)


def test_a_seed_decides_everything(case):
    _, _, env = case
    action = actions_for(env.info.action, T, N)

    def course(seed):
        return [env.reset(seed).copy()] + [env.step(a).obs.copy() for a in action]

    one, other, again = course(1), course(2), course(1)
    assert np.array_equal(one, again)
    # one map and one start: only its dice differ
    if env.info.name != "FrozenLake-v1":
        assert not np.array_equal(one[0], other[0])
        assert not np.array_equal(one[0][0], one[0][1])
    assert not np.array_equal(one, other)


def test_own_limit_holds_where_the_spec_states_none():
    env = make_env(EnvSpec(name="Pendulum-v1", num_envs=2, max_frame=1))
    env.reset(0)
    assert env.info.max_t == 200
    for t in range(1, 201):
        step = env.step(np.zeros((2, 1), np.float32))
        assert step.truncated.tolist() == [t == 200] * 2
    assert step.episode_length == [200, 200]


def test_spec_can_cut_but_not_lengthen():
    assert make_env(EnvSpec(name="Pendulum-v1", max_frame=1, max_t=1000)).info.max_t == 200
    assert make_env(EnvSpec(name="Pendulum-v1", max_frame=1, max_t=9)).info.max_t == 9
    assert make_env(EnvSpec(name="Pendulum-v1", max_frame=1, max_episode_steps=1000)).info.max_t == 1000
    assert make_env(EnvSpec(name="CartPole-v1", max_frame=1, max_episode_steps=1000)).info.max_t == 1000


def test_num_envs_over_the_specs():
    assert make_env(EnvSpec(name="CartPole-v1", num_envs=4, max_frame=1), num_envs=2).info.num_envs == 2
    assert make_env(EnvSpec(name="Acrobot-v1", num_envs=4, max_frame=1), num_envs=2).info.num_envs == 2


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0"])
def test_renders_env_0(name):
    env = make_env(EnvSpec(name=name, num_envs=2, max_frame=1), render="rgb_array")
    env.reset(0)
    first = env.render()
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    for _ in range(10):
        env.step(np.array([0, 1]))
    assert not np.array_equal(first, env.render())
    env.close()
    env.close()


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0"])
def test_renders_nothing_unless_asked(name):
    env = make_env(EnvSpec(name=name, max_frame=1))
    env.reset(0)
    assert env.render() is None
