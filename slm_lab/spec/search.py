"""The search space: what the `search` block of a spec says, checked in full before anything is run.

A searched key ends in `__` and the name of a distribution, its value is the list of arguments; flat
(`"agent.algorithm.gamma__uniform": [0.9, 0.99]`) or nested as in the spec. Every distribution is a simple domain, which
a sampler draws a raw value from, and a function that makes the searched value of it: so any sampler that knows reals,
whole numbers and categories can search all of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from slm_lab.lib.errors import SpecError
from slm_lab.lib.suggest import did_you_mean, nearest
from slm_lab.spec.explain import explain, shorten
from slm_lab.spec.model import Spec

SEPARATOR = "__"
ARGUMENTS = {
    "uniform": ("low", "high"),
    "quniform": ("low", "high", "q"),
    "loguniform": ("low", "high"),
    "qloguniform": ("low", "high", "q"),
    "randint": ("low", "high"),
    "qrandint": ("low", "high", "q"),
    "lograndint": ("low", "high"),
    "qlograndint": ("low", "high", "q"),
    "randn": ("mean", "sd"),
    "qrandn": ("mean", "sd", "q"),
    "normal": ("mean", "sd"),
}
"""Arguments of the numeric distributions. The upper end of randint and lograndint is left out, as in Python's range;
that of the others belongs to them."""
LISTS = ("choice", "grid_search")
"""Distributions whose value is the list of options."""
DISTRIBUTIONS = (*ARGUMENTS, *LISTS)
TRIALS = 8
"""Of a search that does not say how many."""
_TAIL = 1e-6
"""Probability cut off at each end of a normal distribution."""
_OWN = ("name", "search", "meta.max_trial", "meta.plugins", "meta.search_")
"""What a search itself goes by."""


@dataclass(frozen=True)
class Domain:
    """What a sampler draws raw values from: both ends belong to it; of a category the raw value is the index."""

    kind: Literal["float", "int", "category"]
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Axis:
    """One searched key."""

    path: str
    """Key path in the spec."""
    dist: str
    args: tuple[Any, ...]

    @property
    def key(self) -> str:
        """As the search block says it, flat."""
        return f"{self.path}{SEPARATOR}{self.dist}"

    @property
    def domain(self) -> Domain:
        """Of the raw values.

        >>> Axis("env.num_envs", "randint", (1, 5)).domain
        Domain(kind='int', low=1, high=4, log=False)
        """
        if self.dist in LISTS:
            return Domain("category", 0, len(self.args) - 1)
        if self.dist in ("randn", "qrandn", "normal"):
            return Domain("float", _TAIL, 1 - _TAIL)
        low, high = self.args[:2]
        if self.dist in ("quniform", "qrandint"):
            q = self.args[2]
            return Domain("int", round(low / q), round(high / q))
        if self.dist in ("randint", "lograndint"):
            return Domain("int", low, high - 1, log=self.dist == "lograndint")
        return Domain("float", low, high, log="log" in self.dist)

    def value(self, raw: float) -> Any:
        """The searched value that a raw value stands for.

        >>> Axis("x", "quniform", (0.1, 0.5, 0.1)).value(3), Axis("x", "choice", ("relu", "tanh")).value(1)
        (0.3, 'tanh')
        >>> Axis("x", "normal", (5.0, 2.0)).value(0.5), Axis("x", "qloguniform", (10, 1000, 10)).value(123.4)
        (5.0, 120)
        """
        if self.dist in LISTS:
            return self.args[int(raw)]
        if self.dist in ("quniform", "qrandint"):
            return self._quantum(int(raw))
        if self.dist in ("qloguniform", "qlograndint"):
            low, high, q = self.args
            return self._quantum(min(max(round(raw / q), math.ceil(low / q)), math.floor(high / q)))
        if self.dist in ("randn", "normal", "qrandn"):
            x = NormalDist(*self.args[:2]).inv_cdf(raw)
            return self._quantum(round(x / self.args[2])) if self.dist == "qrandn" else x
        return int(raw) if self.domain.kind == "int" else float(raw)

    def _quantum(self, k: int) -> float:
        q = self.args[2]
        # 3 * 0.1 is not 0.3: the digits of q are all that the value can have
        return k * q if isinstance(q, int) else round(k * q, 12)

    def probes(self) -> list[Any]:
        """Values by which the axis is checked: its ends and one between, or all options."""
        domain = self.domain
        if domain.kind == "category":
            return list(self.args)
        between = domain.low + 0.382 * (domain.high - domain.low)
        raws = [domain.low, domain.high, math.floor(between) if domain.kind == "int" else between]
        return list(dict.fromkeys(self.value(raw) for raw in raws))


def parse_search(spec: Spec) -> list[Axis]:
    """The searched keys of a spec, in the order of their paths.

    Raises:
        SpecError: all that is wrong with the block, a line each.
    """
    if not spec.search:
        raise SpecError(
            ['search: missing, nothing is searched (say: "search": {"agent.algorithm.lr__loguniform": [1e-4, 1e-2]})'],
            spec.name,
        )
    faults: list[str] = []
    axes = []
    for path, value in _leaves(spec.search, ""):
        found = _axis(path, value)
        if isinstance(found, Axis):
            axes.append(found)
        else:
            faults.append(found)
    axes.sort(key=lambda axis: axis.path)
    faults += _overlaps(axes)
    for axis in axes:
        faults += _unknown_path(spec, axis) or _wrong_values(spec, axis)
    faults += _wrong_scheduler(spec, axes)
    if not faults:
        faults = _wrong_together(spec, axes)
    if faults:
        raise SpecError(faults, spec.name)
    return axes


def search_sessions(spec: Spec) -> int:
    """Sessions of a trial of a search."""
    return spec.meta.search_max_session or spec.meta.max_session


def trial_count(spec: Spec, axes: Sequence[Axis]) -> int:
    """Trials of a search: `meta.max_trial` for each point of the grid; else TRIALS, or 1 where nothing is drawn."""
    drawn = any(axis.dist != "grid_search" for axis in axes)
    return (spec.meta.max_trial or (TRIALS if drawn else 1)) * len(grid(axes))


def scheduler_settings(spec: Spec) -> dict[str, Any] | None:
    """Keyword arguments of ASHA; None where every trial runs to its end."""
    scheduler = spec.meta.search_scheduler
    if scheduler is None:
        return None
    return {**scheduler.model_dump(), "max_t": scheduler.max_t or spec.env.max_frame}


def trial_spec(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """The spec that a trial of a search runs.

    Raises:
        SpecError: the values do not go together.
    """
    sessions = {"meta.max_session": spec.meta.search_max_session} if spec.meta.search_max_session else {}
    try:
        return apply(spec, {**sessions, **values})
    except ValidationError as e:
        raise SpecError([str(fault) for fault in explain(e)]) from None


def apply(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """The spec of one trial: each key path set to its value, the search block gone.

    Raises:
        pydantic.ValidationError: the values do not go together.
    """
    data = spec.to_dict()
    data.pop("search", None)
    for path, value in values.items():
        _put(data, path.split("."), value)
    return Spec.model_validate(data)


def grid(axes: Sequence[Axis]) -> list[dict[str, int]]:
    """All combinations of the grid_search axes, as raw values; one empty combination where there is no such axis.

    >>> grid([Axis("a", "grid_search", (5, 6)), Axis("b", "grid_search", ("x", "y")), Axis("c", "uniform", (0, 1))])
    [{'a': 0, 'b': 0}, {'a': 0, 'b': 1}, {'a': 1, 'b': 0}, {'a': 1, 'b': 1}]
    """
    points: list[dict[str, int]] = [{}]
    for axis in axes:
        if axis.dist == "grid_search":
            points = [{**point, axis.path: i} for point in points for i in range(len(axis.args))]
    return points


def _put(data: Any, path: Sequence[str], value: Any) -> None:
    """Set what lies at a path; objects on the way that are not there, or null, are made."""
    for part, deeper in zip(path, [*path[1:], None], strict=True):
        key = int(part) if isinstance(data, list) else part
        if deeper is None:
            data[key] = value
        else:
            if not isinstance(data, list) and data.get(key) is None:
                data[key] = {}
            data = data[key]


def _leaves(data: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Key paths and values; what lies behind a key with a distribution is its value. Nothing at all is a leaf too."""
    items: list[tuple[str, Any]] = []
    if isinstance(data, dict):
        items = [*data.items()]
    elif isinstance(data, list) and any(isinstance(part, dict) for part in data):
        items = [(str(i), part) for i, part in enumerate(data)]
    if not items:
        yield prefix, data
    for key, value in items:
        path = f"{prefix}.{key}" if prefix else key
        if SEPARATOR in key:
            yield path, value
        else:
            yield from _leaves(value, path)


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
    if axis.path.startswith(_OWN) or axis.path.split(".")[0] in _OWN:
        return [f"search.{axis.key}: '{axis.path}' can't be searched"]
    node: Any = spec
    for part in axis.path.split("."):
        if isinstance(node, BaseModel) and (part in type(node).model_fields or part in (node.model_extra or {})):
            node = getattr(node, part)
        elif isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif node is not None:
            near = nearest(axis.path, _paths(spec, ""), cutoff=0.75)
            hint = f", did you mean '{near}'?" if near else ""
            return [f"search.{axis.key}: '{axis.path}' names nothing in the spec{hint}"]
    return []


def _paths(node: Any, prefix: str) -> list[str]:
    """Key paths that the spec has or could have."""
    if isinstance(node, BaseModel):
        keys = [*type(node).model_fields, *(node.model_extra or {})]
        items = [(key, getattr(node, key)) for key in keys]
    else:
        items = [*node.items()] if isinstance(node, dict) else []
    found = []
    for key, value in items:
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
