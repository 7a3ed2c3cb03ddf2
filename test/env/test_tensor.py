"""Tensor envs: the numbers of gymnasium's, step by step; and what a user's own needs."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

import slm_lab.env.classic  # noqa: F401  registers them
from slm_lab.env.base import MAX_T, PLAY_MAX_T, VecEnv
from slm_lab.env.check import check_env
from slm_lab.env.make import make_env
from slm_lab.env.tensor import TENSOR_ENVS, TensorEnv, TensorVec, tensor_env
from slm_lab.lib.seeding import episode_seed
from slm_lab.spec.env import EnvSpec
from slm_lab.types import Discrete

IDS = ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]


def actions_for(env: VecEnv, rng: np.random.Generator) -> np.ndarray:
    n, action = env.info.num_envs, env.info.action
    if isinstance(action, Discrete):
        return rng.integers(action.n, size=n)
    return rng.uniform(-1.2, 1.2, (n, 1)).astype(np.float32)


@pytest.mark.parametrize("name", IDS)
def test_each_step_is_that_of_gymnasium(name: str) -> None:
    env = TensorVec(name, TENSOR_ENVS[name](), 3, max_t=gym.spec(name).max_episode_steps, compile=False)
    others: list[Any] = [gym.make(name) for _ in range(3)]
    episodes, rng, ends = [1] * 3, np.random.default_rng(0), 0
    obs = env.reset(7)
    for i, other in enumerate(others):
        np.testing.assert_allclose(other.reset(seed=episode_seed(7, i, 0))[0], obs[i], atol=1e-6)
    for _ in range(1000 if name.startswith("MountainCarC") else 520):
        action = actions_for(env, rng)
        step = env.step(action)
        for i, (other, one) in enumerate(zip(others, env.actions.decode(action), strict=True)):
            seen, reward, terminated, truncated, _ = other.step(one)
            np.testing.assert_allclose(step.final_obs[i], seen, atol=1e-6)
            assert step.reward[i] == pytest.approx(reward, abs=1e-5)
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated and not terminated)
            if terminated or truncated:
                ends += 1
                seen, _ = other.reset(seed=episode_seed(7, i, episodes[i]))
                episodes[i] += 1
                np.testing.assert_allclose(step.obs[i], seen, atol=1e-6)
        if step.episode_return:
            assert len(step.episode_return) == len(step.episode_length) == (step.terminated | step.truncated).sum()
    assert ends


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_state_goes_on_where_it_was_taken(name: str) -> None:
    def make() -> VecEnv:
        return make_env(
            EnvSpec.model_validate({"name": name, "num_envs": 2, "max_frame": 1, "vectorization": "tensor"})
        )

    one, two, rng = make(), make(), np.random.default_rng(0)
    one.reset(3)
    for _ in range(250):
        one.step(actions_for(one, rng))
    two.load_state_dict(one.state_dict())
    assert np.array_equal(one.obs, two.obs)
    for _ in range(250):
        action = actions_for(one, rng)
        for a, b in zip(one.step(action), two.step(action), strict=True):
            assert np.array_equal(a, b)


@tensor_env("Drift-v0", max_t=6)
class Drift(TensorEnv):
    """A walk with noise of its own; it ends at 2."""

    action, obs_shape, step_noise = Discrete(2), (1,), 1

    def __init__(self, slip: float = 0.1) -> None:
        self.slip = slip

    def init(self, noise: Tensor) -> Tensor:
        return noise - 0.5

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        way = torch.where(noise[:, :1] < self.slip, -1.0, 1.0)
        state = state + way * (2 * action[:, None] - 1)
        return state, self.observe(state), -torch.ones_like(state[:, 0]), state[:, 0] >= 2


def test_an_own_env_is_gymnasiums_too_and_reads_its_keys() -> None:
    spec = {"name": "Drift-v0", "num_envs": 3, "max_frame": 1, "slip": 0.0, "max_t": 4}
    for mode in ("tensor", "sync"):
        env = make_env(EnvSpec.model_validate(spec | {"vectorization": mode}))
        obs = env.reset(0).copy()
        assert isinstance(env, TensorVec) is (mode == "tensor")
        ends: list[int] = []
        for _ in range(4):
            step = env.step(np.array([1, 1, 0]))
            ends += step.episode_length
        assert (env.info.obs_shape, env.info.max_t) == ((1,), 4)
        assert ends == [2, 2, 2, 2, 4] if (obs[:2] > 0).all() else len(ends) >= 3
        env.close()


@pytest.mark.parametrize(("training", "limit"), [(True, MAX_T), (False, PLAY_MAX_T)])
@pytest.mark.parametrize(("mode", "device"), [("sync", "cpu"), ("tensor", "cpu"), ("tensor", "cpu:0")])
def test_without_a_limit_of_its_own_it_gets_that_of_the_lab(
    mode: str, device: str, training: bool, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gym.registry["Drift-v0"], "max_episode_steps", None)
    spec = EnvSpec.model_validate({"name": "Drift-v0", "max_frame": 1, "vectorization": mode})
    assert make_env(spec, training=training, device=device).info.max_t == limit


def test_noise_of_steps_follows_from_seed_and_step() -> None:
    runs = []
    for _ in range(2):
        env = TensorVec("Drift-v0", Drift(slip=0.5), 2, compile=False)
        env.reset(5)
        runs.append([env.step(np.array([1, 0])).obs.tolist() for _ in range(8)])
    assert runs[0] == runs[1]
    assert len({str(x) for x in runs[0]}) > 2


def test_what_has_no_tensor_env_is_reported() -> None:
    spec = {"name": "LunarLander-v3", "max_frame": 1, "vectorization": "tensor"}
    assert check_env(EnvSpec.model_validate(spec)) == [
        "env.vectorization: there is no tensor env for LunarLander-v3: use auto"
    ]
    spec = {"name": "CartPole-v1", "max_frame": 1, "vectorization": "tensor", "sutton_barto_reward": True}
    assert "sutton_barto_reward" in check_env(EnvSpec.model_validate(spec))[0]
