"""What a uniformly random policy reaches: the zero of strength. A table of the package, never measured live."""

import json
from functools import cache
from importlib import resources
from typing import Any

from loguru import logger


def baseline(env_name: str) -> float:
    """Mean return of a uniformly random policy over 100 episodes; 0, with a note, where the table lacks the env."""
    entry = baselines().get(env_name)
    if entry is None:
        _note_unknown(env_name)
        return 0.0
    return float(entry["mean"])


@cache
def baselines() -> dict[str, dict[str, Any]]:
    """The table: env id -> {"mean", "std"} of the return; std is None where it is not known."""
    return read_shipped("baselines.json")


def read_shipped(name: str) -> dict[str, Any]:
    """A JSON file that lies beside this module."""
    return json.loads((resources.files(__package__) / name).read_text(encoding="utf-8"))


@cache
def _note_unknown(env_name: str) -> None:
    # cached: said once per process and env
    logger.info("no random baseline is known for {}: strength is measured from 0", env_name)
