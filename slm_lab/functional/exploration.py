"""Exploration: how to act on Q values and still try other actions. Random numbers are arguments, drawn elsewhere."""

from typing import Protocol

import torch
from torch import Generator, Tensor

from slm_lab.functional.discrete_distributions import Categorical
from slm_lab.functional.masks import is_allowed, pick_allowed
from slm_lab.types import ActionSpace, Continuous, Discrete, Mixed, MultiDiscrete


class Exploration(Protocol):
    """A way to explore, with one number that sets how much."""

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """The random numbers that `choose` takes for a batch of that shape, on the CPU."""
        ...

    @staticmethod
    def choose(q: Tensor, explore_var: Tensor, noise: Tensor) -> Tensor:
        """Actions [B] for values [B, n] and a 0-d number."""
        ...


class EpsilonGreedy:
    """With probability epsilon any action, each equally likely; else the best. Sutton and Barto 2018, section 2.2."""

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """Uniform noise [*shape]: one independent number per env."""
        return torch.rand(shape, generator=generator)

    @staticmethod
    def choose(q: Tensor, explore_var: Tensor, noise: Tensor) -> Tensor:
        """`argmax_a Q(s, a)` where u >= epsilon; else `floor(n * u / epsilon)`: u / epsilon is uniform there.

        Args:
            q: [B, n]
            explore_var: epsilon, 0-d
            noise: u, [B] uniform in [0, 1)

        Returns:
            [B] int64

        >>> q = torch.tensor([[1.0, 0.0]]).expand(4, 2)
        >>> EpsilonGreedy.choose(q, torch.tensor(0.5), torch.tensor([0.1, 0.3, 0.5, 0.9]))
        tensor([0, 1, 0, 0])
        """
        n = q.shape[-1]
        # epsilon may be 0: nothing is drawn then, whatever the quotient
        drawn = (noise * (n / explore_var.clamp(min=1e-9))).long().clamp_(max=n - 1)
        return torch.where(noise < explore_var, drawn, q.argmax(-1))


class MaskedEpsilonGreedy(EpsilonGreedy):
    """EpsilonGreedy among the actions that are not masked (see `masks`)."""

    @staticmethod
    def choose(q: Tensor, explore_var: Tensor, noise: Tensor) -> Tensor:
        """As EpsilonGreedy; of the m actions allowed the one with number `floor(m * u / epsilon)`.

        Args:
            q: [B, n], masked actions filled
            explore_var: epsilon, 0-d
            noise: u, [B] uniform in [0, 1)

        Returns:
            [B] int64

        >>> q = torch.tensor([[1.0, -1e9, 0.0]]).expand(4, 3)
        >>> MaskedEpsilonGreedy.choose(q, torch.tensor(0.5), torch.tensor([0.1, 0.3, 0.5, 0.9]))
        tensor([0, 2, 0, 0])
        """
        drawn = pick_allowed(is_allowed(q), noise / explore_var.clamp(min=1e-9))
        return torch.where(noise < explore_var, drawn, q.argmax(-1))


class Boltzmann:
    """Actions with probability `softmax(Q / tau)`: better ones are more likely; at tau near 0 only the best."""

    @staticmethod
    def noise(shape: tuple[int, ...], action: ActionSpace, generator: Generator) -> Tensor:
        """Standard Gumbel noise [*shape, n]."""
        return Categorical.noise(shape, action, generator)

    @staticmethod
    def choose(q: Tensor, explore_var: Tensor, noise: Tensor) -> Tensor:
        """`argmax(Q / tau + Gumbel)`: the Gumbel-max trick.

        Args:
            q: [B, n]
            explore_var: tau, the temperature, 0-d; above 0
            noise: [B, n]

        Returns:
            [B] int64

        >>> q, noise = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.5]])
        >>> Boltzmann.choose(q, torch.tensor(1.0), noise), Boltzmann.choose(q, torch.tensor(0.5), noise)
        (tensor([1]), tensor([0]))
        """
        return (q / explore_var + noise).argmax(-1)


EXPLORATION: dict[str, type[Exploration]] = {"epsilon_greedy": EpsilonGreedy, "boltzmann": Boltzmann}
"""By the names of `action_policy`."""


def smoothed_action(action: Tensor, noise: Tensor, std: float, clip: float) -> Tensor:
    """`clip(a + clip(std * noise, -c, c), -1, 1)`: the next action of a target. Fujimoto et al. 2018, (14).

    arXiv:1802.09477. What an action is worth should be near what its neighbours are worth.

    Args:
        action: [B, dim] in [-1, 1]
        noise: [B, dim], standard normal
        std: of the noise
        clip: c, its greatest size

    >>> smoothed_action(torch.tensor([0.0, 0.0, 0.9]), torch.tensor([1.0, -9.0, 1.0]), 0.2, 0.5)
    tensor([ 0.2000, -0.5000,  1.0000])
    """
    return (action + (std * noise).clamp(-clip, clip)).clamp(-1, 1)


def random_action(action: ActionSpace, n: int, generator: Generator, allowed: Tensor | None = None) -> Tensor:
    """Actions [n, *A], uniform over the action space; of continuous ones each dimension in [-1, 1).

    Args:
        action: action space
        n: how many
        generator: on the CPU
        allowed: [n, sum of choices] bool, of Discrete actions or, place after place, of MultiDiscrete ones; None: all

    >>> allowed = torch.tensor([[False, True, False, False, True]])
    >>> random_action(MultiDiscrete((2, 3)), 1, Generator(), allowed)
    tensor([[1, 2]])
    """
    if isinstance(action, Mixed):
        return torch.cat([random_action(part, n, generator).view(n, -1).float() for part in action.parts], -1)
    if isinstance(action, Continuous):
        return torch.rand((n, action.dim), generator=generator) * 2 - 1
    if isinstance(action, Discrete):
        nvec: tuple[int, ...] = (action.n,)
    else:
        nvec = action.nvec if isinstance(action, MultiDiscrete) else (2,) * action.n
    if allowed is None:
        places = [torch.randint(k, (n,), generator=generator) for k in nvec]
    else:
        parts = torch.split(allowed, list(nvec), -1)
        places = [pick_allowed(part, torch.rand(n, generator=generator).to(part.device)) for part in parts]
    return places[0] if isinstance(action, Discrete) else torch.stack(places, -1)
