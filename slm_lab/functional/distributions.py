"""Action distributions, written out: cheaper than torch.distributions and free of its checks, so that they compile.

Each is made from the raw output of a policy head. Chance enters as an argument (`noise`), drawn elsewhere: a sample is
then a function of tensors, the same compiled or not.
"""

import math
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Generator, Tensor

from slm_lab.types import ActionSpace, Continuous, Discrete

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Bounds of the log standard deviation of a state-dependent head."""


class Distribution(Protocol):
    """What a policy needs of an action distribution over a batch of B observations."""

    @staticmethod
    def head_size(action: ActionSpace) -> int:
        """K, width of the policy head."""
        ...

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """The chance that `sample` wants for a batch of that shape, on the CPU."""
        ...

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From the head's output [B, K]."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """[B]"""
        ...

    def entropy(self) -> Tensor:
        """[B]"""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """An action [B, *A]."""
        ...

    def mode(self) -> Tensor:
        """The likeliest action [B, *A]."""
        ...


@dataclass(frozen=True)
class Categorical:
    """One of n actions; `p = softmax(logits)`.

    >>> d = Categorical.from_head(torch.tensor([[0.0, math.log(3.0)]]))
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
        size = (*shape, Categorical.head_size(action))
        return torch.empty(size).exponential_(generator=generator).log_().neg_()

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
class Normal:
    """Independent Gaussians, one a dimension; log probabilities and entropies are summed over dimensions.

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


DISTRIBUTIONS: dict[str, type[Distribution]] = {"Categorical": Categorical, "Normal": Normal}


def distribution_for(name: str, action: ActionSpace) -> type[Distribution]:
    """The class that `action_pdtype` names; `default` is Categorical for discrete actions, Normal for continuous ones.

    Raises:
        ValueError: an unknown name, or one that does not fit the action space; the message lists what does.

    >>> distribution_for("default", Discrete(2)).__name__
    'Categorical'
    """
    fits = {"Categorical": Discrete, "Normal": Continuous}
    known = [k for k, space in fits.items() if isinstance(action, space)]
    if name == "default" and known:
        return DISTRIBUTIONS[known[0]]
    if name not in known:
        raise ValueError(f"'{name}' does not fit {type(action).__name__} actions (known: {', '.join(known) or 'none'})")
    return DISTRIBUTIONS[name]
