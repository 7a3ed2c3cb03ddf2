"""The search space: paths into lists, paths that hit nothing, keys without a distribution."""

from typing import Any

from slm_lab.spec.past.draft import Data, Draft, words
from slm_lab.spec.past.keys import is_dead

LEGACY = words(
    "agent.algorithm.clip_eps agent.algorithm.entropy_coef agent.net.clip_grad agent.net.lr "
    "agent.net.lr_anneal_timestep agent.net.lr_decay_frequency agent.net.lr_scheduler_spec.rnn_hidden_size "
    "agent.net.lr_scheduler_spec.seq_len agent.net.training_iter"
)
"""Paths that old files search and no version ever had."""
_LEGACY_SECTIONS = (("agent", "agent"), ("env", "unity"))


def modernize(draft: Draft) -> None:
    """Paths without list indices; what could not be searched is left out."""
    space = draft.spec.get("search")
    if isinstance(space, dict):
        draft.spec["search"] = kept = _walk(draft, space, ())
        if not kept and space:
            del draft.spec["search"]


def _walk(draft: Draft, space: Data, path: tuple[str, ...]) -> Data:
    kept: Data = {}
    for key, value in space.items():
        name, _, distribution = key.partition("__")
        here = _without_indices((*path, *name.split(".")))
        new_key = ".".join(_without_indices((*path, *name.split(".")))[len(_without_indices(path)) :])
        if distribution:
            if _hits_nothing(draft.spec, here):
                draft.dropped.append(_shown(here))
                continue
            if new_key != name:
                draft.note("search", "paths without the index of a list: agent.0.x is agent.x")
            kept[f"{new_key}__{distribution}"] = value
            continue
        inner = _only(value)
        if inner is not value:
            draft.note("search", "an object in place of a list of one")
        below = _walk(draft, inner, here) if isinstance(inner, dict) else {}
        if below:
            kept[new_key] = below
        elif not isinstance(inner, dict) or not inner:
            draft.note(_shown(here), "left out: it names no distribution, such as __uniform")
    return kept


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) else value


def _without_indices(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path without the index of a list of one.

    >>> _without_indices(("agent", "0", "net"))
    ('agent', 'net')
    """
    return (*path[:1], *path[2:]) if path[1:2] == ("0",) and path[0] in ("agent", "env") else path


def _hits_nothing(spec: Data, path: tuple[str, ...]) -> bool:
    if ".".join(path) in LEGACY or path[:2] in _LEGACY_SECTIONS:
        return True
    return len(path) > 2 and path[0] == "agent" and is_dead(spec, path[1], path[2])


def _shown(path: tuple[str, ...]) -> str:
    return ".".join(("search", *path))
