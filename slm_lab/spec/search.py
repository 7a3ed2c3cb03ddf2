"""The search space: what the `search` block of a spec says, checked in full before anything is run.

A searched key ends in `__` and the name of a distribution, its value is the list of arguments; flat
(`"agent.algorithm.gamma__uniform": [0.9, 0.99]`) or nested as in the spec. Every distribution is a simple domain, which
a sampler draws a raw value from, and a function that makes the searched value of it: so any sampler that knows reals,
whole numbers and categories can search all of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from pydantic import ValidationError

from slm_lab.lib.errors import SpecError
from slm_lab.spec.explain import explain
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


def leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Key paths and values of a search space; the value of a key with a distribution is its arguments.

    Nothing at all is a leaf too.
    """
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
            yield from leaves(value, path)


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
    """Set the value at a path; objects on the way that are not there, or null, are made."""
    for part, deeper in zip(path, [*path[1:], None], strict=True):
        key = int(part) if isinstance(data, list) else part
        if deeper is None:
            data[key] = value
        else:
            if not isinstance(data, list) and data.get(key) is None:
                data[key] = {}
            data = data[key]
