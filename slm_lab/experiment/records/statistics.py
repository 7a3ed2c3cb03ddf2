"""Statistics of scores from a few seeds: point estimates, each with an interval.

The estimates are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv:2108.13264). Everywhere `tasks` holds one array of scores per task (env), [..., n_k] with one entry per run
(seed) on the last axis; tasks may have different numbers of runs. Leading axes are resamples and pass through.
Scores of several tasks must be on a common scale first: see `normalize`.

Not by rliable, which would bring pandas, statsmodels, seaborn and arch into an install that needs none of them and
wants the same number of runs in every task, nor by scipy, whose import takes longer than the graphs of a run. The
numbers agree with both; tests hold it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Tasks = Sequence[ArrayLike]
Statistic = Callable[[Sequence[Floats]], Floats]
LEVEL = 0.95
"""Coverage that an interval aims at."""
RESAMPLES = 5000
"""Bootstrap resamples of an interval."""
FEW = 5
"""With fewer runs than this a bootstrap interval is unreliable: it covers the true value less often than it says."""


class Estimate(NamedTuple):
    """A point estimate and its interval; both ends are NaN where a task has a single run."""

    value: float
    low: float
    high: float


def normalize(scores: ArrayLike, low: float, high: float) -> Floats:
    """`(score - low) / (high - low)`: 0 at the reference `low` (a random policy), 1 at `high` (a human, a solved env).

    >>> normalize([22.0, 500.0, 261.0], 22.0, 500.0).tolist()
    [0.0, 1.0, 0.5]
    """
    return (np.asarray(scores, float) - low) / (high - low)


def mean(tasks: Tasks) -> Floats:
    """Mean over tasks of each task's mean, [...].

    >>> float(mean([[1.0, 3.0], [10.0]]))
    6.0
    """
    return _task_means(tasks).mean(axis=-1)


def median(tasks: Tasks) -> Floats:
    """Median over tasks of each task's mean, [...].

    >>> float(median([[1.0, 3.0], [10.0], [4.0]]))
    4.0
    """
    return np.median(_task_means(tasks), axis=-1)


def iqm(tasks: Tasks) -> Floats:
    """Interquartile mean: the mean of the middle half of all runs of all tasks, [...].

    Of n runs the `floor(n / 4)` lowest and as many of the highest are left out. More robust than the mean, and needs
    fewer runs than the median.

    >>> float(iqm([[0.0, 2.0, 4.0, 100.0]]))
    3.0
    """
    scores = np.sort(_pooled(tasks), axis=-1)
    cut = scores.shape[-1] // 4
    return scores[..., cut : scores.shape[-1] - cut].mean(axis=-1)


def optimality_gap(tasks: Tasks, target: float = 1.0) -> Floats:
    """`target - mean(min(score, target))` over all runs, [...]: how far they fall short on average.

    >>> float(optimality_gap([[0.5, 1.5], [0.0, 1.0]]))
    0.375
    """
    return target - np.minimum(_pooled(tasks), target).mean(axis=-1)


def performance_profile(tasks: Tasks, thresholds: ArrayLike) -> Floats:
    """Share of all runs that score above each threshold, [..., K].

    Args:
        tasks: scores.
        thresholds: [K]

    >>> performance_profile([[0.2, 0.6], [1.0, 1.4]], [0.0, 0.5, 1.0]).tolist()
    [1.0, 0.75, 0.25]
    """
    pooled = _pooled(tasks)
    return np.stack([(pooled > tau).mean(axis=-1) for tau in np.atleast_1d(thresholds)], axis=-1)


def probability_of_improvement(x: Tasks, y: Tasks) -> Floats:
    """Mean over tasks of `P(X > Y) + P(X = Y) / 2` for a run X of `x` and a run Y of `y`, [...].

    Of one task it is the Mann-Whitney U statistic over the number of pairs.

    Args:
        x: scores of one method.
        y: scores of the other, in the same tasks.

    >>> float(probability_of_improvement([[1.0, 2.0, 3.0]], [[2.0, 0.0]]))
    0.75
    """
    if len(x) != len(y):
        raise ValueError(f"both methods need the same tasks, got {len(x)} and {len(y)}")
    shares = []
    for mine, others in zip(x, y, strict=True):
        a, b = np.asarray(mine, float)[..., :, None], np.asarray(others, float)[..., None, :]
        shares.append(((a > b) + 0.5 * (a == b)).mean(axis=(-2, -1)))
    return np.mean(shares, axis=0)


def bootstrap_interval(
    statistic: Statistic, tasks: Tasks, *, level: float = LEVEL, resamples: int = RESAMPLES
) -> tuple[Floats, Floats]:
    """Percentile interval of a statistic by the stratified bootstrap: runs are resampled within each task.

    The interval says how much the estimate would move with other seeds; the tasks are taken as given. It needs two
    runs in each task, and covers less than `level` below about `FEW` of them. The same scores give the same interval.

    Args:
        statistic: of tasks, such as `iqm`; reduces the last axis, and may give several values, [..., K].
        tasks: scores.
        level: share of the resampled estimates inside.
        resamples: how many.

    Returns:
        Low and high end, [] or [K]; NaN where some task has a single run.

    >>> low, high = bootstrap_interval(mean, [[1.0, 2.0, 3.0, 4.0]])
    >>> float(low), float(high)
    (1.5, 3.5)
    """
    arrays = [np.asarray(task, float) for task in tasks]
    point = statistic(arrays)
    if not arrays or min(a.size for a in arrays) < 2:  # a single run says nothing of its spread
        return np.full_like(point, np.nan), np.full_like(point, np.nan)
    rng = np.random.default_rng(0)
    batch = max(1, 2_000_000 // sum(a.size for a in arrays))
    found = []
    for start in range(0, resamples, batch):
        count = min(batch, resamples - start)
        found.append(statistic([a[rng.integers(0, a.size, (count, a.size))] for a in arrays]))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail], axis=0)
    return low, high


def estimate(statistic: Statistic, tasks: Tasks) -> Estimate:
    """A statistic of the scores with its interval; see `bootstrap_interval`.

    >>> estimate(mean, [[3.0]])
    Estimate(value=3.0, low=nan, high=nan)
    """
    low, high = bootstrap_interval(statistic, tasks)
    return Estimate(float(statistic([np.asarray(task, float) for task in tasks])), float(low), float(high))


def improvement(x: Tasks, y: Tasks) -> Estimate:
    """`probability_of_improvement` with its interval: runs of both methods are resampled, task by task.

    >>> improvement([[5.0, 6.0]], [[1.0, 2.0]])
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    split = len(x)
    return estimate(lambda both: probability_of_improvement(both[:split], both[split:]), [*x, *y])


def _task_means(tasks: Tasks) -> Floats:
    return np.stack([np.asarray(task, float).mean(axis=-1) for task in tasks], axis=-1)


def _pooled(tasks: Tasks) -> Floats:
    return np.concatenate([np.asarray(task, float) for task in tasks], axis=-1)
