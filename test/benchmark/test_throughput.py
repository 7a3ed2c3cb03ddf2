"""What the comparison of speeds makes of its measurements."""

import pytest
from sides import SIDES, steady
from throughput import alternate, compare, table
from workloads import WORKLOADS, workload


def test_compilation_is_told_apart_from_the_steady_state():
    # 5 s until the first mark, though 10 frames take 1 s at the speed that follows
    found = steady([(0.0, 100.0), (10.0, 105.0), (50.0, 109.0), (100.0, 114.0)])
    assert found["fps"] == pytest.approx(10.0)
    assert found["compile_s"] == pytest.approx(4.0)


def test_a_run_in_one_piece_is_steady_from_its_start():
    assert steady([(0.0, 3.0), (1000.0, 5.0)]) == {"fps": pytest.approx(500.0), "compile_s": pytest.approx(0.0)}


def test_every_side_goes_first_in_turn():
    order: list[str] = []

    def measure(side: str, seed: int) -> dict[str, int]:
        order.append(f"{side}{seed}")
        return {"fps": 1}

    alternate(measure, ["a", "b", "c"], 2)
    assert order == ["a0", "b0", "c0", "b1", "c1", "a1"]


def test_the_median_of_ratios_counts():
    found = {
        "slm_lab": [{"fps": 10.0}, {"fps": 40.0}, {"fps": 30.0}],
        "sb3": [{"fps": 5.0}, {"fps": 10.0}, {"fps": 10.0}],
    }
    assert compare(found, "fps") == {"sb3": 3.0}


def test_sides_are_asked_only_for_what_they_have():
    can = {side: {name for name in WORKLOADS if SIDES[side].can(name)} for side in SIDES}
    assert can["rejax"] == {"W1", "W1b"}
    assert can["sbx"] == {"W1", "W1b", "W2", "W3", "W4"}
    assert can["slm_lab"] == can["sb3"] == set(WORKLOADS)
    assert can["base"] == set(WORKLOADS) - {"W7", "W8", "W9", "W10"}
    assert all(workload(name)["threads"] <= workload(name)["cores"] for name in WORKLOADS)


def test_a_table_has_a_line_for_each_other_side():
    side = {"fps": 1234.0, "compile_s": 2.0, "peak_rss_mb": 100.0, "score": 1.0}
    median = {"slm_lab": side, "sb3": side | {"fps": 617.0}}
    text = table([{"workload": "W1", "median": median, "ratio": {"sb3": 2.0}, "rss_ratio": {"sb3": 1.0}}])
    assert text.splitlines()[2:] == [
        "| W1 | sb3 | 1,234 frames/s | 617 frames/s | 2.00x | 2.0 / 2.0 s | 100 / 100 MB | 1.00x |"
    ]
