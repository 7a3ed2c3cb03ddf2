"""Numbers and intervals in words, as tables and pages have them."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import median
from typing import TYPE_CHECKING, Any

from slm_lab.experiment.records.statistics import FEW, LEVEL, Estimate

if TYPE_CHECKING:
    from slm_lab.experiment.records.compare import Comparison


NAMES = {"iqm": "IQM", "median": "median over envs", "mean": "mean over envs", "optimality_gap": "optimality gap"}
"""What tables call the aggregates of `compare`."""


def number(value: float | None) -> str:
    """Four digits that count, none of them cut off before the point.

    >>> number(12345.6), number(0.12345), number(float("inf")), number(None)
    ('12,346', '0.1235', 'never', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def interval(e: Estimate) -> str:
    """An estimate and its interval.

    >>> interval(Estimate(1.0, 0.5, 1.25)), interval(Estimate(1.0, float("nan"), float("nan")))
    ('1 [0.5, 1.25]', '1')
    """
    return number(e.value) + ("" if math.isnan(e.low) else f" [{number(e.low)}, {number(e.high)}]")


def coarse(sessions: int) -> str:
    """Warning about an interval from few sessions; empty if there are enough."""
    if sessions == 1:
        return "One session does not tell what other seeds would give: no interval. "
    if sessions < FEW:
        return (
            f"{sessions} sessions are few: intervals miss the true value more often than "
            f"{100 * (1 - LEVEL):.0f} % of the time. "
        )
    return ""


def reached(values: Sequence[float]) -> str:
    """The median over sessions, and how many of them got there where not all did; no median where half did not.

    >>> reached([10.0, 30.0, float("inf")]), reached([10.0, 20.0]), reached([5.0, float("inf")])
    ('30 (2 of 3)', '15', '- (1 of 2)')
    """
    got = sum(math.isfinite(v) for v in values)
    middle = median(values) if values else math.nan
    if got == len(values):
        return number(middle)
    return f"{number(middle if math.isfinite(middle) or not got else None)} ({got} of {len(values)})"


def env_table(found: "Comparison", env: str) -> tuple[list[str], list[list[str]]]:
    """What `compare` found about the methods in an env: headers, and one row per method."""
    target = number(found.targets[env])
    headers = ["method", "sessions", "mean", "median", "IQM", "worst", f"frames to {target}", f"seconds to {target}"]
    rows = []
    for m in found.of(env):
        estimates = map(interval, (m.mean, m.median, m.iqm))
        times = map(reached, (m.frames_to_target, m.seconds_to_target))
        rows.append([m.label, str(len(m.scores)), *estimates, number(min(m.scores, default=math.nan)), *times])
    return headers, rows


def aggregate_table(found: "Comparison") -> tuple[list[str], list[list[str]]]:
    """The aggregates over envs, of which there must be some: headers, and one row per method."""
    rows = [[label, *map(interval, estimates.values())] for label, estimates in found.aggregates.items()]
    return ["method", *(NAMES[name] for name in next(iter(found.aggregates.values())))], rows


def summary(scalar: Mapping[str, Any], label: str) -> str:
    """Scalars in one line of a log.

    >>> summary({"frame": 200000, "strength": 460.336}, "trial_metrics")
    'trial_metrics: frame:2.00e+05 | strength:460.34'
    """
    return f"{label}: " + " | ".join(f"{name}:{_short(name, value)}" for name, value in scalar.items())


def block(scalar: Mapping[str, Any], label: str = "trial_metrics", width: int = 80) -> str:
    """Scalars as a table under a label: in two columns, or in one where two are wider than `width`.

    >>> print(block({"frame": 200000, "strength": 460.336, "stability": float("nan")}))
    trial_metrics:
      frame     200,000    stability  -
      strength   460.34
    """
    cells = [(k, f"{v:,.0f}" if k == "frame" and v is not None else _short(k, v)) for k, v in scalar.items()]
    for half in ((len(cells) + 1) // 2, len(cells)):
        columns = []
        for part in (cells[:half], cells[half:]):
            wide, high = (max((len(cell[i]) for cell in part), default=0) for i in (0, 1))
            columns.append([f"{name:<{wide}}  {value:>{high}}" for name, value in part])
        lines = [f"  {left}    {right}".rstrip() for left, right in zip_longest(*columns, fillvalue="")]
        if max(map(len, lines), default=0) <= width:
            break
    return "\n".join([f"{label}:", *lines])


def _short(name: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    small = name == "frame" or "efficiency" in name
    return f"{value:.2e}" if small else f"{value:.2f}"
