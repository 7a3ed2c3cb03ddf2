"""Which runs are seeds of one method, and what their methods are called: by what their specs differ in."""

import json
from collections.abc import Sequence
from typing import Any

from slm_lab.experiment.records.history import History
from slm_lab.lib.errors import LabError
from slm_lab.spec.variables import short_path

_BESIDE = ("name", "meta.", "search.")
"""Keys, or beginnings of them, that make no other method: seeds, logging, the search."""


def spec_key(history: History) -> dict[str, Any]:
    """Key path -> value of what makes a run a method of its own: not seeds, logging and the like."""
    leaves = flatten(history.spec)
    return {k: v for k, v in leaves.items() if k == "meta.distributed" or not k.startswith(_BESIDE)}


def flatten(data: Any, path: str = "") -> dict[str, Any]:
    """Leaves of a nested dict by key path; lists are leaves.

    >>> flatten({"env": {"name": "A"}, "agent": {"net": {"hid_layers": [64]}}})
    {'env.name': 'A', 'agent.net.hid_layers': [64]}
    """
    if not isinstance(data, dict) or not data:
        return {path: data} if path else {}
    leaves: dict[str, Any] = {}
    for key, value in data.items():
        leaves |= flatten(value, f"{path}.{key}" if path else str(key))
    return leaves


def differences(specs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Keys whose value is not the same everywhere -> the values, None where a spec lacks it.

    >>> differences([{"a": 1, "b": 2}, {"a": 1, "c": 3}])
    {'b': [2, None], 'c': [None, 3]}
    """
    keys = dict.fromkeys(key for spec in specs for key in spec)
    rows = {key: [spec.get(key) for spec in specs] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def group(histories: Sequence[History], labels: Sequence[str] | None) -> dict[tuple[str, str], list[History]]:
    """Runs by env and method, envs together; labels: one a run, None: by their specs."""
    if labels is not None and len(labels) != len(histories):
        raise LabError(f"{len(histories)} runs, but {len(labels)} labels (one each, in their order)")
    if labels is None:
        labels = _labels(histories)
    groups: dict[tuple[str, str], list[History]] = {}
    for history, label in zip(histories, labels, strict=True):
        mine = groups.setdefault((history.env, label), [])
        # a run counts once, however often it was named
        if history.layout.root not in [known.layout.root for known in mine]:
            mine.append(history)
    envs = list(dict.fromkeys(env for env, _ in groups))
    return dict(sorted(groups.items(), key=lambda item: envs.index(item[0][0])))


def _labels(histories: Sequence[History]) -> list[str]:
    """The shortest kind of label that distinguishes the specs run in one env."""
    keys = [json.dumps(spec_key(h), sort_keys=True, default=str) for h in histories]
    several = len({h.env for h in histories}) > 1
    names = [h.layout.name for h in histories]
    agents = [h.algorithm for h in histories]
    for labels in (agents, names) if several else (names, agents):
        if _tell_apart(histories, keys, labels):
            return labels
    labels = []
    for i, history in enumerate(histories):
        rivals = [spec_key(h) for h in histories if h.env == history.env and h.layout.name == names[i]]
        own = {k: spec_key(history).get(k) for k in differences(rivals)}
        told = ", ".join(f"{short_path(k)}={_short(v)}" for k, v in list(own.items())[:3])
        labels.append(f"{names[i]} ({told})" if told else names[i])
    return labels if _tell_apart(histories, keys, labels) else [h.layout.root.name for h in histories]


def _tell_apart(histories: Sequence[History], keys: Sequence[str], labels: Sequence[str]) -> bool:
    specs: dict[tuple[str, str], set[str]] = {}
    for history, key, label in zip(histories, keys, labels, strict=True):
        specs.setdefault((history.env, label), set()).add(key)
    return all(len(found) == 1 for found in specs.values())


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else text[:23] + "\N{HORIZONTAL ELLIPSIS}"
