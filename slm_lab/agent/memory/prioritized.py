"""Prioritized replay: what was predicted badly is seen again sooner. Schaul et al. 2016, arXiv:1511.05952."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.agent.memory.obs_store import Index, PlainObs, StackedObs
from slm_lab.agent.memory.replay import Replay, ReplaySpec
from slm_lab.agent.memory.sum_tree import NO_PRIORITIES, Priorities
from slm_lab.functional.schedules import at_frame
from slm_lab.lib.registry import register
from slm_lab.lib.stateful import State
from slm_lab.spec.model import NonNegative, Unit, UnitSchedule
from slm_lab.types import Played, Step


class PrioritizedReplaySpec(ReplaySpec):
    """Keys of PrioritizedReplay."""

    alpha: Unit
    """How much priorities count: 0 draws uniformly, 1 in proportion to the error."""
    epsilon: NonNegative
    """Added to each error, so that no transition is forgotten."""
    beta_spec: UnitSchedule | None = None
    """Exponent of the importance weights, usually rising to 1. None: all weights are 1, and learning is biased."""


@register("memory")
class PrioritizedReplay(Replay):
    """Replay that draws transition i with probability `P(i) = p_i / sum p`, `p_i = (|error_i| + epsilon)^alpha`.

    A new transition has the highest priority given so far, so that it is seen soon. The mass is cut into B equal
    strata, and one is drawn from each. With `beta_spec` the weights are `(size * P(i))^-beta`, divided by the batch's
    largest. Bytes per transition: Replay's and 8.6.
    """

    Spec = PrioritizedReplaySpec
    prioritized: ClassVar[bool] = True

    @property
    def beta(self) -> float:
        """Current exponent of the importance weights."""
        spec: UnitSchedule | None = self.spec.beta_spec
        return 0.0 if spec is None else at_frame(*spec.parts, self.seen)

    def add(self, obs: NDArray[Any], action: NDArray[Any], step: Step) -> None:
        """Store one vector step, with the highest priority."""
        super().add(obs, action, step)
        self._enter(1)

    def extend(self, played: Played) -> None:
        """Store several vector steps, with the highest priority."""
        super().extend(played)
        self._enter(len(played.reward))

    def _enter(self, count: int) -> None:
        """Give the newest rows the highest priority."""
        rows = self._head - np.arange(count, 0, -1)
        # each has driven another out of the memory, or one that never was in it, whose priorities are 0 already
        both = np.concatenate([rows - self._steps, rows]) % self._rows
        index = (both[:, None] * self._n + np.arange(self._n)).ravel()
        self._tree.update(index, np.repeat([0.0, self._tree.highest], count * self._n))

    def update_priority(self, index: Tensor, error: Tensor) -> None:
        """Set priorities from errors.

        Args:
            index: [B] int64, as `sample` gave it
            error: [B], its sign does not matter
        """
        self._tree.tell(index, error)

    def state_dict(self) -> State:
        """Everything stored, with priorities."""
        return super().state_dict() | (NO_PRIORITIES if self._store is None else self._tree.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        if self._store is not None:
            self._tree.load_state_dict(state)

    def _allocate(self, obs_dtype: str, *, stacked: bool) -> PlainObs | StackedObs:
        store = super()._allocate(obs_dtype, stacked=stacked)
        self._tree = Priorities(self._total, self.spec.alpha, self.spec.epsilon)
        return store

    def _draw(self) -> Index:
        """Places of a batch, one from each stratum, [B]."""
        return self._tree.draw(self._batch, self._generator)

    def _weight(self, index: Index) -> Tensor:
        """Importance weights of a batch, [B] f32."""
        beta = self.beta
        if beta == 0:
            return super()._weight(index)
        share = self._tree.leaves.take(index) * (len(self) / self._tree.total)
        weight = np.power(share, -beta)
        return torch.from_numpy((weight / weight.max()).astype(np.float32))
