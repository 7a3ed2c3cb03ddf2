"""Random: every action equally likely, nothing learned. What any other algorithm must beat."""

from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.algorithm.base import Algorithm, Setting
from slm_lab.lib.registry import register
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.spec.model import AlgorithmSpec, Count
from slm_lab.types import Act, Continuous, Discrete, MultiDiscrete, Stats


class RandomSpec(AlgorithmSpec):
    """Keys of Random: any memory and any net will do, it uses none."""

    training_frequency: Count = 1


@register("algorithm")
class Random(Algorithm):
    """Draws from the action space, also where others would be greedy: from a stream of its own there."""

    Spec = RandomSpec
    on_policy = None
    recurrent = True
    roles = ()

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._greedy = torch.Generator().manual_seed(derive(setting.generator.initial_seed(), 1))

    @property
    def opt_step(self) -> int:
        """0"""
        return 0

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N, *A], uniform; of continuous ones each dimension in [-1, 1)."""
        n, g, space = len(obs), self.setting.generator if explore else self._greedy, self.info.action
        if isinstance(space, Discrete):
            return Act(torch.randint(space.n, (n,), generator=g))
        if isinstance(space, Continuous):
            return Act(torch.rand((n, space.dim), generator=g) * 2 - 1)
        nvec = space.nvec if isinstance(space, MultiDiscrete) else (2,) * space.n
        return Act(torch.stack([torch.randint(k, (n,), generator=g) for k in nvec], -1))

    def update(self, batch: Any, frame: int) -> Stats:
        """Learn nothing. A replay memory is left alone, an on-policy one has been emptied."""
        return {}

    def state_dict(self) -> State:
        """Where chance stands."""
        return super().state_dict() | {"greedy": self._greedy.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Become what `state_dict` said."""
        super().load_state_dict(state)
        self._greedy.set_state(state["greedy"])
