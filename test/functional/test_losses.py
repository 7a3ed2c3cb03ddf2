"""Losses against hand numbers, and their gradients against what they should push."""

import pytest
import torch

from slm_lab.functional.losses import (
    clipped_value_loss,
    policy_gradient_loss,
    ppo_clip_loss,
    self_imitation_losses,
)
from slm_lab.functional.normalize import standardize


def test_policy_gradient_pushes_by_the_advantage() -> None:
    log_prob = torch.tensor([-0.5, -1.5], requires_grad=True)
    advantage = torch.tensor([2.0, -4.0], requires_grad=True)
    loss = policy_gradient_loss(log_prob, advantage)
    loss.backward()
    assert loss.item() == pytest.approx((0.5 * 2 - 1.5 * 4) / 2)
    assert log_prob.grad is not None
    torch.testing.assert_close(log_prob.grad, torch.tensor([-1.0, 2.0]))
    assert advantage.grad is None  # a constant of the policy loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        (1.1, 1.0, 1.1, 1.0),  # inside the region: the plain surrogate
        (1.5, 1.0, 1.2, 0.0),  # further than 1 + eps, to the good: no more gain, no gradient
        (0.5, 1.0, 0.5, 1.0),  # the wrong way: never clipped
        (0.5, -1.0, -0.8, 0.0),
        (1.5, -1.0, -1.5, -1.0),
    ],
)
def test_ppo_clip_by_hand(ratio: float, advantage: float, objective: float, slope: float) -> None:
    log_ratio = torch.tensor([ratio]).log().requires_grad_()
    loss = ppo_clip_loss(log_ratio, torch.tensor([advantage]), torch.tensor(0.2))
    loss.backward()
    assert loss.item() == pytest.approx(-objective)
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(-slope * ratio)  # d rho / d log rho = rho


def test_clipped_value_loss_takes_the_worse_of_both() -> None:
    old, ret = torch.zeros(3), torch.tensor([3.0, 3.0, 0.1])
    value = torch.tensor([0.4, 2.0, 2.0])
    # (0.4-3)^2 = 6.76; max((2-3)^2, (0.5-3)^2) = 6.25; max(1.9^2, 0.4^2) = 3.61
    assert clipped_value_loss(value, old, ret, torch.tensor(0.5)).item() == pytest.approx((6.76 + 6.25 + 3.61) / 3)


def test_standardize() -> None:
    x = torch.randn(1000) * 5 + 3
    y = standardize(x)
    assert y.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert y.std().item() == pytest.approx(1.0, abs=1e-5)
    assert standardize(torch.full((5,), 2.0)).abs().max().item() == 0.0


def test_self_imitation_by_hand() -> None:
    """Gains (R - V)+ = 2, 0, 0.5: (2 + 0.25) / 3 with log pi = -1, -9, -0.5; and (4 + 0.25) / 6."""
    log_prob = torch.tensor([-1.0, -9.0, -0.5], requires_grad=True)
    value = torch.tensor([1.0, 4.0, 0.0], requires_grad=True)
    policy_loss, value_loss = self_imitation_losses(log_prob, value, torch.tensor([3.0, 3.0, 0.5]))
    assert policy_loss.item() == pytest.approx(2.25 / 3)
    assert value_loss.item() == pytest.approx(4.25 / 6)
    assert torch.autograd.grad(policy_loss, value, allow_unused=True) == (None,)
    (grad,) = torch.autograd.grad(value_loss, value)
    torch.testing.assert_close(grad, torch.tensor([-2.0, 0.0, -0.5]) / 3)
