"""Metrics against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest
from loguru import logger

from slm_lab.agent.sinks import CsvSink, read_rows
from slm_lab.experiment.records import analysis as an
from slm_lab.experiment.records.wording import block, summary
from slm_lab.lib.layout import Layout


def row(frame, reward, opt_step=None):
    return {
        "total_reward": reward,
        "total_reward_ma": reward,
        "frame": frame,
        "opt_step": frame // 10 if opt_step is None else opt_step,
    }


NAN = math.nan
S = [2.0, 6.0, 4.0, 8.0]


@pytest.fixture
def log_lines():
    lines = []
    handler = logger.add(lambda m: lines.append(m.record["message"]), level="INFO")
    yield lines
    logger.remove(handler)


def test_strengths():
    assert an.strength(S) == 5.0
    scalars = an.session_scalars(np.zeros(3), np.array([2.0, 9.0, 4.0]), [1, 2, 3], [1, 2, 3])
    assert (scalars["max_strength"], scalars["final_strength"]) == (9.0, 4.0)
    assert an.strength([NAN, 2.0, 4.0]) == 3.0


def test_efficiency():
    # weights 2, 6, 4, 8 sum to 20; over the frames they sum to 0.2 + 0.3 + 0.1 + 0.1
    assert an.efficiency(S, [10, 20, 40, 80]) == pytest.approx(0.7 / 20)
    assert an.efficiency(S, [1, 2, 4, 8]) == pytest.approx(7 / 20)


def test_efficiency_leaves_a_row_without_steps_out_of_both_sums():
    assert an.efficiency([100.0, 6.0, 4.0], [0, 2, 4]) == pytest.approx((3 + 1) / 10)


def test_efficiency_is_larger_for_whom_learns_earlier():
    frames = [100, 200, 300]
    assert an.efficiency([9.0, 9.0, 9.0], frames) > an.efficiency([1.0, 5.0, 9.0], frames)


def test_efficiency_of_less_than_chance_is_not_defined():
    assert math.isnan(an.efficiency([-3.0, -2.0], [10, 20]))
    assert math.isnan(an.efficiency([-2.0, 2.0], [10, 20]))


def test_stability():
    # one drop of 2 against 2 + 6 + 4 before the last row
    assert an.stability(S) == pytest.approx(1 - 2 / 12)
    assert an.stability([1.0, 2.0, 3.0]) == 1.0
    assert an.stability([NAN, 2.0, 6.0, NAN, 4.0, 8.0]) == pytest.approx(an.stability(S))


def test_clipped_metrics_stay_in_their_range():
    """A start worse than random, which SLM-Lab's weights count against what came later."""
    s, frames = np.array([-20.0, -10.0, 20.0, 15.0]), [10, 20, 40, 80]
    m = an.session_scalars(s, s, frames, frames)
    assert m["sample_efficiency"] == pytest.approx((-20 / 10 - 10 / 20 + 20 / 40 + 15 / 80) / 5)
    assert m["stability"] == pytest.approx(1 - 5 / 10)
    assert m["sample_efficiency_clipped"] == pytest.approx((20 / 40 + 15 / 80) / 35)
    assert m["training_efficiency_clipped"] == m["sample_efficiency_clipped"]
    assert m["stability_clipped"] == pytest.approx(1 - 5 / 20)
    rng = np.random.default_rng(0)
    for _ in range(100):
        s = 3 * rng.standard_normal(9)
        m = an.session_scalars(s, s, range(1, 10), range(1, 10))
        if s[:-1].max() > 0:
            assert 1 / 9 - 1e-12 <= m["sample_efficiency_clipped"] <= 1 + 1e-12
            assert -1e-12 <= m["stability_clipped"] <= 1
    m = an.session_scalars(np.array([-3.0, -2.0]), np.array([-3.0, -2.0]), [1, 2], [1, 2])
    assert np.isnan([m["sample_efficiency_clipped"], m["stability_clipped"]]).all()


def test_consistency():
    # sample std over two sessions is |a - b| / sqrt(2)
    s = [[4.0, 8.0], [2.0, 10.0]]
    assert an.consistency(s) == pytest.approx(1 - 2 * (2 * math.sqrt(2)) / (3 + 9))
    assert an.consistency([[1.0, *s[0]], [NAN, *s[1]]]) == pytest.approx(an.consistency(s))


def test_consistency_of_less_than_chance_is_not_defined():
    assert math.isnan(an.consistency([[-4.0, 1.0], [-2.0, 1.0]]))
    assert np.isnan(an.running_consistency([[-4.0, 1.0], [-2.0, 1.0]])).tolist() == [True, False]


def test_consistency_of_one_session_is_not_defined():
    assert math.isnan(an.consistency([[1.0, 2.0]]))
    assert np.isnan(an.running_consistency([[1.0, 2.0]])).all()


def test_running_series():
    frames = [10, 20, 40, 80]
    assert an.running_efficiency(S, frames) == pytest.approx([0.1, 0.5 / 8, 0.6 / 12, 0.7 / 20])
    assert an.running_stability(S)[1:] == pytest.approx([1.0, 1 - 2 / 6, 1.0])
    assert math.isnan(an.running_stability(S)[0])
    std = math.sqrt(2)
    assert an.running_consistency([[4.0, 8.0], [2.0, 10.0]]) == pytest.approx([1 - 2 * std / 3, 1 - 2 * std / 9])


def test_running_series_leave_gaps_where_nothing_is_known():
    series = an.running_efficiency([NAN, 2.0, NAN, 6.0], [10, 10, 15, 20])
    assert series == pytest.approx([NAN, 0.1, NAN, 0.5 / 8], nan_ok=True)
    stabilities = an.running_stability([NAN, 2.0, 1.0])
    assert stabilities == pytest.approx([NAN, NAN, 0.5], nan_ok=True)


def test_moving_average_takes_the_last_hundred_rows():
    returns = [1000.0, *([1.0] * 50), *([3.0] * 50)]
    scalars = an.session_metrics([row(i + 1, r) for i, r in enumerate(returns)], "CartPole-v1")["scalar"]
    assert scalars["total_reward_ma"] == 2.0


def test_session_metrics():
    m = an.session_metrics([row(100, 32.97), row(200, 42.97)], "CartPole-v1")
    assert m["scalar"] == pytest.approx(
        {
            "total_reward_ma": 37.97,
            "final_total_reward": 42.97,
            "strength": 15.0,
            "max_strength": 20.0,
            "final_strength": 20.0,
            "sample_efficiency": (10 / 100 + 20 / 200) / 30,
            "training_efficiency": (10 / 10 + 20 / 20) / 30,
            "stability": 1.0,
            "sample_efficiency_clipped": (10 / 100 + 20 / 200) / 30,
            "training_efficiency_clipped": (10 / 10 + 20 / 20) / 30,
            "stability_clipped": 1.0,
        }
    )
    assert m["local"]["strengths"] == pytest.approx([10.0, 20.0])
    assert m["local"]["frames"] == [100, 200]


def test_session_metrics_of_a_file_equal_those_of_the_rows(tmp_path):
    rows = [row(100, None), row(200, 42.97), row(300, 1 / 3)]
    sink = CsvSink(tmp_path / "df.csv")
    for r in rows:
        sink(r)
    assert repr(an.session_metrics(read_rows(tmp_path / "df.csv"), "CartPole-v1")) == repr(
        an.session_metrics(rows, "CartPole-v1")
    )


def test_one_row():
    m = an.session_metrics([row(100, 32.97)], "CartPole-v1")["scalar"]
    assert m["strength"] == m["final_strength"] == pytest.approx(10.0)
    assert m["sample_efficiency"] == pytest.approx(0.01)
    assert math.isnan(m["stability"])


@pytest.mark.parametrize("rows", [[], [row(100, None), row(200, None)]])
def test_nothing_finished(rows):
    m = an.session_metrics(rows, "CartPole-v1")
    assert all(math.isnan(v) for v in m["scalar"].values())
    t = an.trial_metrics([m, m])
    assert t["scalar"]["frame"] == (200 if rows else 0)
    assert math.isnan(t["scalar"]["strength"])


def test_trial_is_the_mean_over_sessions():
    a = an.session_metrics([row(100, 10.0), row(200, 20.0)], "Nobody-v0")
    b = an.session_metrics([row(100, 30.0), row(200, 20.0)], "Nobody-v0")
    t = an.trial_metrics([a, b])
    for name in a["scalar"]:
        assert t["scalar"][name] == pytest.approx((a["scalar"][name] + b["scalar"][name]) / 2)
    assert t["scalar"]["frame"] == 200
    assert t["scalar"]["consistency"] == pytest.approx(1 - 2 * math.sqrt(200) / 40)
    assert t["local"]["mean_returns"] == [[10.0, 20.0], [30.0, 20.0]]
    assert list(t["scalar"]) == ["frame", *a["scalar"], "consistency"]


def test_trial_is_cut_to_the_shortest_session():
    long = an.session_metrics([row(100, 10.0), row(200, 20.0), row(300, 90.0)], "Nobody-v0")
    short = an.session_metrics([row(100, 10.0), row(200, 30.0)], "Nobody-v0")
    empty = an.session_metrics([], "Nobody-v0")
    t = an.trial_metrics([long, short, empty])
    assert t["scalar"]["frame"] == 200
    assert t["scalar"]["final_total_reward"] == 25.0
    assert t["scalar"]["max_strength"] == 25.0
    assert t["local"]["frames"] == [100, 200]
    assert len(t["local"]["strengths"]) == 2


def test_trial_without_session():
    with pytest.raises(ValueError, match="without a session"):
        an.trial_metrics([])


def test_files(tmp_path):
    layout = Layout.new(tmp_path, "ppo")
    layout.make_folders()
    rows = [row(100, None), row(200, 25.0), row(300, 30.0)]
    first = an.save_session(layout, 0, 0, rows, "CartPole-v1")
    second = an.save_session(layout, 0, 1, rows, "CartPole-v1")
    assert json.loads(layout.session_scalar(0, 0).read_text()) == first["scalar"]
    assert json.loads(layout.session_metrics(0, 0).read_text())["local"]["mean_returns"] == [None, 25.0, 30.0]
    trial = an.save_trial(layout, 0, [first, second])
    assert trial["scalar"]["strength"] == pytest.approx(first["scalar"]["strength"])
    text = layout.trial_scalar(0).read_text()
    assert "NaN" not in layout.trial_metrics(0).read_text()
    assert json.loads(text)["consistency"] == pytest.approx(1.0)
    assert layout.trial_scalar(0, top=True).read_text() == text


def test_undefined_is_null_in_the_files(tmp_path):
    layout = Layout.new(tmp_path, "ppo")
    layout.make_folders()
    an.save_trial(layout, 0, [an.save_session(layout, 0, 0, [row(100, None)], "CartPole-v1")])
    scalar = json.loads(layout.trial_scalar(0).read_text())
    assert scalar["frame"] == 100
    assert scalar["strength"] is None
    assert scalar["consistency"] is None


def test_a_block_fits_a_narrow_terminal():
    scalars = an.trial_metrics([an.session_metrics([row(100, 32.0), row(200, 42.0)], "CartPole-v1")])["scalar"]
    wide, narrow = block(scalars).split("\n"), block(scalars, width=40).split("\n")
    assert max(map(len, narrow)) <= 40 < max(map(len, wide)) <= 80
    assert [line.split() for line in narrow[1:]] == [
        [name, line.split()[1]] for name, line in zip(scalars, narrow[1:], strict=True)
    ]
    assert len(wide) == 1 + (len(scalars) + 1) // 2


def test_summary_shows_what_is_missing_as_a_dash():
    scalars = {"frame": 100, "stability": NAN, "sample_efficiency": 1.5e-5, "strength": None}
    line = summary(scalars, "trial_metrics")
    assert line == "trial_metrics: frame:1.00e+02 | stability:- | sample_efficiency:1.50e-05 | strength:-"


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_running_metrics_equal_those_of_all_rows(count):
    rng = np.random.default_rng(0)
    rewards = [None, *(30 + 10 * rng.standard_normal(30))][:count]
    rows = [row(100 * i, r, opt_step=max(0, i - 2)) for i, r in enumerate(rewards)]
    running = an.RunningMetrics("CartPole-v1", rows=rows[:3])
    for r in rows[3:]:
        running.add(r)
    expected = an.session_metrics(rows, "CartPole-v1")["scalar"]
    found = running.scalars()
    assert found == pytest.approx({name: expected[name] for name in found}, nan_ok=True)
    assert count < 30 or all(math.isfinite(value) for value in found.values())


def test_running_metrics_log_a_line(log_lines):
    an.RunningMetrics("CartPole-v1", "t0 s1")(row(100, 32.97))
    (line,) = log_lines
    assert line.startswith(
        "t0 s1: strength:10.00 | max_strength:10.00 | final_strength:10.00 | sample_efficiency:1.00e-02"
    )
    assert line.endswith(" | training_efficiency:1.00e-01 | stability:-")
