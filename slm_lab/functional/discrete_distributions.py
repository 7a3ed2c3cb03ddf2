"""Distributions over discrete actions: one of n, one of n in each of several places, switches."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from slm_lab.types import ActionSpace, Discrete, MultiBinary, MultiDiscrete


def gumbel_noise(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard Gumbel noise, `-log(E)` with E exponential; on the CPU.

    >>> gumbel_noise((2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    return torch.empty(shape).exponential_(generator=generator).log_().neg_()


@dataclass(frozen=True)
class Categorical:
    """One of n actions; `p = softmax(logits)`.

    >>> d = Categorical.from_head(torch.tensor([[0.0, 1.0986]]))
    >>> d.log_prob(torch.tensor([1])).exp(), d.mode()
    (tensor([0.7500]), tensor([1]))
    """

    log_p: Tensor
    """[B, n] normalized log probabilities"""

    @staticmethod
    def head_size(action: ActionSpace) -> int:
        """n"""
        if not isinstance(action, Discrete):
            raise TypeError(f"Categorical is for discrete actions, not {action}")
        return action.n

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """Standard Gumbel noise [*shape, n], `-log(E)` with E exponential."""
        return gumbel_noise((*shape, Categorical.head_size(action)), generator)

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From logits [B, n]."""
        return cls(raw.log_softmax(-1))

    def log_prob(self, action: Tensor) -> Tensor:
        """[B] of actions [B] int64."""
        return self.log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """`-sum p log p`, [B], in nats."""
        return -(self.log_p.exp() * self.log_p).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """`argmax(log p + Gumbel)`, [B]: the Gumbel-max trick."""
        return (self.log_p + noise).argmax(-1)

    def mode(self) -> Tensor:
        """[B]"""
        return self.log_p.argmax(-1)


@dataclass(frozen=True)
class GumbelSoftmax(Categorical):
    """Categorical under another name of SLM-Lab: `argmax(logits + Gumbel)` is a draw from it. Jang et al. 2017."""


@dataclass(frozen=True)
class Argmax(Categorical):
    """All probability on the largest output; equal ones share it. Its log probability has no gradient.

    >>> Argmax.from_head(torch.tensor([[1.0, 3.0, 3.0]])).log_p.exp()
    tensor([[0.0000, 0.5000, 0.5000]])
    """

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From values [B, n]."""
        best = raw == raw.amax(-1, keepdim=True)
        # -1e8 in place of minus infinity: p log p stays 0
        return cls(torch.where(best, -best.sum(-1, keepdim=True).to(raw.dtype).log(), -1e8))


@dataclass(frozen=True)
class MultiCategorical:
    """One of `nvec[i]` actions in each place i, independent of each other. `of(nvec)` gives the class to use.

    >>> d = MultiCategorical.of((2, 2)).from_head(torch.tensor([[0.0, 0.0, 0.0, 1.0986]]))
    >>> d.log_prob(torch.tensor([[0, 1]])).exp(), d.mode()
    (tensor([0.3750]), tensor([[0, 1]]))
    """

    nvec: ClassVar[tuple[int, ...]]

    places: tuple[Categorical, ...]

    @classmethod
    def of(cls, nvec: tuple[int, ...]) -> type[Self]:
        """The class for places of these sizes."""
        return type("MultiCategorical", (cls,), {"nvec": tuple(nvec)})

    @staticmethod
    def head_size(action: ActionSpace) -> int:
        """Sum of nvec."""
        if not isinstance(action, MultiDiscrete):
            raise TypeError(f"MultiCategorical is for multi-discrete actions, not {action}")
        return sum(action.nvec)

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """Standard Gumbel noise [*shape, sum of nvec]."""
        return gumbel_noise((*shape, MultiCategorical.head_size(action)), generator)

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From logits [B, sum of nvec], place by place."""
        return cls(tuple(Categorical.from_head(part) for part in torch.split(raw, list(cls.nvec), -1)))

    def log_prob(self, action: Tensor) -> Tensor:
        """Sum over places, [B], of actions [B, len(nvec)] int64."""
        parts = [place.log_prob(a) for place, a in zip(self.places, action.unbind(-1), strict=True)]
        return torch.stack(parts).sum(0)

    def entropy(self) -> Tensor:
        """Sum over places, [B], in nats."""
        return torch.stack([place.entropy() for place in self.places]).sum(0)

    def sample(self, noise: Tensor) -> Tensor:
        """[B, len(nvec)]"""
        noises = torch.split(noise, list(self.nvec), -1)
        return torch.stack([place.sample(n) for place, n in zip(self.places, noises, strict=True)], -1)

    def mode(self) -> Tensor:
        """[B, len(nvec)]"""
        return torch.stack([place.mode() for place in self.places], -1)


@dataclass(frozen=True)
class Bernoulli:
    """n independent switches; `p(1) = sigmoid(logit)`.

    >>> d = Bernoulli.from_head(torch.tensor([[0.0, 1.0986]]))
    >>> d.log_prob(torch.tensor([[1, 1]])).exp(), d.mode()
    (tensor([0.3750]), tensor([[0, 1]]))
    """

    logits: Tensor
    """[B, n]"""

    @staticmethod
    def head_size(action: ActionSpace) -> int:
        """n"""
        if not isinstance(action, MultiBinary):
            raise TypeError(f"Bernoulli is for multi-binary actions, not {action}")
        return action.n

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """Standard logistic noise [*shape, n]: the difference of two Gumbel variables."""
        size = (*shape, Bernoulli.head_size(action))
        return gumbel_noise(size, generator) - gumbel_noise(size, generator)

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From logits [B, n]."""
        return cls(raw)

    def log_prob(self, action: Tensor) -> Tensor:
        """`sum_i -softplus(-l_i)` where 1, `-softplus(l_i)` where 0: [B] of actions [B, n]."""
        return -softplus(torch.where(action > 0, -self.logits, self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        """`sum_i p softplus(-l) + (1 - p) softplus(l)`, [B], in nats."""
        p = self.logits.sigmoid()
        return (p * softplus(-self.logits) + (1 - p) * softplus(self.logits)).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """1 where `logit + noise > 0`, [B, n] int64."""
        return (self.logits + noise > 0).long()

    def mode(self) -> Tensor:
        """[B, n] int64"""
        return (self.logits > 0).long()
