import numpy as np
import pytest

from slm_lab.experiment.records.curves import average, first_reached, moving_average, thin

NAN = np.nan


def test_moving_average_meets_the_naive_one():
    y = np.random.default_rng(0).normal(size=50)
    y[[0, 1, 20, 21, 22, 49]] = NAN
    naive = [
        np.nanmean(y[max(0, i - 2) : i + 1]) if np.isfinite(y[max(0, i - 2) : i + 1]).any() else NAN for i in range(50)
    ]
    assert moving_average(y, rows=3) == pytest.approx(naive, nan_ok=True)


@pytest.mark.parametrize("size", [1, 5, 100, 10_007])
def test_thinned_series_keeps_ends_and_extremes(size):
    rng = np.random.default_rng(size)
    y = rng.normal(size=size)
    y[size // 3] = 99.0
    y[size // 2] = -99.0
    y[rng.random(size) < 0.1] = NAN
    kept = thin(y, points=60)
    assert kept.size <= 60
    assert (np.diff(kept) > 0).all()
    assert (kept[0], kept[-1]) == (0, size - 1)
    if np.isfinite(y).any():
        assert (np.nanmax(y[kept]), np.nanmin(y[kept])) == (np.nanmax(y), np.nanmin(y))


def test_short_series_is_whole():
    assert thin([3.0, 1.0, NAN], points=10).tolist() == [0, 1, 2]


def test_gap_stays_a_gap():
    y = np.arange(1000.0)
    y[300:600] = NAN
    assert np.isnan(y[thin(y, points=50)]).any()


def test_average_by_hand():
    """Two sessions with the same rows: the grid is their rows; resampled means are a, (a + b) / 2 and b."""
    x = np.array([10.0, 20.0])
    curve = average([x, x], [np.array([1.0, 2.0]), np.array([3.0, 8.0])])
    assert curve.x.tolist() == [10, 20]
    assert curve.mean.tolist() == [2, 5]
    assert curve.low.tolist() == [1, 2]
    assert curve.high.tolist() == [3, 8]


def test_average_covers_what_all_sessions_know():
    xs = [np.array([0.0, 10.0, 20.0, 30.0]), np.array([5.0, 15.0, 25.0])]
    curve = average(xs, [np.array([NAN, 10.0, 20.0, 30.0]), np.array([5.0, 15.0, 25.0])])
    assert curve.x.tolist() == [10, 20]
    assert curve.mean.tolist() == [10, 20]


def test_one_session_has_no_interval():
    curve = average([np.arange(3.0)], [np.arange(3.0)])
    assert curve.mean.tolist() == [0, 1, 2]
    assert np.isnan(curve.low).all()


def test_nothing_in_common():
    curve = average([np.array([1.0, 2.0]), np.array([5.0])], [np.array([1.0, 2.0]), np.array([5.0])])
    assert curve.x.size == 0
    assert average([np.array([1.0])], [np.array([NAN])]).mean.size == 0


def test_long_curves_are_averaged_on_a_grid():
    x = np.arange(5000.0)
    curve = average([x, x + 0.5], [2 * x, 2 * x + 1])
    assert curve.x.size == 400
    assert curve.mean == pytest.approx(2 * curve.x)


def test_first_reached():
    assert first_reached([1, 2, 3], [NAN, 5.0, 9.0], 5.0) == 2
    assert first_reached([1, 2, 3], [NAN, 5.0, 9.0], 10.0) == np.inf
