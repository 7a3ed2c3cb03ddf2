"""Distributions over continuous actions. The agent acts in [-1, 1]: TanhNormal and Beta stay inside by themselves."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from slm_lab.types import ActionSpace, Continuous

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Bounds of the log standard deviation of a state-dependent head."""


@dataclass(frozen=True)
class Normal:
    """Independent Gaussians, one per dimension; log probabilities and entropies are summed over dimensions.

    Samples are not clipped: the env clips what it is given, and the log probability stays that of what was drawn.

    >>> d = Normal.from_head(torch.tensor([[0.0, 0.0]]))
    >>> d.log_prob(torch.tensor([[1.0]])), d.entropy()
    (tensor([-1.4189]), tensor([1.4189]))
    """

    loc: Tensor
    """[B, dim]"""
    log_std: Tensor
    """[B, dim]"""

    @staticmethod
    def head_size(action: ActionSpace) -> int:
        """2 dim: location and log standard deviation."""
        if not isinstance(action, Continuous):
            raise TypeError(f"Normal is for continuous actions, not {action}")
        return 2 * action.dim

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """Standard normal noise [*shape, dim]."""
        return torch.randn((*shape, Normal.head_size(action) // 2), generator=generator)

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From [B, 2 dim]: locations, then log standard deviations, clamped."""
        loc, log_std = raw.chunk(2, -1)
        return cls(loc, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX))

    def log_prob(self, action: Tensor) -> Tensor:
        """`sum_i -((a_i - mu_i) / sigma_i)^2 / 2 - log sigma_i - log(2 pi) / 2`, [B]."""
        z = (action - self.loc) * (-self.log_std).exp()
        return (-0.5 * z * z - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """`sum_i log sigma_i + (1 + log(2 pi)) / 2`, [B], in nats."""
        return (self.log_std + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """`mu + sigma * noise`, [B, dim]."""
        return self.loc + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """mu, [B, dim]"""
        return self.loc


@dataclass(frozen=True)
class MultivariateNormal(Normal):
    """Gaussian with a diagonal covariance: as Normal, but the head's second half is the log *variance*.

    >>> MultivariateNormal.from_head(torch.tensor([[0.0, 1.0]])).log_std
    tensor([[0.5000]])
    """

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From [B, 2 dim]: locations, then log variances, clamped."""
        loc, log_var = raw.chunk(2, -1)
        return cls(loc, 0.5 * log_var.clamp(LOG_STD_MIN, LOG_STD_MAX))


@dataclass(frozen=True)
class TanhNormal(Normal):
    """`a = tanh(u)` with u Gaussian: actions inside (-1, 1). Haarnoja et al. 2018, arXiv:1801.01290, appendix C.

    Change of variables: `log pi(a) = log N(u) - sum_i log(1 - tanh(u_i)^2)`, where the correction is written
    `2 (ln 2 - u - softplus(-2u))`, which is the same and exact for large |u| too.

    >>> d = TanhNormal.from_head(torch.tensor([[0.0, 0.0]]))
    >>> d.sample_log_prob(torch.tensor([[1.0]]))
    (tensor([[0.7616]]), tensor([-0.5514]))
    """

    def log_prob(self, action: Tensor) -> Tensor:
        """[B]. Loses precision near the bounds; `sample_log_prob` does not."""
        u = torch.atanh(action.clamp(-1 + 1e-6, 1 - 1e-6))
        return super().log_prob(u) - _log_tanh_slope(u).sum(-1)

    def entropy(self) -> Tensor:
        """It has no closed form.

        Raises:
            NotImplementedError: always; the mean of `-log_prob` of samples estimates it
        """
        raise NotImplementedError("the entropy of TanhNormal has no closed form")

    def sample(self, noise: Tensor) -> Tensor:
        """`tanh(mu + sigma * noise)`, [B, dim]."""
        return torch.tanh(super().sample(noise))

    def sample_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterized action [B, dim] and its log probability [B]; both carry gradients."""
        u = self.loc + self.log_std.exp() * noise
        gaussian = -0.5 * noise * noise - self.log_std - 0.5 * math.log(2 * math.pi)
        return torch.tanh(u), (gaussian - _log_tanh_slope(u)).sum(-1)

    def mode(self) -> Tensor:
        """`tanh(mu)`, [B, dim]: the action of the most likely u."""
        return torch.tanh(self.loc)


def _log_tanh_slope(u: Tensor) -> Tensor:
    """`log(1 - tanh(u)^2)`"""
    return 2 * (math.log(2) - u - softplus(-2 * u))


@dataclass(frozen=True)
class Beta:
    """Independent Beta distributions stretched to [-1, 1]; unimodal. Chou et al. 2017, ICML.

    >>> d = Beta(torch.tensor([[2.0]]), torch.tensor([[2.0]]))
    >>> d.log_prob(torch.tensor([[0.0]])).exp(), d.mode()
    (tensor([0.7500]), tensor([[0.]]))
    """

    alpha: Tensor
    """[B, dim], above 1"""
    beta: Tensor
    """[B, dim], above 1"""

    TRIES: ClassVar[int] = 8
    """Proposals for each gamma variable; each is accepted with probability above 0.95, none of them in 1 of 3e10."""

    @staticmethod
    def head_size(action: ActionSpace) -> int:
        """2 dim: alpha and beta before their transformation."""
        if not isinstance(action, Continuous):
            raise TypeError(f"Beta is for continuous actions, not {action}")
        return 2 * action.dim

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """[*shape, 2, TRIES, 2, dim]: for each proposal of each gamma variable a normal and the log of a uniform."""
        size = (*shape, 2, Beta.TRIES, Beta.head_size(action) // 2)
        log_uniform = -torch.empty(size).exponential_(generator=generator)
        return torch.stack([torch.randn(size, generator=generator), log_uniform], -2)

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From [B, 2 dim]: `1 + softplus`, so that the density is 0 at the bounds and has one peak."""
        alpha, beta = (1 + softplus(raw)).chunk(2, -1)
        return cls(alpha, beta)

    def log_prob(self, action: Tensor) -> Tensor:
        """`sum_i (alpha - 1) log x + (beta - 1) log(1 - x) - log B(alpha, beta) - log 2`, x = (a + 1) / 2; [B]."""
        x = ((action + 1) / 2).clamp(1e-6, 1 - 1e-6)
        density = (self.alpha - 1) * x.log() + (self.beta - 1) * torch.log1p(-x) - self._log_beta()
        return (density - math.log(2)).sum(-1)

    def entropy(self) -> Tensor:
        """`sum_i log B - (a - 1) psi(a) - (b - 1) psi(b) + (a + b - 2) psi(a + b) + log 2`, psi being digamma; [B]."""
        a, b = self.alpha, self.beta
        psi = torch.digamma
        out = self._log_beta() - (a - 1) * psi(a) - (b - 1) * psi(b) + (a + b - 2) * psi(a + b)
        return (out + math.log(2)).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """`2 g / (g + h) - 1` with g, h gamma variables, [B, dim]."""
        g, h = (_gamma(shape, part) for shape, part in zip((self.alpha, self.beta), noise.unbind(-4), strict=True))
        return 2 * g / (g + h) - 1

    def mode(self) -> Tensor:
        """`(alpha - 1) / (alpha + beta - 2)`, stretched; [B, dim]."""
        return 2 * (self.alpha - 1) / (self.alpha + self.beta - 2).clamp(min=1e-12) - 1

    def _log_beta(self) -> Tensor:
        return torch.lgamma(self.alpha) + torch.lgamma(self.beta) - torch.lgamma(self.alpha + self.beta)


def _gamma(shape: Tensor, noise: Tensor) -> Tensor:
    """Gamma variables [B, dim] of shapes from 1 on: the first accepted proposal. Marsaglia and Tsang 2000.

    Args:
        shape: [B, dim]
        noise: [B, tries, 2, dim], normal and log uniform
    """
    d = shape.unsqueeze(-2) - 1 / 3
    z, log_u = noise.unbind(-2)
    root = 1 + z / (9 * d).sqrt()
    v = root**3
    accepted = (root > 0) & (log_u < 0.5 * z * z + d - d * v + d * v.clamp(min=1e-12).log())
    first = accepted.to(torch.int8).argmax(-2, keepdim=True)
    return (d * v.gather(-2, first)).squeeze(-2)
