"""Specs of older versions: recognized by their form, and converted by steps, each of which changes a draft.

What an old spec meant is kept where that was sound, also where a default has changed since; what was a defect is
corrected. Each change has a note for the user. What a class of an old version had and no class reads is left out; a key
that no version ever had stays, for the validation to find.

Only this module and `spec.past` know of older versions.
"""

import copy
import itertools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from slm_lab.spec.past import common, keys, v4, v5
from slm_lab.spec.past.draft import Data, Draft, Step
from slm_lab.spec.variables import fill, variables

CURRENT = 6
"""Version of the present format, in `meta.version`."""
Version = Literal["v4", "v5", "current"]
_BLOCK = frozenset({"distributed", "max_session", "max_trial"})
"""Keys of `meta` that every spec of version 5 has."""
_COMMON: tuple[Step, ...] = (
    common.rename_env,
    common.correct_schedules,
    common.correct_policy,
    common.correct_agent,
    common.recur,
    common.distribute,
    common.complete_net,
    keys.modernize_search,
    common.keep_number_of_updates,
    v5.join_nets,
    keys.drop_dead,
)
STEPS: dict[Version, tuple[Step, ...]] = {
    "v4": (common.refuse, v4.unwrap, common.refuse, v4.env, v4.agent, *_COMMON),
    "v5": (common.refuse, v5.env, v5.agent, v5.net, *_COMMON),
    "current": (),
}
"""What each version goes through, in this order."""


@dataclass(frozen=True)
class Migrated:
    """A spec in the present format."""

    spec: Data
    notes: list[str] = field(default_factory=list)
    """What was changed in it, or is understood in another way; none: the spec is as it was."""


def version_of(raw: Data) -> Version:
    """Which version of SLM-Lab a spec was written for.

    Version 4 has agents and envs in lists, or `spec_params`. Version 5 (and what came before it, in November 2025) is
    written as the present format is: a spec is one of it that has `distributed`, `max_session` and `max_trial` in its
    `meta`, as all of them have, and no `version` there.

    >>> version_of({"agent": [{}], "env": [{}], "body": {}, "meta": {}})
    'v4'
    >>> version_of({"meta": {"distributed": False, "max_session": 4, "max_trial": 1}})
    'v5'
    >>> version_of({"meta": {"version": 6, "distributed": False, "max_session": 4, "max_trial": 1}})
    'current'
    """
    meta = raw.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    if "version" in meta:
        return "current"
    if isinstance(raw.get("agent"), list) or isinstance(raw.get("env"), list) or "spec_params" in raw:
        return "v4"
    return "v5" if meta.keys() >= _BLOCK else "current"


def migrate(raw: Data) -> Migrated:
    """Take a spec to the present format. One that is there already, or needs no change, comes back as it is.

    Args:
        raw: the spec as in its file, variables filled in as far as they have a value

    Raises:
        Gone: it asks for something that no longer exists.
    """
    draft = Draft(copy.deepcopy(raw))
    for step in STEPS[version_of(raw)]:
        draft.take(step)
    if not draft.notes:
        return Migrated(raw)
    # marked, so that nothing in it is taken for an old one again
    if isinstance(draft.spec.get("meta"), dict):
        draft.spec["meta"]["version"] = CURRENT
    return Migrated(draft.spec, list(dict.fromkeys(draft.notes)))


def sweep(raw: Data, name: str, given: Collection[str] = ()) -> dict[str, Data]:
    """The specs that a spec of version 4 with `spec_params` stands for: one per combination of the values.

    Their names are those of version 4, the values after the spec's own: `ppo_atari_PongNoFrameskip-v4`. A spec without
    `spec_params` (of that form) stands for itself.

    Args:
        raw: the spec as in its file
        name: its name there
        given: variables whose values come from elsewhere

    >>> sweep({"env": "${env}", "spec_params": {"env": ["A", "B"]}}, "x")
    {'x_A': {'env': 'A'}, 'x_B': {'env': 'B'}}
    """
    params = raw.get("spec_params")
    lists = params if isinstance(params, dict) else {}
    if not lists or not all(_texts(values) for values in lists.values()):
        return {name: raw}
    rest = {key: value for key, value in raw.items() if key != "spec_params"}
    used = (variables(rest).keys() & lists.keys()) - set(given)
    axes = {key: values for key, values in lists.items() if key in used}
    return {
        "_".join([name, *values]): fill(rest, dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    }


def _texts(values: object) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(isinstance(value, str) for value in values)
