"""Tensor envs on a device, and what normalizes there; the device is a CPU here."""

from typing import Any

import numpy as np
import pytest
import torch

from slm_lab.env.counted import CountedVec
from slm_lab.env.device import DeviceMoments, DevicePipeline, wrap_device
from slm_lab.env.make import make_env
from slm_lab.env.moments import Moments
from slm_lab.env.ops import NormalizeObs
from slm_lab.env.wrappers import wrap
from slm_lab.lib.errors import LabError
from slm_lab.spec.model import EnvSpec

N, T = 4, 90
NAMES = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0")


def spec(name: str = "CartPole-v1", **keys: Any) -> EnvSpec:
    return EnvSpec(name=name, num_envs=N, max_frame=1, max_t=30, vectorization="tensor", **keys)


def made(name: str = "CartPole-v1", **keys: Any) -> Any:
    return make_env(spec(name, **keys), device="cpu:0")


def actions(env: Any, steps: int = T) -> Any:
    rng = np.random.default_rng(1)
    if env.actions.dtype == np.int64:
        return rng.integers(env.info.action.n, size=(steps, N))
    return rng.uniform(-1, 1, (steps, N, env.info.action.dim)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_moves_as_on_the_host_and_ends_episodes_by_the_contract(name: str) -> None:
    env = made(name)
    host: Any = make_env(spec(name))
    assert isinstance(env, CountedVec)
    first = env.reset(5).copy()
    assert len(np.unique(first, axis=0)) == N
    ends, lengths = 0, np.zeros(N, int)
    for action in actions(env):
        # the same states on the host give the same steps, as far as no new episode begins
        host.load_state_dict(env.state_dict())
        want, got = host.step(action), env.step(action)
        done = got.terminated | got.truncated
        lengths += 1
        assert np.array_equal(got.terminated, want.terminated)
        assert np.array_equal(got.truncated, want.truncated)
        np.testing.assert_allclose(got.reward, want.reward, rtol=1e-6)
        np.testing.assert_allclose(got.final_obs, want.final_obs, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(got.episode_return, want.episode_return, rtol=1e-6)
        assert got.episode_length == lengths[done].tolist() == want.episode_length
        assert np.array_equal(got.obs[~done], got.final_obs[~done])
        assert not np.array_equal(got.obs[done], got.final_obs[done]) or not done.any()
        lengths[done] = 0
        ends += done.sum()
    assert ends >= 2 * N


def test_episodes_differ_and_follow_from_the_seed_alone() -> None:
    env = made()
    course = [env.reset(5).copy(), *(env.step(a).obs.copy() for a in actions(env))]
    again = [env.reset(5).copy(), *(env.step(a).obs.copy() for a in actions(env))]
    assert np.array_equal(course, again)
    assert not np.array_equal(course[0], env.reset(6))
    # the second episode of an env does not depend on how its first one went
    firsts = []
    for push in (0, 1):
        env.reset(5)
        while not (step := env.step(np.full(N, push))).terminated[2]:
            pass
        firsts.append(step.obs[2].copy())
    assert np.array_equal(*firsts)


@pytest.mark.parametrize("keys", [{}, {"normalize_obs": True, "normalize_reward": True, "reward_scale": 0.5}])
def test_goes_on_exactly(keys: dict[str, Any]) -> None:
    env, other = made(**keys), made(**keys)
    env.reset(3)
    first, then = np.split(actions(env), [40])
    for action in first:
        env.step(action)
    other.load_state_dict(env.state_dict())
    assert np.array_equal(env.obs, other.obs)
    for action in then:
        for a, b in zip(env.step(action)[:-1], other.step(action)[:-1], strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("keys", [{}, {"normalize_obs": True, "clip_reward": 1.0, "normalize_reward": True}])
def test_a_run_goes_on_from_device_to_host_and_back(keys: dict[str, Any]) -> None:
    env, host = made(**keys), make_env(spec(**keys))
    env.reset(3)
    for action in actions(env, 40):
        env.step(action)
    saved = env.state_dict()
    host.load_state_dict(saved)
    assert np.array_equal(host.obs, env.obs)
    back = made(**keys)
    back.load_state_dict(host.state_dict())
    again = back.state_dict()
    for key in ("seed", "t", "episodes", "held", "ret"):
        assert again.get("env", again).get(key) == saved.get("env", saved).get(key)
    assert np.array_equal(back.obs, env.obs)


def test_moments_are_those_of_the_host() -> None:
    rng = np.random.default_rng(0)
    host, device = Moments((3,)), DeviceMoments((3,), torch.device("cpu"))
    for _ in range(5):
        batch = rng.normal(3, 2, (7, 3))
        host.update(batch)
        device.update_(torch.from_numpy(batch))
    np.testing.assert_allclose(device.mean.numpy(), host.mean, rtol=1e-12)
    np.testing.assert_allclose(device.var.numpy(), host.var, rtol=1e-12)
    assert device.state_dict()["count"] == host.count == 35


KEYS: list[dict[str, Any]] = [
    {"normalize_obs": True},
    {"normalize_obs": True, "clip_obs": 0.5, "normalize_reward": True},
    {"clip_obs": 0.02, "clip_reward": (0.0, 0.5), "reward_scale": 3.0},
    {"normalize_reward": True, "clip_reward": False, "reward_scale": "sign"},
    {"reward_scale": 0},
]


@pytest.mark.parametrize("keys", KEYS)
def test_pipeline_shows_what_that_of_the_host_shows(keys: dict[str, Any]) -> None:
    device = made(**keys)
    assert isinstance(device, DevicePipeline)
    plain = wrap(made(), spec(**keys), gamma=0.99, training=True)
    np.testing.assert_allclose(device.reset(2), plain.reset(2), rtol=1e-5, atol=1e-6)
    for action in actions(device):
        one, other = device.step(action), plain.step(action)
        assert (one.raw is None) == (other.raw is None)
        for got, want in zip(one[:-1], other[:-1], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        if one.raw is not None and other.raw is not None:
            np.testing.assert_allclose(one.raw.obs, other.raw.obs, rtol=1e-5)
            for got, want in zip(one.raw.step[:-1], other.raw.step[:-1], strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
            again = (
                one.raw.normalizer.normalize_obs(one.raw.step.obs),
                one.raw.normalizer.normalize_reward(one.raw.step.reward),
            )
            np.testing.assert_array_equal(again[0], one.obs)
            np.testing.assert_array_equal(again[1], one.reward)
    shown = device.translator().observe(np.ones((N, 4), np.float32))[0]
    np.testing.assert_allclose(shown, plain.translator().observe(np.ones((N, 4), np.float32))[0], rtol=1e-5, atol=1e-6)


def test_statistics_stand_still_in_evaluation_and_must_fit() -> None:
    keys = {"normalize_obs": True}
    learned = made(**keys)
    learned.reset(0)
    inner: Any = made()
    still = wrap_device(inner, spec(**keys), gamma=0.99, training=False)
    still.load_normalizer_state(learned.normalizer_state())
    still.reset(1)
    assert still.normalizer_state() == learned.normalizer_state()
    with pytest.raises(LabError, match="CartPole-v1 normalizes obs, but the saved policy learned with reward normal"):
        still.load_normalizer_state({"reward": {}})
    op = NormalizeObs((4,), np.dtype(np.float32), training=False)
    op.load_state_dict(learned.normalizer_state()["obs"])
    np.testing.assert_allclose(still.obs, op.apply(inner.obs).clip(-10, 10), rtol=1e-6)


def test_stacked_frames_are_not_forgotten() -> None:
    env = made(frame_op="stack", frame_op_len=3)
    assert env.info.obs_shape == (3, 4)
    assert env.reset(0).shape == (N, 3, 4)
