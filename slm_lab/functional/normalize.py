"""Bringing numbers to scale."""

import torch
from torch import Tensor


def standardize(x: Tensor, eps: float = 1e-8, *, center: bool = True) -> Tensor:
    """`(x - mean) / (std + eps)` over all elements, sample standard deviation; zeros where there is only one element.

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


def explained_variance(value: Tensor, ret: Tensor) -> Tensor:
    """`1 - Var(ret - value) / Var(ret)`: 1 is a perfect critic, 0 one no better than a constant.

    Args:
        value: [B]
        ret: [B]

    Returns:
        0-d; NaN where the returns are all equal

    >>> explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    tensor(0.7500)
    """
    return 1 - (ret - value).var() / ret.var()
