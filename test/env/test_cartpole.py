"""The numpy CartPole is gymnasium's, bit for bit."""

import gymnasium as gym
import numpy as np
import pytest

from slm_lab.env.cartpole import CartPole
from slm_lab.lib.seeding import episode_seed


def controller(obs, rng):
    """Balances in the even envs, acts at random in the odd ones: both ways to end occur."""
    balance = (0.1 * obs[:, 0] + 0.2 * obs[:, 1] + obs[:, 2] + 0.3 * obs[:, 3] > 0).astype(np.int64)
    return np.where(np.arange(len(obs)) % 2 == 0, balance, rng.integers(2, size=len(obs)))


@pytest.mark.parametrize("num_envs", [1, 4, 9])
@pytest.mark.parametrize("sutton_barto", [False, True])
def test_equals_gymnasium(num_envs, sutton_barto):
    native = CartPole(num_envs, sutton_barto_reward=sutton_barto)
    envs = [gym.make("CartPole-v1", sutton_barto_reward=sutton_barto) for _ in range(num_envs)]
    obs = native.reset(11)
    assert np.array_equal(obs, [e.reset(seed=episode_seed(11, i, 0))[0] for i, e in enumerate(envs)])
    rng = np.random.default_rng(0)
    ends = {"terminated": 0, "truncated": 0}
    returns, begun = [0.0] * num_envs, [1] * num_envs
    for _ in range(1100):
        action = controller(obs, rng)
        step = native.step(action)
        finished = []
        for i, env in enumerate(envs):
            true_obs, reward, terminated, truncated, _ = env.step(action[i])
            returns[i] += reward
            assert step.reward[i] == reward
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated and not terminated)
            assert np.array_equal(step.final_obs[i], true_obs)
            if terminated or truncated:
                ends["terminated" if terminated else "truncated"] += 1
                finished.append(returns[i])
                returns[i] = 0.0
                true_obs, _ = env.reset(seed=episode_seed(11, i, begun[i]))
                begun[i] += 1
            assert np.array_equal(step.obs[i], true_obs)
            assert step.obs.dtype == true_obs.dtype == np.float32
        assert step.episode_return == finished
        obs = step.obs
    assert ends["truncated"] >= 2 * ((num_envs + 1) // 2)
    assert ends["terminated"] > 10 or num_envs == 1


def test_falling_at_the_limit_is_termination():
    def fall(max_t):
        env = CartPole(1, max_t=max_t)
        env.reset(0)
        for _ in range(500):
            step = env.step(np.array([1]))
            if step.episode_length:
                return step
        raise AssertionError("it never fell")

    length = fall(500).episode_length[0]
    at_limit, before = fall(length), fall(length - 1)
    assert (at_limit.terminated.tolist(), at_limit.truncated.tolist()) == ([True], [False])
    assert (before.terminated.tolist(), before.truncated.tolist()) == ([False], [True])
    assert before.episode_length == [length - 1]


def test_an_action_that_does_not_exist_is_refused():
    env = CartPole(2)
    env.reset(0)
    with pytest.raises(IndexError):
        env.step(np.array([0, 2]))
