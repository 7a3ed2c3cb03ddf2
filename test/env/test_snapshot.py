"""Stopping and continuing is the same as never stopping."""

import io

import numpy as np
import pytest
import torch

from slm_lab.env.make import make_env
from slm_lab.env.snapshot import ActionLog, pack, unpack
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


@pytest.mark.parametrize(
    "array", [np.zeros((0, 3), np.int64), np.arange(6, dtype=np.uint8).reshape(2, 3), np.float32(2)]
)
def test_pack(array):
    array = np.asarray(array)
    back = unpack(through_a_file(pack(array)))
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    assert back.shape == array.shape
