"""Repairs a faulty spec, so that faults which only a whole spec shows are reported in the same round."""

import copy
from collections.abc import Iterable
from typing import Any

import pydash
from pydantic import ValidationError

from slm_lab.spec.explain import explain
from slm_lab.spec.model import Spec

ROUNDS = 30
"""Attempts, each of which mends the faults that the one before it left."""
_SCALARS: tuple[Any, ...] = (1, None, 0.5, "x", [1], {}, {"name": "no_decay", "start_val": 0.0})
"""What is tried in place of a value; None: to leave the key out."""
_BLOCKS: dict[str, tuple[Any, ...]] = {
    "agent.algorithm": ({"name": "Random"},),
    "agent.memory": ({"name": "OnPolicyBatchReplay"}, {"name": "Replay", "batch_size": 1, "max_size": 1}),
    "agent.net": ({"type": "MLPNet", "hid_layers": [1]},),
    "env": ({"name": "CartPole-v1", "max_frame": 1},),
    "meta": ({},),
}
NAMES = {"agent.algorithm.name": "agent.algorithm", "agent.memory.name": "agent.memory", "agent.net.type": "agent.net"}
"""Keys that name a class, each with the block that it says the keys of."""


def repaired(data: dict[str, Any], paths: Iterable[str]) -> tuple[Spec, set[str]] | None:
    """A spec that is valid, with something harmless in place of what is wrong.

    Returns:
        The spec, and all key paths that were changed; None where it can't be made whole.
    """
    data, changed, left = copy.deepcopy(data), dict[str, int](), {path.partition("[")[0] for path in paths}
    for _ in range(ROUNDS):
        for path in left:
            attempt = changed.get(path, 0)
            if not path or not _mend(data, path, attempt):
                return None
            changed[path] = attempt + 1
        try:
            return Spec.model_validate(data), set(changed)
        except ValidationError as e:
            left = {fault.path.partition("[")[0] for fault in explain(e)}
    return None


def _mend(data: dict[str, Any], path: str, attempt: int) -> bool:
    path = NAMES.get(path, path)
    parent, _, key = path.rpartition(".")
    node = pydash.get(data, parent) if parent else data
    if not isinstance(node, dict):
        return bool(parent) and _mend(data, parent, attempt)
    values = _BLOCKS.get(path, _SCALARS)
    if path == "env.name":
        values = ("CartPole-v1",)
    if attempt >= len(values):
        return False
    if values[attempt] is None:
        node.pop(key, None)  # it may have a default
    else:
        node[key] = copy.deepcopy(values[attempt])
    return True
