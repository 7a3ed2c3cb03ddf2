import math

import pytest
import torch
from torch.nn.functional import batch_norm

from slm_lab.functional.normalize import batch_renorm

X = torch.tensor([[1.0, 0.0], [3.0, 8.0]])
"""Means 2 and 4, variances 1 and 16."""


def test_by_hand() -> None:
    """Running means 1 and 4, variances 4 and 1: r = 1/2 and 4 (cut to 3), d = 1/2 and 0."""
    made = batch_renorm(X, torch.tensor([1.0, 4.0]), torch.tensor([4.0, 1.0]), r_max=3.0, d_max=5.0, eps=0.0)
    torch.testing.assert_close(made.x, torch.tensor([[-1 * 0.5 + 0.5, -1 * 3.0], [0.5 + 0.5, 3.0]]))
    torch.testing.assert_close(made.mean, torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(made.var, torch.tensor([1.0, 16.0]))


def test_the_corrections_are_bounded_on_both_sides() -> None:
    """Running variances 100 and 16: r = 1/10, cut to 1/3, and 1; means 22 and -46: d = -2 and 12.5, cut to 1."""
    made = batch_renorm(X, torch.tensor([22.0, -46.0]), torch.tensor([100.0, 16.0]), r_max=3.0, d_max=1.0, eps=0.0)
    torch.testing.assert_close(made.x, torch.tensor([[-1 / 3 - 1, 0.0], [1 / 3 - 1, 2.0]]))


def test_eps_is_added_to_both_variances() -> None:
    x = torch.tensor([[-1.0], [1.0]])
    made = batch_renorm(x, torch.zeros(1), torch.full((1,), 2.0), r_max=3.0, d_max=5.0, eps=2.0)
    torch.testing.assert_close(made.x, x / 2)
    made = batch_renorm(x, torch.zeros(1), torch.full((1,), 2.0), r_max=1.0, d_max=0.0, eps=2.0)
    torch.testing.assert_close(made.x, x / math.sqrt(3))


def test_within_the_bounds_it_is_what_the_running_statistics_give() -> None:
    torch.manual_seed(0)
    x, mean, var = torch.randn(64, 5) * 2 + 1, torch.randn(5), torch.rand(5) + 0.7
    made = batch_renorm(x, mean, var, r_max=100.0, d_max=100.0, eps=1e-3)
    torch.testing.assert_close(made.x, batch_norm(x, mean, var, training=False, eps=1e-3))


def test_without_corrections_it_is_batch_normalization() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, requires_grad=True)
    weight = torch.randn(8, 3)
    made = batch_renorm(x, torch.randn(3), torch.rand(3), r_max=1.0, d_max=0.0, eps=1e-3)
    theirs = batch_norm(x, None, None, training=True, eps=1e-3)
    torch.testing.assert_close(made.x, theirs)
    grads = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (made.x, theirs)]
    torch.testing.assert_close(*grads)


def test_corrections_are_constants_to_the_gradient() -> None:
    """The gradient is that of batch normalization, times r."""
    torch.manual_seed(0)
    x = torch.randn(8, 1, requires_grad=True)
    weight = torch.randn(8, 1)
    std = (x.detach().var(0, correction=0) + 1e-3).sqrt()
    made = batch_renorm(x, torch.zeros(1), (2 * std) ** 2 - 1e-3, r_max=3.0, d_max=5.0)
    theirs = batch_norm(x, None, None, training=True, eps=1e-3)
    (mine,) = torch.autograd.grad((made.x * weight).sum(), x)
    (plain,) = torch.autograd.grad((theirs * weight).sum(), x)
    torch.testing.assert_close(mine, plain / 2)
    assert not made.mean.requires_grad
    assert not made.var.requires_grad


@pytest.mark.parametrize("b", [1, 2])
def test_small_batches_are_finite(b: int) -> None:
    made = batch_renorm(torch.ones(b, 2), torch.zeros(2), torch.ones(2), r_max=3.0, d_max=5.0)
    assert torch.isfinite(made.x).all()
