"""What scores are normalized by, so that those of several envs can be averaged."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from slm_lab.experiment.records.baselines import baselines, read_shipped


class Reference(NamedTuple):
    """What scores of an env are normalized by."""

    low: float
    high: float
    source: str
    """Of `high`, in words."""


def reference(env: str, means: Sequence[float]) -> Reference | None:
    """What scores of an env are normalized by; None without a baseline, or where nothing known is above it.

    >>> reference("CartPole-v1", [100.0])
    Reference(low=22.97, high=475.0, source="gymnasium's reward threshold")
    >>> reference("Pendulum-v1", [-800.0, -150.0])
    Reference(low=-1197.15, high=-150.0, source='the best method compared here')
    """
    if env not in baselines():
        return None
    low = float(baselines()[env]["mean"])
    for source, scores in _references().items():
        if scores.get(env, -np.inf) > low:
            return Reference(low, float(scores[env]), source)
    best = max((m for m in means if np.isfinite(m)), default=low)
    return Reference(low, best, "the best method compared here") if best > low else None


def no_reference(env: str) -> str:
    """Why `reference` gives None, in words."""
    return "no method is better than random" if env in baselines() else "no random baseline is known"


@cache
def _references() -> dict[str, dict[str, float]]:
    return read_shipped("references.json")
