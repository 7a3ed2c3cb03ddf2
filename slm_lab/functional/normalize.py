"""Bringing numbers to scale."""

from typing import NamedTuple

import torch
from torch import Tensor


def standardize(x: Tensor, eps: float = 1e-8, *, center: bool = True) -> Tensor:
    """`(x - mean) / (std + eps)` over all elements, sample standard deviation; zeros if there is only one element.

    Args:
        x: any shape
        eps: keeps a constant x finite
        center: subtract the mean

    Returns:
        the shape of x

    >>> standardize(torch.tensor([1.0, 2.0, 3.0]))
    tensor([-1.,  0.,  1.])
    >>> standardize(torch.tensor([4.0]))
    tensor([0.])
    """
    if x.numel() < 2:
        return torch.zeros_like(x) if center else x
    std, mean = torch.std_mean(x)
    return (x - mean if center else x) / (std + eps)


def symlog(x: Tensor) -> Tensor:
    """`sign(x) ln(1 + |x|)`: nearly x where it is small, and its size in decades where it is large.

    Hafner et al. 2023, arXiv:2301.04104, (9). Errors of values of very different size weigh alike on this scale.

    Args:
        x: any shape

    Returns:
        the shape of x

    >>> symlog(torch.tensor([0.0, -1.718282]))
    tensor([ 0., -1.])
    """
    return x.sign() * x.abs().log1p()


def merge_moments(moments: Tensor, x: Tensor) -> Tensor:
    """Count, mean and population variance of a sample after x is added to it. Chan, Golub, LeVeque 1983.

    Of counts m and n with means a and b and variances v and w, the union has mean `a + (b - a) s`, s = n / (m + n),
    and variance `v (1 - s) + w s + (b - a)^2 s (1 - s)`.

    Args:
        moments: [3] count, mean, variance
        x: any shape, not empty

    Returns:
        [3]

    >>> merge_moments(merge_moments(torch.zeros(3), torch.tensor([1.0, 2.0])), torch.tensor([6.0]))
    tensor([3.0000, 3.0000, 4.6667])
    """
    count, mean, var = moments.unbind()
    total = count + x.numel()
    share = x.numel() / total
    more_var, more_mean = torch.var_mean(x, correction=0)
    delta = more_mean - mean
    new_var = var * (1 - share) + more_var * share + delta**2 * share * (1 - share)
    return torch.stack([total, mean + delta * share, new_var])


def quantile_range(x: Tensor, low: float = 0.05, high: float = 0.95) -> Tensor:
    """The distance between two quantiles of all elements: a scale that a few outliers do not move.

    Args:
        x: any shape
        low: the lower quantile
        high: the upper one

    Returns:
        0-d

    >>> quantile_range(torch.arange(101.0))
    tensor(90.)
    """
    ends = torch.quantile(x.flatten(), torch.tensor([low, high], dtype=x.dtype, device=x.device))
    return ends[1] - ends[0]


class Renormalized(NamedTuple):
    """Result of `batch_renorm`."""

    x: Tensor
    """[B, F]"""
    mean: Tensor
    """[F] of the batch, a constant"""
    var: Tensor
    """[F] of the batch, a constant; population variance"""


def batch_renorm(
    x: Tensor, mean: Tensor, var: Tensor, r_max: Tensor | float, d_max: Tensor | float, eps: float = 1e-3
) -> Renormalized:
    """`(x - mean_B) / std_B * r + d`: batch normalization, corrected towards running statistics.

    Ioffe 2017, arXiv:1702.03275, algorithm 1. `r = std_B / std` in `[1 / r_max, r_max]` and `d = (mean_B - mean) / std`
    in `[-d_max, d_max]` are constants to the gradient. Within these bounds the result is `(x - mean) / std`, what the
    running statistics give; with r_max = 1 and d_max = 0 it is plain batch normalization. std is `sqrt(var + eps)`.

    Args:
        x: [B, F]
        mean: [F], running mean
        var: [F], running variance
        r_max: 1 or more
        d_max: 0 or more
        eps: added to variances

    >>> x = torch.tensor([[1.0], [3.0]])
    >>> batch_renorm(x, torch.tensor([0.0]), torch.tensor([4.0]), r_max=1.0, d_max=0.0, eps=0.0).x
    tensor([[-1.],
            [ 1.]])
    >>> batch_renorm(x, torch.tensor([0.0]), torch.tensor([4.0]), r_max=3.0, d_max=5.0, eps=0.0).x
    tensor([[0.5000],
            [1.5000]])
    """
    batch_var, batch_mean = torch.var_mean(x, 0, correction=0)
    batch_std = (batch_var + eps).sqrt()
    constant_mean, constant_var = batch_mean.detach(), batch_var.detach()
    std = (var + eps).sqrt()
    r_most = torch.as_tensor(r_max, dtype=x.dtype, device=x.device)
    d_most = torch.as_tensor(d_max, dtype=x.dtype, device=x.device)
    r = (batch_std.detach() / std).clamp(1 / r_most, r_most)
    d = ((constant_mean - mean) / std).clamp(-d_most, d_most)
    return Renormalized((x - batch_mean) / batch_std * r + d, constant_mean, constant_var)


def unit_rows_(weight: Tensor) -> None:
    """`w_j = w_j / |w_j|` for each row. Palenicek et al. 2025, arXiv:2502.07523, section 4.

    A layer followed by a normalization gives the same output whatever the length of its rows; its gradient is inversely
    proportional to it.

    Args:
        weight: [F, I], changed in place

    >>> w = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
    >>> unit_rows_(w)
    >>> w
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    weight.div_(weight.norm(dim=1, keepdim=True).clamp_min(1e-12))
