"""Returns and advantages against a naive definition, hand numbers and a closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from slm_lab.functional.returns import discounted_returns, discounted_scan, gae, lambda_returns


def naive_gae(
    reward: Tensor, terminated: Tensor, truncated: Tensor, value: Tensor, final_value: Tensor, gamma: float, lam: float
) -> Tensor:
    """Step by step, env by env, as the definition reads."""
    horizon, envs = reward.shape
    advantage = torch.zeros(horizon, envs, dtype=reward.dtype)
    for n in range(envs):
        following = 0.0
        for t in reversed(range(horizon)):
            if terminated[t, n]:
                next_value = 0.0
            elif truncated[t, n]:
                next_value = float(final_value[t, n])
            else:
                next_value = float(value[t + 1, n])
            delta = float(reward[t, n]) + gamma * next_value - float(value[t, n])
            ended = bool(terminated[t, n]) or bool(truncated[t, n])
            following = delta + (0.0 if ended else gamma * lam * following)
            advantage[t, n] = following
    return advantage


def random_rollout(seed: int, horizon: int, envs: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    reward, value = (
        torch.randn(horizon, envs, generator=g).double(),
        torch.randn(horizon + 1, envs, generator=g).double(),
    )
    draw = torch.rand(horizon, envs, generator=g)
    terminated, truncated = draw < 0.15, draw > 0.85
    final_value = torch.where(truncated, torch.randn(horizon, envs, generator=g).double(), 0.0)
    return reward, terminated, truncated, value, final_value


def naive_lambda_returns(
    reward: Tensor, terminated: Tensor, truncated: Tensor, value: Tensor, final_value: Tensor, gamma: float, lam: float
) -> Tensor:
    """From the last step to the first, env by env."""
    horizon, envs = reward.shape
    ret = torch.zeros(horizon, envs, dtype=reward.dtype)
    for n in range(envs):
        for t in reversed(range(horizon)):
            if terminated[t, n]:
                rest = 0.0
            elif truncated[t, n]:
                rest = float(final_value[t, n])
            elif t == horizon - 1:
                rest = float(value[horizon, n])
            else:
                rest = (1 - lam) * float(value[t + 1, n]) + lam * float(ret[t + 1, n])
            ret[t, n] = float(reward[t, n]) + gamma * rest
    return ret


rollouts = st.tuples(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 4))
unit = st.floats(0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(rollouts, unit, unit)
def test_gae_equals_its_definition(rollout: tuple[int, int, int], gamma: float, lam: float) -> None:
    args = random_rollout(*rollout)
    torch.testing.assert_close(gae(*args, gamma, lam), naive_gae(*args, gamma, lam), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(rollouts, unit, unit)
def test_lambda_returns_equal_their_definition(rollout: tuple[int, int, int], gamma: float, lam: float) -> None:
    args = random_rollout(*rollout)
    expected = naive_lambda_returns(*args, gamma, lam)
    torch.testing.assert_close(lambda_returns(*args, gamma, lam), expected, rtol=1e-9, atol=1e-9)


def test_lambda_returns_by_hand() -> None:
    """Three steps of two envs: one terminates at its second step, the other is truncated there."""
    reward = torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    terminated = torch.tensor([[False, False], [True, False], [False, False]])
    truncated = torch.tensor([[False, False], [False, True], [False, False]])
    value = torch.tensor([[50.0, 50.0], [8.0, 8.0], [60.0, 60.0], [10.0, 10.0]])
    final_value = torch.tensor([[0.0, 0.0], [0.0, 6.0], [0.0, 0.0]])
    found = lambda_returns(reward, terminated, truncated, value, final_value, 0.5, 0.25)
    # from the last step to the first: y of step 0 is 1 + (0.75 * 8 + 0.25 * y of step 1) / 2
    torch.testing.assert_close(found, torch.tensor([[4.25, 4.625], [2.0, 5.0], [9.0, 9.0]]))


@settings(max_examples=60, deadline=None)
@given(rollouts, unit)
def test_returns_are_gae_with_lam_one_plus_value(rollout: tuple[int, int, int], gamma: float) -> None:
    reward, terminated, truncated, value, final_value = random_rollout(*rollout)
    ret = discounted_returns(reward, terminated, truncated, value[-1], final_value, gamma)
    expected = naive_gae(reward, terminated, truncated, value, final_value, gamma, 1.0) + value[:-1]
    torch.testing.assert_close(ret, expected, rtol=1e-9, atol=1e-9)


def test_scan_by_hand() -> None:
    x, c = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0.0, 0.5, 0.9])
    # y3 = 4; y2 = 3 + .5*4 = 5; y1 = 2 + 0*5 = 2; y0 = 1 + .5*2 = 2
    torch.testing.assert_close(discounted_scan(x, c), torch.tensor([2.0, 2.0, 5.0, 4.0]))


def test_gae_by_hand_across_both_kinds_of_end() -> None:
    reward = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    terminated = torch.tensor([[False], [True], [False], [False]])
    truncated = torch.tensor([[False], [False], [True], [False]])
    value = torch.tensor([[10.0], [20.0], [30.0], [40.0], [50.0]])
    final_value = torch.tensor([[0.0], [0.0], [100.0], [0.0]])
    # d3 = 4 + .5*50 - 40 = -11; d2 = 3 + .5*100 - 30 = 23 (cut); d1 = 2 - 20 = -18 (cut); d0 = 1 + .5*20 - 10 = 1
    # A0 = 1 + .5*.5*(-18) = -3.5
    expected = torch.tensor([[-3.5], [-18.0], [23.0], [-11.0]])
    torch.testing.assert_close(gae(reward, terminated, truncated, value, final_value, 0.5, 0.5), expected)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_endless_reward_of_one_is_worth_one_over_one_minus_gamma(gamma: float) -> None:
    """A world that pays 1 for ever, seen through a time limit.

    With V = 1/(1-gamma) every return is 1/(1-gamma) and every advantage 0. Taking the time limit for a true end breaks
    both, which shows that the bootstrap is what carries them.
    """
    closed_form, horizon = 1 / (1 - gamma), 7
    reward = torch.ones(horizon, 1, dtype=torch.float64)
    no = torch.zeros(horizon, 1, dtype=torch.bool)
    cut = no.clone()
    cut[3] = True
    value = torch.full((horizon + 1, 1), closed_form, dtype=torch.float64)
    final_value = torch.where(cut, closed_form, 0.0).double()

    ret = discounted_returns(reward, no, cut, value[-1], final_value, gamma)
    torch.testing.assert_close(ret, value[:-1])
    torch.testing.assert_close(
        gae(reward, no, cut, value, final_value, gamma, 0.95), torch.zeros_like(reward), atol=1e-9, rtol=0
    )

    wrong = discounted_returns(reward, cut, no, value[-1], torch.zeros_like(final_value), gamma)
    short = sum(gamma**k for k in range(4))
    assert wrong[0].item() == pytest.approx(short)
    assert wrong[0].item() < closed_form - 0.01
    assert gae(reward, cut, no, value, torch.zeros_like(final_value), gamma, 0.95)[3].item() == pytest.approx(
        1 - closed_form
    )
