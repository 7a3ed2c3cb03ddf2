"""Every episode begins from a seed of its own: what follows from it resumes exactly, all else is reported."""

import random
import sys

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from loguru import logger

from slm_lab.env.gym import GymVecEnv
from slm_lab.env.make import make_env
from slm_lab.env.parts import ALL
from slm_lab.env.workers import SharedRows
from slm_lab.lib.errors import LabError
from slm_lab.lib.seeding import EpisodeSeeds, derive, episode_seed, episode_seeds
from slm_lab.spec.model import EnvSpec


class Base(gym.Env):
    """Ends by chance, after 10 steps in the mean."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.observation_space = gym.spaces.Box(-100, 100, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def noise(self):
        return self.np_random.normal(size=2)

    def step(self, action):
        obs = np.float32(self.noise() + action)
        return obs, float(obs[0]), bool(obs[1] < -1.3), False, {}


class FreshEntropy(Base):
    """Draws anew from the system where its reset gets no seed."""

    def reset(self, *, seed=None, options=None):
        self.np_random = np.random.default_rng(seed)
        return np.float32(self.noise()), {}


class OtherDice(Base):
    """Draws from a generator of another kind, and from its observation space."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.np_random = np.random.Generator(np.random.MT19937(seed))
        return self.observation_space.sample(), {}

    def noise(self):
        return self.np_random.normal(size=2) + self.observation_space.sample() / 100


class OldDice(Base):
    """Its np_random is no Generator, as dm_control's."""

    np_random = None

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.np_random = np.random.RandomState(seed)
        return np.zeros(2, np.float32), {}


class OwnDice(Base):
    """Has no np_random at all, and looks at its seed only in reset."""

    def reset(self, *, seed=None, options=None):
        self.dice = random.Random(seed)
        return np.zeros(2, np.float32), {}

    def noise(self):
        return np.array([self.dice.gauss(0, 1), self.dice.gauss(0, 1)])


class Deaf(Base):
    """Takes a seed and does nothing with it, as Meta-World's."""

    def reset(self, *, seed=None, options=None):
        return np.float32(self.noise()), {}


class DrawnWhenMade(Base):
    """Draws its tasks from the streams of the process when it is made."""

    def __init__(self):
        super().__init__()
        self.tasks = np.array([random.gauss(0, 1), np.random.normal()])

    def noise(self):
        return self.np_random.normal(size=2) + self.tasks


class GlobalDice(Base):
    """Draws from the streams of the process."""

    def noise(self):
        return np.array([random.gauss(0, 1), np.random.normal()])


class Keeps(Base):
    """State is kept over resets, as in gym-xarm."""

    count = 0.0

    def noise(self):
        self.count += 1 / 64
        return self.np_random.normal(size=2) + self.count


EXACT = [FreshEntropy, OtherDice, OldDice, OwnDice, Deaf, DrawnWhenMade]


@pytest.fixture(autouse=True)
def registered():
    kinds = [*EXACT, GlobalDice, Keeps]
    for kind in kinds:
        gym.register(f"{kind.__name__}-v0", kind)
    yield
    for kind in kinds:
        del gym.registry[f"{kind.__name__}-v0"]


def make(kind, mode="sync", n=3):
    return make_env(EnvSpec(name=f"{kind.__name__}-v0", num_envs=n, max_frame=1, vectorization=mode), threads=2)


def run(env, steps, seed=5):
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        s = env.step(rng.integers(2, size=env.info.num_envs))
        seen.append(([x.tobytes() for x in (s.obs, s.reward, s.terminated, s.final_obs)], s.episode_return))
    return seen


@pytest.mark.parametrize("k", [0, 3, 100])
@pytest.mark.parametrize("kind", EXACT)
def test_runs_of_one_seed_are_equal_and_resume_exactly(kind, k, logged):
    one, two, other = make(kind), make(kind), make(kind)
    assert np.array_equal(one.reset(9), two.reset(9))
    assert run(one, k) == run(two, k)
    state, there = one.state_dict(), one.obs.copy()
    rest = run(one, 80, seed=6)
    assert run(two, 80, seed=6) == rest
    assert sum(len(returns) for _, returns in rest) > 6
    other.load_state_dict(state)
    assert np.array_equal(other.obs, there)
    assert run(other, 80, seed=6) == rest
    assert logged == []


def test_the_seed_of_an_episode_follows_from_run_env_and_number():
    seeds = {episode_seed(s, i, k) for s in range(5) for i in range(5) for k in range(5)}
    assert len(seeds) == 125
    # the first ones are what envs got before later ones were seeded, too
    assert episode_seed(3, 1, 0) == derive(3, 1)


def test_episodes_of_one_env_and_of_several_differ():
    env = make(FreshEntropy)
    first = env.reset(0).copy()
    assert len({row.tobytes() for row in first}) == 3
    begun = []
    while len(begun) < 20:
        step = env.step(np.zeros(3, np.int64))
        begun += [row.tobytes() for row, ended in zip(step.obs, step.terminated, strict=True) if ended]
    assert len(set(begun)) == len(begun)


@pytest.fixture
def logged():
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize("kind", [Keeps, GlobalDice])
def test_what_can_not_be_repeated_is_reported(kind, logged):
    env, other = make(kind), make(kind)
    env.reset(0)
    run(env, 40)
    other.load_state_dict(env.state_dict())
    assert len(logged) == 1
    assert logged[0].startswith(f"env: {kind.__name__}-v0 can't be resumed exactly: ")
    # it goes on all the same
    run(other, 5)


def test_workers_seed_the_streams_of_their_process():
    # a worker can't import a test
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # there are two envs, one in each process; that of this process draws from its own streams
    env, other = make(GlobalDice, "async", n=2), make(GlobalDice, "async", n=2)
    courses = [(e.reset(1).copy(), [e.step(np.array([0, 1])).obs[1].copy() for _ in range(30)]) for e in (env, other)]
    assert str(courses[0]) == str(courses[1])
    env.close()
    other.close()


def test_an_env_with_a_process_of_its_own_may_draw_from_its_streams(logged):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def apart(name):
        rows = SharedRows(name, lambda i: GlobalDice(), 2, 2, ALL, apart=True)
        return GymVecEnv(name, rows, 2, max_t=100)

    env, other = apart("GlobalDice-v0"), apart("GlobalDice-v0")
    env.reset(0)
    run(env, 40)
    other.load_state_dict(env.state_dict())
    assert run(other, 40) == run(env, 40)
    assert logged == []
    env.close()
    other.close()


class Seedless(Base):
    def reset(self):
        return np.zeros(2, np.float32), {}


def test_a_reset_without_a_seed_is_refused():
    gym.register("Seedless-v0", Seedless)
    env = make(Seedless)
    with pytest.raises(LabError, match="reset of Seedless must take a seed, as gymnasium asks"):
        env.reset(0)
    del gym.registry["Seedless-v0"]


@pytest.mark.parametrize(("seed", "env", "first"), [(0, 0, 0), (7, 1, 5), (2**31 - 1, 300, 10**6), (2**40, 2, 3)])
def test_seeds_worked_out_together_are_those_of_each_episode(seed, env, first):
    assert episode_seeds(seed, env, first, 70) == [episode_seed(seed, env, first + k) for k in range(70)]
    seeds = EpisodeSeeds(seed, env + 1)
    order = [first, first + 1, first + 500, first + 2, 0, 1]
    assert [seeds.of(env, k) for k in order] == [episode_seed(seed, env, k) for k in order]
