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
