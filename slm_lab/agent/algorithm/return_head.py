"""How a Q net represents the return of each action: by its mean or its distribution. The DQN family learns either.

`raw` is the output of the net's head, [B, n * K]: K numbers for each of n actions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from slm_lab.functional.distributional import (
    categorical_loss,
    categorical_mean,
    categorical_projection,
    make_support,
    quantile_fractions,
    quantile_huber_loss,
)
from slm_lab.functional.masks import LOWEST, is_allowed
from slm_lab.functional.targets import double_value, max_value, taken_value, td_target

SMALLEST = 1e-30
"""Least probability whose logarithm is taken: far above the least float32, which a compiler may take for 0."""


class ReturnHead:
    """How a head's output represents the return of n actions: in this base, as a distribution by K numbers."""

    each: int
    """K, numbers for each action."""

    def q(self, raw: Tensor) -> Tensor:
        """[B, n * K] -> mean returns [B, n]"""
        return self.mean(raw.unflatten(-1, (-1, self.each)))

    def mean(self, one: Tensor) -> Tensor:
        """[..., K] -> [...]"""
        raise NotImplementedError

    def best(self, judge: Tensor, chooser: Tensor | None = None) -> Tensor:
        """The return, by the judge's estimate, of the action that the chooser values most.

        Args:
            judge: [B, n * K]
            chooser: [B, n * K]; None: the judge

        Returns:
            [B] of a MeanHead, else [B, K]
        """
        return self._taken(judge, self.q(judge if chooser is None else chooser).argmax(-1))

    def _taken(self, raw: Tensor, action: Tensor) -> Tensor:
        """[B, n * K], [B] -> [B, K]"""
        index = action.view(-1, 1, 1).expand(-1, 1, self.each)
        return raw.unflatten(-1, (-1, self.each)).gather(1, index).squeeze(1)

    def loss(
        self, raw: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, best: Tensor, gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the return of the actions taken with its target.

        Args:
            raw: [B, n * K], carries the gradient
            action: [B]
            reward: [B]
            terminated: [B], 1 where nothing may be bootstrapped
            best: the return from the successor on, as `best` gave it; a constant
            gamma: discount of it

        Returns:
            the loss of each sample, Q(s, a), and its error; [B] each
        """
        raise NotImplementedError


class MeanHead(ReturnHead):
    """The mean alone, as in DQN.

    Args:
        sample_loss: Q(s, a) [B], target [B] -> [B]
    """

    each = 1

    def __init__(self, sample_loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._sample_loss = sample_loss

    def q(self, raw: Tensor) -> Tensor:
        """[B, n], as it is"""
        return raw

    def best(self, judge: Tensor, chooser: Tensor | None = None) -> Tensor:
        """[B]"""
        return max_value(judge) if chooser is None else double_value(chooser, judge)

    def loss(
        self, raw: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, best: Tensor, gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`loss(Q(s, a), r + gamma * V(s'))`; the error is the TD error."""
        q = taken_value(raw, action)
        target = td_target(reward, terminated, best, gamma)
        return self._sample_loss(q, target), q, target - q


class CategoricalHead(ReturnHead):
    """A probability for each of K fixed returns (C51). Bellemare et al. 2017, arXiv:1707.06887.

    Args:
        v_min: lowest return
        v_max: highest one
        atoms: K
        masked: whether logits of actions may be masked
    """

    def __init__(self, v_min: float, v_max: float, atoms: int, *, masked: bool = False) -> None:
        self.each = atoms
        self._bounds = (v_min, v_max)
        self._masked = masked

    def support(self, device: torch.device) -> Tensor:
        """[K], made where it is used: what is compiled reads no tensor but its arguments"""
        return make_support(*self._bounds, self.each, device)

    def mean(self, one: Tensor) -> Tensor:
        """Logits [..., K] -> [...]; LOWEST for an action that is masked"""
        mean = categorical_mean(one, self.support(one.device))
        return torch.where(is_allowed(one[..., 0]), mean, LOWEST) if self._masked else mean

    def loss(
        self, raw: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, best: Tensor, gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The cross entropy with the projected target; the error is the Kullback-Leibler divergence, as in Rainbow."""
        logits = self._taken(raw, action)
        support = self.support(raw.device)
        value = td_target(reward.unsqueeze(-1), terminated.unsqueeze(-1), support, gamma)
        target = categorical_projection(value, best.softmax(-1), support)
        loss = categorical_loss(logits, target)
        entropy = -(target * target.clamp(min=SMALLEST).log()).sum(-1)
        return loss, self.mean(logits), loss - entropy


class QuantileHead(ReturnHead):
    """A return for each of K fixed quantiles (QR-DQN). Dabney et al. 2018, arXiv:1710.10044.

    Args:
        quantiles: K
        kappa: of the Huber loss
    """

    def __init__(self, quantiles: int, kappa: float) -> None:
        self.each, self.kappa = quantiles, kappa

    def mean(self, one: Tensor) -> Tensor:
        """[..., K] -> [...]"""
        return one.mean(-1)

    def loss(
        self, raw: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, best: Tensor, gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Quantile regression onto the target's quantiles; the error is the difference of the means."""
        quantile = self._taken(raw, action)
        target = td_target(reward.unsqueeze(-1), terminated.unsqueeze(-1), best, gamma)
        q = self.mean(quantile)
        fraction = quantile_fractions(self.each, raw.device)
        return quantile_huber_loss(quantile, target, fraction, self.kappa), q, target.mean(-1) - q
