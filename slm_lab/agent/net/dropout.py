"""Dropout whose random state is part of the net: saved, resumed and compiled with it."""

import torch
from torch import Tensor, nn

from slm_lab.functional.counters import uniform


class Dropout(nn.Module):
    """Drops a share p of the units: `x * keep / (1 - p)`. Srivastava et al. 2014, JMLR 15(56).

    Where gradients are taken, each pass drops other units; where the net only answers, it drops none. What is dropped
    follows from two buffers: the seed of the layer, and how many passes it has made.

    Args:
        p: share of the units that is dropped, at least 0 and below 1

    >>> x = Dropout(0.25)(torch.ones(1000, requires_grad=True))
    >>> x.unique().tolist()
    [0.0, 1.3333333730697632]
    >>> with torch.no_grad():
    ...     Dropout(0.25)(torch.ones(2))
    tensor([1., 1.])
    """

    seed: Tensor
    passes: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be at least 0 and below 1 (got {p})")
        self.p = p
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("passes", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x"""
        if not torch.is_grad_enabled():
            return x
        place = torch.arange(x.numel(), device=x.device).view(x.shape)
        keep = uniform(self.seed, self.passes, place) >= self.p
        self.passes.add_(1)
        return torch.where(keep, x / (1 - self.p), 0)

    def extra_repr(self) -> str:
        """The share."""
        return f"p={self.p}"
