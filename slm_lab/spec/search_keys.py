"""The keys of `meta` that say how a search is run."""

from typing import Annotated, Literal

from pydantic import Field

from slm_lab.spec.basics import NUMBER, Count, NonNegative, Positive, SpecModel


class SearchResourcesSpec(SpecModel):
    """What each trial of a search is given."""

    cpu: Count | None = None
    """Cores. None: as many as sessions of the trial can use, of what one machine has."""
    gpu: NonNegative | None = None
    """GPUs, or a share of one that several trials use together. None: one where the net is to run on a GPU."""


class SearchSchedulerSpec(SpecModel):
    """Asynchronous successive halving (ASHA): poor trials of a search are stopped early.

    At grace_period, and each time the frames have grown by reduction_factor, a trial continues only if it is among
    the best 1 / reduction_factor of those that came this far before it.
    """

    grace_period: Positive = 1
    """Frames that every trial gets."""
    reduction_factor: Annotated[float, Field(gt=1, allow_inf_nan=False), NUMBER] = 4
    brackets: Count = 1
    """Trials are spread over this many groups, each of which begins to stop one rung later."""
    max_t: Positive | None = None
    """Frames at which a trial ends; None: env.max_frame."""
    time_attr: Literal["frame", "training_iteration", "time_total_s"] = "frame"
    """The clock of grace_period and max_t."""
    metric: Literal["total_reward_ma", "total_reward"] = "total_reward_ma"
    mode: Literal["max", "min"] = "max"
    stop_last_trials: bool = True
    """Judge trials again at each report after a rung, not only when they reach it."""
