"""What a uniformly random policy reaches: the zero of strength, and what scores are normalized by.

Tables of the package, never measured live.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from slm_lab.spec.past.envs import modern


def baseline(env_name: str) -> float:
    """Mean return of a uniformly random policy over 100 episodes; 0, with a note, where the table lacks the env."""
    entry = baselines().get(env_name)
    if entry is None:
        _note_unknown(env_name)
        return 0.0
    return float(entry["mean"])


def current_id(env_name: str) -> str:
    """What an env is called today; of one that is named without its version, the newest that the table has.

    >>> current_id("CartPole-v0"), current_id("Pendulum"), current_id("Nobody")
    ('CartPole-v1', 'Pendulum-v1', 'Nobody')
    """
    name = modern(env_name)[0]
    versions = {id_: int(found[1]) for id_ in baselines() if (found := re.fullmatch(rf"{re.escape(name)}-v(\d+)", id_))}
    return max(versions, key=versions.__getitem__, default=name)


def baselines() -> dict[str, dict[str, Any]]:
    """The table: env id -> {"mean", "std"} of the return; std is None where it is not known."""
    return _shipped("baselines.json")


class Reference(NamedTuple):
    """What scores of an env are normalized by, so that those of several envs can be averaged."""

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
    for source, scores in _shipped("references.json").items():
        if scores.get(env, -np.inf) > low:
            return Reference(low, float(scores[env]), source)
    best = max((m for m in means if np.isfinite(m)), default=low)
    return Reference(low, best, "the best method compared here") if best > low else None


def no_reference(env: str) -> str:
    """Why `reference` gives None, in words."""
    return "no method is better than random" if env in baselines() else "no random baseline is known"


@cache
def _shipped(name: str) -> dict[str, Any]:
    """A JSON file beside this module."""
    return json.loads((resources.files(__package__) / name).read_text(encoding="utf-8"))


@cache
def _note_unknown(env_name: str) -> None:
    # cached: said once per process and env
    logger.info("no random baseline is known for {}: strength is measured from 0", env_name)
