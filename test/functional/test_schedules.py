"""Schedules go up, down and to zero."""

from itertools import pairwise

import pytest

from slm_lab.functional.schedules import SCHEDULES, linear_decay, no_decay, periodic_decay, rate_decay


@pytest.mark.parametrize(("frame", "value"), [(0, 1.0), (100, 1.0), (150, 0.5), (200, 0.0), (999, 0.0)])
def test_linear_down_to_zero(frame: int, value: float) -> None:
    assert linear_decay(1.0, 0.0, 100, 200, frame) == pytest.approx(value)


@pytest.mark.parametrize(("frame", "value"), [(0, 0.128), (150_000, 0.164), (300_000, 0.2), (400_000, 0.2)])
def test_linear_up(frame: int, value: float) -> None:
    assert linear_decay(0.128, 0.2, 0, 300_000, frame) == pytest.approx(value)


def test_no_decay_keeps_start() -> None:
    assert no_decay(0.3, 0.0, 0, 0, 10**9) == 0.3


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.2)])
def test_begin_and_end(name: str, start: float, end: float) -> None:
    f = SCHEDULES[name]
    assert f(start, end, 10, 20, 10) == start
    assert f(start, end, 10, 20, 20) == pytest.approx(start if name == "no_decay" else end)


def test_rate_by_hand() -> None:
    assert rate_decay(1.0, 0.1, 0, 20, 1) == pytest.approx(0.1 + 0.9 * 0.9)


def test_periodic_stays_within() -> None:
    values = [periodic_decay(1.0, 0.1, 0, 1000, f) for f in range(0, 1001, 7)]
    assert min(values) >= 0.1
    assert max(values) <= 1.0
    rises = sum(b > a for a, b in pairwise(values))
    assert rises > 20  # it is a wave, not a slope
