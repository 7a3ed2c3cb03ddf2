"""Log probabilities and values computed while acting, cached for the update.

A rollout is mostly evaluated afterwards, in one batched pass: with a small net that costs next to nothing, while every
additional operation of acting does. With a large shared net it is the other way round: a second pass over all images is
expensive, and the value costs only one more small head while acting.
"""

import torch
from torch import Tensor

from slm_lab.lib.stateful import State
from slm_lab.types import Act


class Notes:
    """Log probabilities and values of the current rollout."""

    def __init__(self, horizon: int, num_envs: int, device: torch.device) -> None:
        self.log_prob = torch.zeros((horizon, num_envs), device=device)
        self.value = torch.zeros((horizon, num_envs), device=device)
        self._t = 0

    def add(self, act: Act | None) -> None:
        """Cache those of the step that was stored; an Act without them, or None, leaves the rollout incomplete."""
        if act is None or act.log_prob is None or act.value is None or self._t == len(self.value):
            return
        self.log_prob[self._t] = act.log_prob
        self.value[self._t] = act.value
        self._t += 1

    def take(self) -> tuple[Tensor, Tensor] | None:
        """log_prob, value [T, N] of a complete rollout, else None; the next rollout begins."""
        complete, self._t = self._t == len(self.value), 0
        return (self.log_prob, self.value) if complete else None

    def clear(self) -> None:
        """Drop the cache, as other parameters act from now on: the current rollout stays incomplete."""
        self._t = 0

    def state_dict(self) -> State:
        """What is cached so far."""
        return {"log_prob": self.log_prob[: self._t].clone(), "value": self.value[: self._t].clone()}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._t = len(state["value"])
        self.log_prob[: self._t] = state["log_prob"]
        self.value[: self._t] = state["value"]
