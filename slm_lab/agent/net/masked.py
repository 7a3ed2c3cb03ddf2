"""Heads that never choose what the env forbids: outputs of masked actions are far below all others."""

from collections.abc import Mapping

import torch
from torch import Tensor

from slm_lab.functional.masks import fill_masked
from slm_lab.types import ObsPart, PackedShape

Sizes = Mapping[str, int | tuple[int, int]]
HEADS = ("policy", "q")
"""Names of heads that have an output, or several, for each action."""


class HeadMask:
    """Reads the mask that is part of an observation, and applies it to the heads.

    Args:
        mask: its place in the observation
        bytewise: whether observations are bytes
        sizes: of the heads: n, or (n, K) of K numbers for each action
    """

    def __init__(self, mask: ObsPart, *, bytewise: bool, sizes: Sizes) -> None:
        self._begin, self._end, self._bytes = mask.begin, mask.end, bytewise
        self._sizes = [(size if isinstance(size, tuple) else (size, 1)) for size in sizes.values()]
        self._applies = [name in HEADS for name in sizes]

    @classmethod
    def of(cls, shape: tuple[int, ...], sizes: Sizes) -> "HeadMask | None":
        """For observations of this shape *O; None: they have no mask."""
        if not isinstance(shape, PackedShape) or shape.mask is None:
            return None
        return cls(shape.mask, bytewise=shape.dtype == "uint8", sizes=sizes)

    def allowed(self, obs: Tensor, n: int) -> Tensor:
        """[B, *O] -> [B, n] bool; of several frames the newest counts"""
        row = obs if obs.dim() == 2 else obs[:, -1]
        part = row[:, self._begin : self._end]
        if self._bytes:
            part = part.contiguous().view(torch.float32)
        return part[:, -n:] > 0.5

    def apply(self, outs: tuple[Tensor, ...], obs: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the heads for [B, *O], in their order -> the same, with masked actions filled"""
        made = []
        for out, (n, each), applies in zip(outs, self._sizes, self._applies, strict=True):
            made.append(fill_masked(out, self.allowed(obs, n), each) if applies else out)
        return tuple(made)
