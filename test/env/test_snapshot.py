"""Stopping and continuing is the same as never stopping."""

import io

import gymnasium as gym
import numpy as np
import pytest
import torch
from loguru import logger

from slm_lab.env.make import make_env
from slm_lab.env.snapshot import ActionLog, pack, rng_from, rng_state, unpack
from slm_lab.lib.errors import LabError
from slm_lab.spec.model import EnvSpec
from slm_lab.types import Discrete

CASES = [
    ("CartPole-v1", {}),
    ("Pendulum-v1", {"max_t": 50}),
    ("Acrobot-v1", {"max_t": 50}),
    ("MountainCar-v0", {}),
    ("MountainCarContinuous-v0", {"max_t": 50}),
    ("LunarLander-v3", {}),
    ("LunarLander-v3", {"continuous": True, "enable_wind": True}),
    ("BipedalWalker-v3", {"max_t": 70}),
    ("FrozenLake-v1", {}),
]


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def actions_for(env, steps):
    rng = np.random.default_rng(5)
    n, space = env.info.num_envs, env.info.action
    if isinstance(space, Discrete):
        return rng.integers(space.n, size=(steps, n))
    return rng.uniform(-1, 1, (steps, n, space.dim)).astype(np.float32)


def run(env, actions):
    steps = []
    for a in actions:
        s = env.step(a)
        arrays = [x.tobytes() for x in (s.obs, s.reward, s.terminated, s.truncated, s.final_obs)]
        steps.append((arrays, s.episode_return, s.episode_length))
    return steps


@pytest.mark.parametrize("k", [0, 17, 150])
@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_continues_exactly(name, kwargs, k):
    spec = EnvSpec(name=name, num_envs=3, max_frame=1, **kwargs)
    env, other = make_env(spec), make_env(spec)
    env.reset(4)
    m = 220 if name in ("MountainCar-v0", "LunarLander-v3") else 120
    actions = actions_for(env, k + m)
    run(env, actions[:k])
    state = through_a_file(env.state_dict())
    there = env.obs.copy()
    rest = run(env, actions[k:])
    # a fresh env, and one that has seen other things
    other.load_state_dict(state)
    assert np.array_equal(other.obs, there)
    assert run(other, actions[k:]) == rest
    assert sum(len(lengths) for _, _, lengths in rest) >= 3
    assert other.state_dict() == env.state_dict()
    env.load_state_dict(state)
    assert run(env, actions[k:]) == rest


def test_the_snapshot_is_not_changed_by_later_steps():
    for name in ("CartPole-v1", "MountainCar-v0"):
        env = make_env(EnvSpec(name=name, num_envs=2, max_frame=1))
        env.reset(0)
        state = env.state_dict()
        kept = through_a_file(state)
        run(env, actions_for(env, 30))
        assert state == kept
        assert env.state_dict() != kept


def test_the_state_of_other_envs_is_refused():
    def state(name, n):
        env = make_env(EnvSpec(name=name, num_envs=n, max_frame=1))
        env.reset(0)
        return env.state_dict()

    for name in ("CartPole-v1", "MountainCar-v0"):
        env = make_env(EnvSpec(name=name, num_envs=2, max_frame=1))
        with pytest.raises(LabError, match=f"the saved state is of 3 x {name}, not of 2 x {name}"):
            env.load_state_dict(state(name, 3))
        with pytest.raises(LabError, match=f"the saved state is of 2 x Acrobot-v1, not of 2 x {name}"):
            env.load_state_dict(state("Acrobot-v1", 2))


def test_the_state_does_not_grow_with_the_run():
    env = make_env(EnvSpec(name="Pendulum-v1", num_envs=2, max_frame=1, max_t=30))
    env.reset(0)
    for _ in range(40):
        run(env, actions_for(env, 30 + 7))
        for packed in env.state_dict()["actions"]:
            assert unpack(packed).shape[0] < 30


def test_action_log_keeps_what_each_env_needs():
    rng = np.random.default_rng(0)
    log = ActionLog((3, 2), np.dtype(np.float32))
    naive: list[list] = [[], [], []]
    for t in range(5000):
        row = rng.normal(size=(3, 2)).astype(np.float32)
        log.append(row)
        for i in range(3):
            naive[i].append(row[i])
            # env 2 never ends until late
            if rng.random() < 0.02 and (i < 2 or t == 3000):
                log.begin[i] = log.end
                naive[i].clear()
        if t % 97 == 0:
            for i in range(3):
                assert np.array_equal(log.actions(i), np.reshape(naive[i], (-1, 2)))
    again = ActionLog((3, 2), np.dtype(np.float32))
    again.set_actions([log.actions(i) for i in range(3)])
    assert all(np.array_equal(again.actions(i), log.actions(i)) for i in range(3))


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_random_numbers_go_on(kind):
    rng = np.random.Generator(getattr(np.random, kind)(3))
    rng.integers(5, size=3, dtype=np.int32)
    again = rng_from(through_a_file(rng_state(rng)))
    assert (
        rng.integers(1000, size=50, dtype=np.int32).tolist() == again.integers(1000, size=50, dtype=np.int32).tolist()
    )
    assert rng.normal(size=50).tolist() == again.normal(size=50).tolist()


@pytest.mark.parametrize(
    "array", [np.zeros((0, 3), np.int64), np.arange(6, dtype=np.uint8).reshape(2, 3), np.float32(2)]
)
def test_pack(array):
    array = np.asarray(array)
    back = unpack(through_a_file(pack(array)))
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    assert back.shape == array.shape


class Chancy(gym.Env):
    """Draws from a source that nobody can put back."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(0, 1, (1,))
    count = 0.0

    def reset(self, *, seed=None, options=None):
        return self.step(0)[0], {}

    def step(self, action):
        Chancy.count += 1 / 64
        return np.array([Chancy.count], np.float32), 0.0, False, False, {}


class OtherDice(gym.Env):
    """Draws from another generator than gymnasium's, and from its observation space."""

    observation_space = gym.spaces.Box(-10, 10, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.observation_space = gym.spaces.Box(-10, 10, (2,))

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.np_random = np.random.Generator(np.random.MT19937(seed))
        return self.observation_space.sample(), {}

    def step(self, action):
        obs = self.observation_space.sample() + np.float32(action + self.np_random.normal())
        return obs, float(obs[0]), bool(self.np_random.random() < 0.1), False, {}


@pytest.fixture
def registered():
    gym.register("Chancy-v0", Chancy)
    gym.register("OtherDice-v0", OtherDice)
    yield
    del gym.registry["Chancy-v0"], gym.registry["OtherDice-v0"]


@pytest.mark.usefixtures("registered")
def test_an_env_that_can_not_be_repeated_is_reported():
    env = make_env(EnvSpec(name="Chancy-v0", max_frame=1))
    env.reset(0)
    run(env, actions_for(env, 5))
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    env.load_state_dict(env.state_dict())
    logger.remove(sink)
    assert "Chancy-v0 took another course" in "".join(lines)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("k", [0, 3, 100])
def test_all_dice_of_an_env_are_put_back(k):
    env, other = (make_env(EnvSpec(name="OtherDice-v0", num_envs=2, max_frame=1)) for _ in range(2))
    env.reset(9)
    actions = actions_for(env, k + 80)
    run(env, actions[:k])
    other.load_state_dict(through_a_file(env.state_dict()))
    assert run(other, actions[k:]) == run(env, actions[k:])
