"""Against hand numbers, against rliable's own example, and against what rliable 1.2.0 gives for the scores below."""

import numpy as np
import pytest
from scipy.stats import bootstrap, mannwhitneyu, trim_mean

from slm_lab.experiment.records import statistics
from slm_lab.experiment.records.statistics import (
    bootstrap_interval,
    estimate,
    improvement,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

# three tasks of eight runs each
X = [
    [0.82, 0.29, 0.85, 0.45, 0.44, 0.28, 0.51, 0.73],
    [0.72, 1.16, 0.67, 1.34, 0.78, 0.85, 1.07, 1.17],
    [1.19, 0.48, 1.53, 0.58, 1.85, 1.05, 0.96, 1.6],
]
Y = [
    [0.32, 0.73, 0.5, 0.22, 0.41, 0.28, 0.25, 0.37],
    [0.78, 0.26, 0.43, 0.97, 0.46, 0.79, 0.8, 0.88],
    [0.45, 0.96, 0.88, 2.22, 1.52, 1.77, 0.95, 0.9],
]


@pytest.mark.parametrize(
    ("statistic", "value", "low", "high"),
    [
        (median, 0.97, 0.79375, 1.1125),
        (iqm, 0.85333333, 0.7025, 0.99833333),
        (mean, 0.89041667, 0.76416667, 1.01833333),
        (optimality_gap, 0.23291667, 0.16041667, 0.30791667),
    ],
)
def test_same_as_rliable(statistic, value, low, high):
    """`rliable.library.get_interval_estimates`, 50000 resamples; ends of intervals are random in the third digit."""
    found = estimate(statistic, X)
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_probability_of_improvement_is_rliables():
    found = improvement(X, Y)
    assert found.value == pytest.approx(0.68229167)
    assert (found.low, found.high) == pytest.approx((0.5234375, 0.82558594), abs=0.01)


def test_performance_profile_is_rliables():
    tau = [0.0, 0.5, 1.0, 1.5]
    assert performance_profile(X, tau) == pytest.approx([1.0, 0.79166667, 0.375, 0.125])
    low, high = bootstrap_interval(lambda tasks: performance_profile(tasks, tau), X)
    assert low == pytest.approx([1.0, 0.66666667, 0.20833333, 0.04166667], abs=0.043)  # one run of 24 is 0.042
    assert high == pytest.approx([1.0, 0.91666667, 0.54166667, 0.25], abs=0.043)


def test_rliables_own_example():
    """Scores and right values of rliable's tests."""
    x, y = [[1, 2, 1, 2], [2, 2, 1, 1]], [[1, 2, 3], [1, 2, 3]]
    assert [median(x), mean(x), iqm(x)] == [1.5, 1.5, 1.5]
    assert [median(y), mean(y), iqm(y)] == [2, 2, 2]
    assert probability_of_improvement(x, y) == pytest.approx(1 / 3)


def test_tasks_of_unequal_size_by_hand():
    tasks = [[0.0, 1.0], [2.0, 4.0, 6.0, 20.0]]
    assert mean(tasks) == (0.5 + 8.0) / 2
    assert median(tasks) == (0.5 + 8.0) / 2
    assert iqm(tasks) == (1 + 2 + 4 + 6) / 4  # one of six falls away at either end
    assert optimality_gap(tasks, target=4.0) == 4 - (0 + 1 + 2 + 4 + 4 + 4) / 6
    # task 0: 0 < 0.5, 1 > 0.5; task 1: always more
    assert probability_of_improvement(tasks, [[0.5], [1.0]]) == (0.5 + 1) / 2


def test_probability_is_mann_whitneys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 7), rng.integers(0, 9, 5)
    assert probability_of_improvement([a], [b]) == pytest.approx(mannwhitneyu(a, b).statistic / 35)
    assert probability_of_improvement([a], [b]) + probability_of_improvement([b], [a]) == pytest.approx(1)


def test_interval_and_iqm_are_scipys():
    rng = np.random.default_rng(3)
    x = rng.normal(size=11)
    low, high = bootstrap_interval(mean, [x], resamples=20_000)
    found = bootstrap([x], np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.03)
    assert [iqm([x[:n]]) for n in range(1, 12)] == pytest.approx([trim_mean(x[:n], 0.25) for n in range(1, 12)])


def test_interval_of_two_runs_by_hand():
    """Resampled means of (0, 1) are 0, 0.5, 1 with shares 1/4, 1/2, 1/4; a wide level reaches the ends."""
    low, high = bootstrap_interval(mean, [[0.0, 1.0]], level=0.95)
    assert (low, high) == (0, 1)
    low, high = bootstrap_interval(mean, [[0.0, 1.0]], level=0.4)
    assert (low, high) == (0.5, 0.5)


def test_strata_are_kept():
    """Tasks that differ do not widen the interval: each is resampled by itself."""
    low, high = bootstrap_interval(mean, [[1.0, 1.0], [100.0, 100.0]])
    assert (low, high) == (50.5, 50.5)


def test_single_run_has_no_interval():
    found = estimate(iqm, [[3.0], [1.0, 2.0]])
    assert found.value == 2.0
    assert np.isnan([found.low, found.high]).all()
    low, high = bootstrap_interval(lambda tasks: performance_profile(tasks, [0, 1]), [[3.0]])
    assert low.shape == high.shape == (2,)


def test_same_scores_same_interval():
    assert estimate(iqm, X) == estimate(iqm, X)
    assert bootstrap_interval(iqm, X, level=0.5)[1] < estimate(iqm, X).high


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        low, high = bootstrap_interval(mean, [rng.normal(size=20)], resamples=400)
        inside += low <= 0 <= high
    assert 0.87 <= inside / 200 <= 0.98


def test_different_tasks_cannot_be_compared():
    with pytest.raises(ValueError, match="same tasks, got 2 and 1"):
        probability_of_improvement([[1], [2]], [[1]])


def test_normalize():
    assert statistics.normalize([-21, 14.6], -20.7, 14.6) == pytest.approx([-0.3 / 35.3, 1])
