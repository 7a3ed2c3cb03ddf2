"""Series for graphs: smoothed, thinned without losing extremes, and averaged over sessions with an interval."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slm_lab.experiment.records.analysis import MA_ROWS
from slm_lab.experiment.records.statistics import Floats, bootstrap_interval

POINTS = 400
"""Of an averaged curve."""
RESAMPLES = 1000
"""Bootstrap resamples of the interval of a curve, which has many points."""


class Curve(NamedTuple):
    """The mean over sessions and its interval, each [K]; no interval (NaN) where there is one session."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


def moving_average(y: ArrayLike, rows: int = MA_ROWS) -> Floats:
    """Mean of the last `rows` values (fewer at the start) at each place, NaN left out, [..., N].

    >>> moving_average([1.0, 3.0, 8.0], rows=2).tolist()
    [1.0, 2.0, 5.5]
    """
    y = np.asarray(y, float)
    known = np.isfinite(y)
    total = np.insert(np.cumsum(np.where(known, y, 0.0), axis=-1), 0, 0.0, axis=-1)
    count = np.insert(np.cumsum(known, axis=-1), 0, 0, axis=-1)
    last = np.arange(1, y.shape[-1] + 1)
    first = np.maximum(last - rows, 0)
    n = count[..., last] - count[..., first]
    return np.divide(total[..., last] - total[..., first], n, out=np.full_like(y, np.nan), where=n > 0)


def thin(y: ArrayLike, points: int) -> NDArray[np.intp]:
    """Places of at most `points` values that draw the same picture: the extremes of each stretch are kept.

    The series is cut into equal stretches; of each the lowest and the highest value stay, and both ends of the series.
    Where a stretch knows no value, one place stays as a gap.

    Args:
        y: [N]
        points: at least 4.

    Returns:
        Ascending indices; all of them where N is small enough.

    >>> thin([0, 9, 1, 2, -5, 3, 4, 4, 4, 7], points=6).tolist()
    [0, 1, 4, 5, 9]
    """
    y = np.asarray(y, float)
    if y.size <= points:
        return np.arange(y.size)
    stretches = max(1, (points - 2) // 2)
    edges = np.linspace(0, y.size, stretches + 1).astype(np.intp)
    low, high = np.where(np.isfinite(y), y, np.inf), np.where(np.isfinite(y), y, -np.inf)
    kept = {0, y.size - 1}
    for start, stop in pairwise(edges):
        kept |= {start + int(low[start:stop].argmin()), start + int(high[start:stop].argmax())}
    return np.array(sorted(kept), np.intp)


def average(xs: Sequence[Floats], ys: Sequence[Floats], points: int = POINTS) -> Curve:
    """The mean of sessions' curves with a bootstrap interval, over the stretch that all sessions know.

    Each session is interpolated onto one grid of x. Sessions are resampled as wholes, so the interval says how much the
    mean curve would move with other seeds.

    Args:
        xs: of each session, [N_j], ascending.
        ys: of each session, [N_j]; NaN is left out.
        points: of the grid; fewer where the sessions have fewer rows.

    Returns:
        Empty arrays where the sessions have no stretch in common.
    """
    known = [(x[ok], y[ok]) for x, y in zip(xs, ys, strict=True) if (ok := np.isfinite(x) & np.isfinite(y)).any()]
    start = max((x[0] for x, _ in known), default=np.inf)
    stop = min((x[-1] for x, _ in known), default=-np.inf)
    if start > stop:
        nothing = np.empty(0)
        return Curve(nothing, nothing, nothing, nothing)
    shortest = min((x for x, _ in known), key=len)
    # rows of their own where these are few: then the curve goes through what was logged
    inside = shortest[(shortest >= start) & (shortest <= stop)]
    grid = inside if 0 < inside.size <= points else np.linspace(start, stop, points)
    values = np.stack([np.interp(grid, x, y) for x, y in known])  # [J, K]

    def mean(tasks: Sequence[Floats]) -> Floats:
        return values[np.asarray(tasks[0], np.intp)].mean(axis=-2)  # [..., J, K] -> [..., K]

    low, high = bootstrap_interval(mean, [np.arange(len(known))], resamples=RESAMPLES)
    return Curve(grid, values.mean(axis=0), low, high)


def first_reached(x: ArrayLike, y: ArrayLike, target: float) -> float:
    """The first x at which y is at least `target`; infinite where it never is.

    >>> first_reached([10, 20, 30], [1.0, 5.0, 2.0], 4.0), first_reached([10], [1.0], 4.0)
    (20.0, inf)
    """
    reached = np.flatnonzero(np.asarray(y, float) >= target)
    return float(np.asarray(x, float)[reached[0]]) if reached.size else float("inf")
