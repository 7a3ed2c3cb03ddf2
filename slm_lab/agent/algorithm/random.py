"""Random: every action equally likely, nothing learned. The baseline that any other algorithm must beat."""

from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.algorithm.base import Algorithm, Setting
from slm_lab.agent.net.masked import HeadMask
from slm_lab.functional.exploration import random_action
from slm_lab.lib.registry import register
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.spec.model import AlgorithmSpec, Count
from slm_lab.types import Act, MultiDiscrete, Stats


class RandomSpec(AlgorithmSpec):
    """Keys of Random: any memory and any net will do, it uses none."""

    training_frequency: Count = 1


@register("algorithm")
class Random(Algorithm):
    """Samples from the action space, also with explore=False, then from a separate random stream."""

    Spec = RandomSpec
    on_policy = None
    recurrent = True
    masks = True
    roles = ()

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        action = self.info.action
        self._choices = sum(action.nvec) if isinstance(action, MultiDiscrete) else getattr(action, "n", 0)
        self._mask = HeadMask.of(self.info.obs_shape, {"policy": self._choices})
        self._greedy = torch.Generator().manual_seed(derive(setting.generator.initial_seed(), 1))

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N, *A], uniform; of continuous ones each dimension in [-1, 1)."""
        allowed = None if self._mask is None else self._mask.allowed(obs, self._choices)
        generator = self.setting.generator if explore else self._greedy
        return Act(random_action(self.info.action, len(obs), generator, allowed))

    def update(self, batch: Any) -> Stats:
        """Learn nothing. A replay memory is left alone, an on-policy one has been emptied."""
        return {}

    def state_dict(self) -> State:
        """The state of the random generators."""
        return super().state_dict() | {"greedy": self._greedy.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self._greedy.set_state(state["greedy"])
