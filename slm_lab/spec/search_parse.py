"""From the `search` block of a spec to its axes; all that is wrong with it, at once, before anything is run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ValidationError

from slm_lab.lib.errors import SpecError
from slm_lab.lib.suggest import did_you_mean, nearest
from slm_lab.spec.explain import explain, shorten
from slm_lab.spec.model import Spec
from slm_lab.spec.search import (
    ARGUMENTS,
    DISTRIBUTIONS,
    LISTS,
    SEPARATOR,
    Axis,
    apply,
    leaves,
    scheduler_settings,
    search_sessions,
)

_OWN = ("name", "search", "meta.max_trial", "meta.plugins", "meta.search_")
"""What a search itself goes by."""


def parse_search(spec: Spec) -> list[Axis]:
    """The searched keys of a spec, in the order of their paths.

    Raises:
        SpecError: all that is wrong with the block, a line each.
    """
    if not spec.search:
        raise SpecError(
            ['search: missing, such as "search": {"agent.algorithm.lr__loguniform": [1e-4, 1e-2]}'], spec.name
        )
    found = [_axis(path, value) for path, value in leaves(spec.search)]
    axes = sorted((axis for axis in found if isinstance(axis, Axis)), key=lambda axis: axis.path)
    faults = [fault for fault in found if isinstance(fault, str)]
    faults += _overlaps(axes)
    for axis in axes:
        faults += _unknown_path(spec, axis) or _wrong_values(spec, axis)
    faults += _wrong_scheduler(spec, axes)
    if not faults:
        faults = _wrong_together(spec, axes)
    if faults:
        raise SpecError(faults, spec.name)
    return axes


def variants(spec: Spec) -> list[Spec]:
    """Specs of trials by which a search is checked: every option of a list once, all else from the middle."""
    axes = parse_search(spec)
    middle = {axis.path: axis.probes()[-1] for axis in axes}
    lists = [axis for axis in axes if axis.dist in LISTS]
    changes = [{axis.path: option} for axis in lists for option in axis.args[:-1]]
    found = []
    for change in [{}, *changes]:
        with suppress(ValidationError):  # it would not go together with the middle of another axis
            found.append(apply(spec, {**middle, **change}))
    return found


def search_faults(spec: Spec) -> list[str]:
    """What is wrong with the search block of a spec, and with what its `meta` says of the search; none without one."""
    try:
        if spec.search:
            parse_search(spec)
    except SpecError as e:
        return e.faults
    return []


def _axis(path: str, value: Any) -> Axis | str:
    """The axis, or what is wrong with its form."""
    target, separator, dist = path.rpartition(SEPARATOR)
    known = f"(known: {', '.join(DISTRIBUTIONS)})"
    wrong: str | None
    if isinstance(value, dict) and not value and not separator:
        wrong = "holds no searched key"
    elif not separator:
        meant = max((d for d in DISTRIBUTIONS if path.endswith(f"_{d}")), key=len, default=None)
        hint = f", did you mean '{path[: -len(meant) - 1]}{SEPARATOR}{meant}'?" if meant else ""
        wrong = f"must end in {SEPARATOR} and a distribution{hint} {known}"
    elif dist not in DISTRIBUTIONS:
        wrong = f"unknown distribution '{dist}'{did_you_mean(dist, DISTRIBUTIONS)} {known}"
    elif not target or target.endswith("."):
        wrong = f"no key before {SEPARATOR}{dist}"
    elif not isinstance(value, list) or not value:
        wrong = f"must be a list {_wanted(dist)} (got {shorten(value)})"
    else:
        wrong = _wrong_arguments(dist, value)
        if wrong is None:
            return Axis(target, dist, tuple(value))
        wrong = f"{wrong} (got {shorten(value)})"
    return f"search.{path}: {wrong}"


def _wanted(dist: str) -> str:
    return f"[{', '.join(ARGUMENTS[dist])}]" if dist in ARGUMENTS else "of options"


def _wrong_arguments(dist: str, args: list[Any]) -> str | None:
    names = ARGUMENTS.get(dist)
    if names is None:
        return None
    if len(args) != len(names):
        return f"must be {_wanted(dist)}"
    if not all(isinstance(a, int | float) and not isinstance(a, bool) and math.isfinite(a) for a in args):
        return f"must be numbers, {_wanted(dist)}"
    low, high, q = [*args, None][:3]
    rules = {
        f"must be whole numbers, {_wanted(dist)}": not dist.endswith("randint") or all(a == int(a) for a in args),
        "q must be more than 0": q is None or q > 0,
        "sd must be more than 0": names[0] != "mean" or high > 0,
        "low must be less than high": names[0] == "mean" or low < high,
        "low must be more than 0: it has no logarithm": "log" not in dist or low > 0,
        "low and high must be multiples of q": names[0] == "mean"
        or not q
        or (_is_multiple(low, q) and _is_multiple(high, q)),
    }
    return next((rule for rule, holds in rules.items() if not holds), None)


def _is_multiple(x: float, q: float) -> bool:
    return math.isclose(x / q, round(x / q), abs_tol=1e-9)


def _overlaps(axes: Sequence[Axis]) -> Iterator[str]:
    for first, second in pairwise(axes):
        if first.path == second.path:
            yield f"search.{second.key}: '{first.path}' is searched already, as {first.key}"
    paths = {axis.path for axis in axes}
    for axis in axes:
        outer = next((p for p in paths if axis.path.startswith(p + ".")), None)
        if outer:
            yield f"search.{axis.key}: '{outer}', which holds it, is searched as a whole"


def _unknown_path(spec: Spec, axis: Axis) -> list[str]:
    """A fault where the path names nothing: no key of the model, and none that the spec itself wrote."""
    if axis.path.startswith(_OWN):
        return [f"search.{axis.key}: '{axis.path}' can't be searched"]
    node: Any = spec
    for part in axis.path.split("."):
        inside = _inside(node)
        if part not in inside and node is not None:
            near = nearest(axis.path, _paths(spec, ""), cutoff=0.75)
            hint = f", did you mean '{near}'?" if near else ""
            return [f"search.{axis.key}: '{axis.path}' names nothing in the spec{hint}"]
        node = inside.get(part)
    return []


def _inside(node: Any) -> dict[str, Any]:
    """What a node holds: of a model all keys that it could have, of a list its indices."""
    if isinstance(node, BaseModel):
        return {key: getattr(node, key) for key in (*type(node).model_fields, *(node.model_extra or {}))}
    if isinstance(node, list | tuple):
        return {str(i): item for i, item in enumerate(node)}
    return node if isinstance(node, dict) else {}


def _paths(node: Any, prefix: str) -> list[str]:
    """Key paths that the spec has or could have."""
    found = []
    for key, value in _inside(node).items():
        path = f"{prefix}.{key}" if prefix else key
        if not path.startswith("search"):
            found += [path, *_paths(value, path)]
    return found


def _wrong_scheduler(spec: Spec, axes: Sequence[Axis]) -> Iterator[str]:
    """Faults of what `meta` says of the search."""
    settings = scheduler_settings(spec)
    if settings is None:
        return
    where = "meta.search_scheduler"
    sessions = search_sessions(spec)
    if sessions > 1:
        key = "search_max_session" if spec.meta.search_max_session else "max_session"
        yield (
            f"{where}: stops single sessions early, but a trial has {sessions} (meta.{key}): set "
            f"meta.search_max_session to 1, which leaves training as it is, or take {where} out: then every trial "
            "runs to its end"
        )
    for axis in axes:
        if axis.path == "meta.max_session":
            yield f"search.{axis.key}: trials have one session under {where}"
    if settings["time_attr"] == "frame" and settings["grace_period"] > settings["max_t"]:
        yield (
            f"{where}.grace_period: must be at most {settings['max_t']:g}, the frames of a trial "
            f"(got {settings['grace_period']:g})"
        )


def _wrong_values(spec: Spec, axis: Axis) -> list[str]:
    """A fault where the key itself does not take a value of the axis."""
    for value in axis.probes():
        for fault in _faults(spec, {axis.path: value}):
            if fault.path == axis.path or fault.path.startswith((axis.path + ".", axis.path + "[")):
                return [f"search.{axis.key}: {fault.text}"]
    return []


def _wrong_together(spec: Spec, axes: Sequence[Axis]) -> list[str]:
    """Faults where the axes at their probes between do not make a spec: a key beside a searched one is missing, say."""
    values = {axis.path: axis.probes()[-1] for axis in axes}
    return [f"search: with {shorten(values)}: {fault}" for fault in _faults(spec, values)]


def _faults(spec: Spec, values: Mapping[str, Any]) -> Sequence[Any]:
    try:
        apply(spec, values)
    except ValidationError as e:
        return explain(e)
    return ()
