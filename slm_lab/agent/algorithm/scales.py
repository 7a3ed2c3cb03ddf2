"""Running scales of value targets and of advantages."""

import torch
from torch import Tensor

from slm_lab.functional.normalize import merge_moments, quantile_range
from slm_lab.lib.stateful import State

EPSILON = 1e-8
RETAINED = 0.99
"""Weight of the old range in the running average, per gradient step."""


class TargetScale:
    """The standard deviation of all value targets so far, at least 1: value errors are measured in it.

    It changes between updates, never within one.
    """

    def __init__(self, device: torch.device) -> None:
        self._moments = torch.zeros(3, device=device)
        self.tensor = torch.ones((), device=device)
        """0-d; compiled code sees an argument, not a constant."""

    def update(self, target: Tensor) -> None:
        """Update the moments with targets of any shape."""
        self._moments = merge_moments(self._moments, target)
        self.tensor.copy_((self._moments[2] + EPSILON).sqrt().clamp(min=1.0))

    def state_dict(self) -> State:
        """Moments and scale."""
        return {"moments": self._moments.clone(), "scale": self.tensor.clone()}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._moments = state["moments"].to(self.tensor.device)
        self.tensor.copy_(state["scale"])


class AdvantageScale:
    """The range between the 5 and the 95 % quantile of advantages, averaged over time; at least 1.

    Hafner et al. 2023, arXiv:2301.04104, (12): large advantages are scaled down, small ones are not blown up to noise.
    """

    def __init__(self, device: torch.device) -> None:
        self._range = torch.zeros((), device=device)
        self._started = False

    def scale(self, advantage: Tensor, steps: int) -> Tensor:
        """Update the running range with these advantages, then divide them by it.

        Args:
            advantage: [B], of a rollout
            steps: gradient steps that will be taken on them: the average moves that many times
        """
        kept = RETAINED**steps if self._started else 0.0
        self._range = self._range * kept + quantile_range(advantage) * (1 - kept)
        self._started = True
        return advantage / self._range.clamp(min=1.0)

    def state_dict(self) -> State:
        """The range, and whether there is one."""
        return {"range": self._range.clone(), "started": self._started}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._range = state["range"].to(self._range.device)
        self._started = bool(state["started"])
