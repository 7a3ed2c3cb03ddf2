"""alpha, the weight of entropy in SAC's objective, and the target entropy."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from slm_lab.agent.net.optim import Optim
from slm_lab.spec.model import Natural, NetSpec, NonNegative, OptimSpec, ScheduleSpec, SpecModel
from slm_lab.types import Continuous, Discrete

RATIO = 0.6
"""Default target entropy of discrete policies, as a share of the greatest, ln n."""


class EntropyAnnealSpec(SpecModel):
    """Target entropy of a discrete policy: `ratio * ln n`."""

    start_ratio: NonNegative = RATIO
    """Ratio at frame 0."""
    end_ratio: NonNegative | None = None
    """Ratio from `frames` on; None: start_ratio."""
    frames: Natural = 0
    """Frames over which it changes, linearly."""


class Temperature(nn.Module):
    """alpha, learned as its logarithm; 1 at first."""

    def __init__(self, lowest: float, highest: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.full((1,), min(max(0.0, lowest), highest)))

    def forward(self) -> Tensor:
        """0-d alpha, a constant"""
        return self.log_alpha.detach().exp().squeeze(0)


def temperature_optim(temperature: Temperature, lr: float) -> Optim:
    """Adam without weight decay, which would draw alpha to 1."""
    return Optim(temperature, NetSpec(type="Temperature", optim_spec=OptimSpec(lr=lr)))


def temperature_schedules(spec: Any, action: Discrete | Continuous) -> dict[str, ScheduleSpec | None]:
    """Schedules of the target entropy and of alpha; None where not in use."""
    if spec.fixed_alpha is not None:
        return {"target_entropy": None, "alpha": _line(spec.fixed_alpha, 0.0, spec.alpha_anneal_frames)}
    if spec.target_entropy != "auto":
        return {"target_entropy": _line(spec.target_entropy), "alpha": None}
    if isinstance(action, Continuous):
        return {"target_entropy": _line(-float(action.dim)), "alpha": None}
    most, start = math.log(action.n), spec.entropy_anneal.start_ratio
    end = start if spec.entropy_anneal.end_ratio is None else spec.entropy_anneal.end_ratio
    return {"target_entropy": _line(start * most, end * most, spec.entropy_anneal.frames), "alpha": None}


def _line(start: float, end: float | None = None, frames: int = 0) -> ScheduleSpec:
    """From start to end over frames; constant where there are none."""
    if not frames or end is None:
        return ScheduleSpec(name="no_decay", start_val=start)
    return ScheduleSpec(name="linear_decay", start_val=start, end_val=end, start_step=0, end_step=frames)
