import math

import pytest
import torch

from slm_lab.functional.soft import expected_soft_value, soft_value, temperature_loss


def test_soft_value_by_hand() -> None:
    value = soft_value(torch.tensor([2.0, -1.0]), torch.tensor([-0.5, 3.0]), torch.tensor(0.2))
    torch.testing.assert_close(value, torch.tensor([2.1, -1.6]))


def test_expected_soft_value_by_hand() -> None:
    """pi = (1/4, 3/4), Q = (4, 8), alpha 2: 1 + 6 + 2 H with H = 0.5623 nats."""
    log_p = torch.tensor([[0.25, 0.75]]).log()
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    value = expected_soft_value(torch.tensor([[4.0, 8.0]]), log_p, 2.0)
    torch.testing.assert_close(value, torch.tensor([7 + 2 * entropy]))


def test_expectation_is_the_mean_of_the_estimate() -> None:
    log_p, q = torch.randn(3, 4).log_softmax(-1), torch.randn(3, 4)
    estimates = torch.stack([soft_value(q[:, a], log_p[:, a], 0.3) for a in range(4)], -1)
    torch.testing.assert_close(expected_soft_value(q, log_p, 0.3), (log_p.exp() * estimates).sum(-1))


def test_best_policy_of_a_soft_value_is_the_boltzmann_policy() -> None:
    """`pi = softmax(Q / alpha)` maximizes it, and the maximum is `alpha log sum exp(Q / alpha)`."""
    q, alpha = torch.tensor([[1.0, 2.0, 0.5]]), 0.7
    logits = (q / alpha).clone().requires_grad_()
    value = expected_soft_value(q, logits.log_softmax(-1), alpha)
    torch.testing.assert_close(value, alpha * (q / alpha).logsumexp(-1))
    (grad,) = torch.autograd.grad(value.sum(), logits)
    torch.testing.assert_close(grad, torch.zeros_like(grad), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("entropy", "rises"), [(0.1, True), (0.9, False)])
def test_temperature_rises_where_entropy_is_lacking(entropy: float, rises: bool) -> None:
    log_alpha = torch.tensor([0.3], requires_grad=True)
    loss = temperature_loss(log_alpha, torch.full((5,), entropy), 0.5)
    (grad,) = torch.autograd.grad(loss, log_alpha)
    assert grad.item() == pytest.approx(entropy - 0.5)
    assert (-grad.item() > 0) == rises


def test_temperature_loss_leaves_the_policy_alone() -> None:
    entropy = torch.tensor([1.0], requires_grad=True)
    loss = temperature_loss(torch.tensor([0.3], requires_grad=True), entropy, 0.5)
    assert torch.autograd.grad(loss, entropy, allow_unused=True) == (None,)
