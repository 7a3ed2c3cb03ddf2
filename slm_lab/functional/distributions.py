"""Action distributions, written out: cheaper than torch.distributions and free of its checks, so that they compile.

Each is made from the raw output of a policy head. Chance enters as an argument (`noise`), drawn elsewhere: a sample is
then a function of tensors, the same compiled or not.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Generator, Tensor

from slm_lab.functional.continuous_distributions import Beta, MultivariateNormal, Normal
from slm_lab.functional.discrete_distributions import Argmax, Bernoulli, Categorical, GumbelSoftmax, MultiCategorical
from slm_lab.types import ActionSpace, Continuous, Discrete, Mixed, MultiBinary, MultiDiscrete, kind_of


class Distribution(Protocol):
    """What a policy needs of an action distribution over a batch of B observations."""

    @staticmethod
    def head_size(action: ActionSpace) -> int:
        """K, width of the policy head."""
        ...

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """The random numbers that `sample` takes for a batch of that shape, on the CPU."""
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
class Product:
    """Parts of an action, each with a distribution of its own, independent given the observation.

    `log p(a) = sum_i log p_i(a_i)`, and entropies add up. `of(action)` gives the class to use: each part has the
    default distribution of its kind.

    >>> d = Product.of(Mixed((Discrete(2), Continuous(1, (-1.0,), (1.0,))))).from_head(torch.zeros(1, 4))
    >>> d.log_prob(torch.tensor([[1.0, 0.0]])), d.mode()
    (tensor([-1.6121]), tensor([[0., 0.]]))
    """

    action: ClassVar[Mixed]
    kinds: ClassVar[tuple[type[Distribution], ...]]
    heads: ClassVar[list[int]]
    """Width of each part's head."""
    noises: ClassVar[list[int]]
    """Width of each part's noise."""

    parts: tuple[Distribution, ...]

    @classmethod
    def of(cls, action: Mixed) -> type[Self]:
        """The class for actions of these parts."""
        kinds = tuple(kind for kind, _ in _kinds(action))
        heads = [kind.head_size(part) for kind, part in zip(kinds, action.parts, strict=True)]
        # a Normal takes a number for each dimension, all others one for each output
        noises = [part.dim if isinstance(part, Continuous) else n for part, n in zip(action.parts, heads, strict=True)]
        return type("Product", (cls,), {"action": action, "kinds": kinds, "heads": heads, "noises": noises})

    @staticmethod
    def head_size(action: ActionSpace) -> int:
        """The sum over parts."""
        return sum(kind.head_size(part) for kind, part in _kinds(action))

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """The parts' noise, side by side."""
        return torch.cat([kind.noise(shape, part, generator) for kind, part in _kinds(action)], -1)

    @classmethod
    def from_head(cls, raw: Tensor) -> Self:
        """From [B, K], part by part."""
        heads = torch.split(raw, cls.heads, -1)
        return cls(tuple(kind.from_head(head) for kind, head in zip(cls.kinds, heads, strict=True)))

    def log_prob(self, action: Tensor) -> Tensor:
        """Sum over parts, [B], of actions [B, sum of widths]."""
        numbers = torch.split(action, list(self.action.widths), -1)
        found = []
        for dist, part, x in zip(self.parts, self.action.parts, numbers, strict=True):
            whole = x if isinstance(part, Continuous) else x.long()
            found.append(dist.log_prob(whole.squeeze(-1) if isinstance(part, Discrete) else whole))
        return torch.stack(found).sum(0)

    def entropy(self) -> Tensor:
        """Sum over parts, [B], in nats."""
        return torch.stack([dist.entropy() for dist in self.parts]).sum(0)

    def sample(self, noise: Tensor) -> Tensor:
        """[B, sum of widths] f32"""
        noises = torch.split(noise, self.noises, -1)
        return self._joined([dist.sample(n) for dist, n in zip(self.parts, noises, strict=True)])

    def mode(self) -> Tensor:
        """[B, sum of widths] f32"""
        return self._joined([dist.mode() for dist in self.parts])

    def _joined(self, parts: list[Tensor]) -> Tensor:
        flat = [
            x.unsqueeze(-1) if isinstance(part, Discrete) else x
            for x, part in zip(parts, self.action.parts, strict=True)
        ]
        return torch.cat([x.float() for x in flat], -1)


def _kinds(action: ActionSpace) -> list[tuple[type[Distribution], ActionSpace]]:
    """The parts of a Mixed action, each with its distribution."""
    if not isinstance(action, Mixed):
        raise TypeError(f"Product is for mixed actions, not {action}")
    return [(distribution_for("default", part), part) for part in action.parts]


FITTING: dict[type, dict[str, type[Distribution]]] = {
    Discrete: {"Categorical": Categorical, "Argmax": Argmax, "GumbelSoftmax": GumbelSoftmax},
    Continuous: {"Normal": Normal, "MultivariateNormal": MultivariateNormal, "Beta": Beta},
    MultiDiscrete: {"MultiCategorical": MultiCategorical},
    MultiBinary: {"Bernoulli": Bernoulli},
    Mixed: {"Product": Product},
}
"""Per kind of action space, by name; the first is the default."""


class UnfitDistribution(ValueError):
    """An action space does not have that distribution; the message lists which it has."""


def distribution_for(name: str, action: ActionSpace) -> type[Distribution]:
    """The class that `action_pdtype` names; `default` is the first that fits the action space.

    Raises:
        UnfitDistribution: an unknown name, or one that does not fit the action space; the message lists what does.

    >>> distribution_for("default", Discrete(2)).__name__
    'Categorical'
    """
    known = FITTING[type(action)]
    if name == "default":
        name = next(iter(known))
    if name not in known:
        raise UnfitDistribution(f"'{name}' does not fit {kind_of(action)} actions (known: {', '.join(known)})")
    # those whose heads can't be read without the action space
    if isinstance(action, Mixed):
        return Product.of(action)
    return MultiCategorical.of(action.nvec) if isinstance(action, MultiDiscrete) else known[name]
