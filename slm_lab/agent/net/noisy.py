"""Noisy linear layers: the net learns how much to explore, and where. Fortunato et al. 2018, arXiv:1706.10295."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear


class NoisyLinear(nn.Linear):
    """`y = (W + S * e) x + b + s * e_out`, `e = e_out e_in^T`: factorised Gaussian noise, (10), (11) of the paper.

    `e_in` and `e_out` are `f(x) = sign(x) sqrt(|x|)` of standard normals, drawn by `LayerNoise`; until then, and in
    eval mode, there is no noise. All rows of a batch see the same noise.

    Args:
        width: p, inputs
        size: q, outputs
        std: sigma_0; S and s start at sigma_0 / sqrt(p)
    """

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, width: int, size: int, std: float) -> None:
        super().__init__(width, size)
        self.weight_std = nn.Parameter(torch.full((size, width), std / width**0.5))
        self.bias_std = nn.Parameter(torch.full((size,), std / width**0.5))
        # not saved: drawn again before every use
        self.register_buffer("noise_in", torch.zeros(width), persistent=False)
        self.register_buffer("noise_out", torch.zeros(size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, p] -> [B, q]"""
        if not self.training:
            return super().forward(x)
        weight = self.weight + self.weight_std * (self.noise_out.unsqueeze(-1) * self.noise_in)
        return linear(x, weight, self.bias + self.bias_std * self.noise_out)


class LayerNoise:
    """The noise of all noisy layers of a net."""

    def __init__(self, net: nn.Module, generator: Generator) -> None:
        self._net = net
        layers = [m for m in net.modules() if isinstance(m, NoisyLinear)]
        self._buffers = [buffer for m in layers for buffer in (m.noise_in, m.noise_out)]
        self._sizes = [len(buffer) for buffer in self._buffers]
        self._generator = generator

    def __bool__(self) -> bool:
        """Whether there is a noisy layer."""
        return bool(self._buffers)

    def draw_(self) -> None:
        """New noise for every layer."""
        if not self._buffers:
            return
        x = torch.randn(sum(self._sizes), generator=self._generator)
        x = x.sign() * x.abs().sqrt()
        for buffer, value in zip(self._buffers, x.split(self._sizes), strict=True):
            buffer.copy_(value)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, the net computes without noise."""
        if self._buffers:
            self._net.eval()
        try:
            yield
        finally:
            if self._buffers:
                self._net.train()
