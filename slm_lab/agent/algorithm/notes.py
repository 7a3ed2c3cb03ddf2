"""What actor and critic thought while they acted, kept for the update.

A rollout is mostly evaluated afterwards, in one batched pass: with a small net that costs next to nothing, while every
operation more in acting does. With a large net that answers for actor and critic at once it is the other way round: to
go through all images once more takes long, and the value is only one small head more when it acts.
"""

import torch
from torch import Tensor

from slm_lab.lib.stateful import State
from slm_lab.types import Act


class Notes:
    """Log probabilities and values of the rollout under way."""

    def __init__(self, horizon: int, num_envs: int, device: torch.device) -> None:
        self.log_prob = torch.zeros((horizon, num_envs), device=device)
        self.value = torch.zeros((horizon, num_envs), device=device)
        self._t = 0

    def add(self, act: Act | None) -> None:
        """Keep what belongs to the step that has been stored; without an Act, or with a mere action, it has a gap."""
        if act is None or act.log_prob is None or act.value is None or self._t == len(self.value):
            return
        self.log_prob[self._t] = act.log_prob
        self.value[self._t] = act.value
        self._t += 1

    def take(self) -> tuple[Tensor, Tensor] | None:
        """log_prob, value [T, N] of a rollout without a gap, else None. The next rollout is under way then."""
        complete, self._t = self._t == len(self.value), 0
        return (self.log_prob, self.value) if complete else None

    def clear(self) -> None:
        """Other parameters act from now on: the rollout under way gets a gap."""
        self._t = 0

    def state_dict(self) -> State:
        """What is kept so far."""
        return {"log_prob": self.log_prob[: self._t].clone(), "value": self.value[: self._t].clone()}

    def load_state_dict(self, state: State) -> None:
        """Become what `state_dict` said."""
        self._t = len(state["value"])
        self.log_prob[: self._t] = state["log_prob"]
        self.value[: self._t] = state["value"]
