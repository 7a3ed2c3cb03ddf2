"""Action distributions, written out: cheaper than torch.distributions and free of its checks, so that they compile.

Each is made from the raw output of a policy head. Chance enters as an argument (`noise`), drawn elsewhere: a sample is
then a function of tensors, the same compiled or not.
"""

from typing import Protocol, Self

from torch import Generator, Tensor

from slm_lab.functional.continuous_distributions import Beta, MultivariateNormal, Normal
from slm_lab.functional.discrete_distributions import Argmax, Bernoulli, Categorical, GumbelSoftmax, MultiCategorical
from slm_lab.types import ActionSpace, Continuous, Discrete, MultiBinary, MultiDiscrete


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


FITTING: dict[type, dict[str, type[Distribution]]] = {
    Discrete: {"Categorical": Categorical, "Argmax": Argmax, "GumbelSoftmax": GumbelSoftmax},
    Continuous: {"Normal": Normal, "MultivariateNormal": MultivariateNormal, "Beta": Beta},
    MultiDiscrete: {"MultiCategorical": MultiCategorical},
    MultiBinary: {"Bernoulli": Bernoulli},
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
        raise UnfitDistribution(f"'{name}' does not fit {type(action).__name__} actions (known: {', '.join(known)})")
    # the only one whose head can't be read without the action space
    return MultiCategorical.of(action.nvec) if isinstance(action, MultiDiscrete) else known[name]
