"""Numbers and intervals in words, as tables and pages have them."""

import math
from collections.abc import Sequence

from slm_lab.experiment.statistics import FEW, LEVEL, Estimate


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
    """What is to be said of an interval from so few sessions; nothing where they are enough."""
    if sessions == 1:
        return "One session says nothing of what other seeds would give: no interval. "
    if sessions < FEW:
        return (
            f"{sessions} sessions are few: intervals are coarse, and miss the true value more often than "
            f"{100 * (1 - LEVEL):.0f} % of the time. "
        )
    return ""


def reached(values: Sequence[float]) -> str:
    """The median over sessions, and how many of them got there where not all did.

    >>> reached([10.0, 30.0, float("inf")]), reached([5.0])
    ('30 (2 of 3)', '5')
    """
    got = sum(math.isfinite(v) for v in values)
    middle = sorted(values)[(len(values) - 1) // 2] if values else math.nan
    return number(middle) + ("" if got == len(values) else f" ({got} of {len(values)})")
