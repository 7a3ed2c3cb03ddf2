"""The tracker: windows, columns, exact resume."""

import io
import math
import time

import pytest
import torch
from loguru import logger

from slm_lab.agent.metrics import COLUMNS, MetricsTracker
from slm_lab.lib.errors import LabError


def checkpoint(tracker, frame, wall_t=2.0, **variables):
    return tracker.checkpoint(frame=frame, t=frame // 4, opt_step=frame // 8, wall_t=wall_t, variables=variables)


def test_columns_in_order():
    tracker = MetricsTracker(extras=["entropy", "grad_norm", "loss"])
    tracker.record(loss=1.0, value_loss=2.0)
    row = checkpoint(tracker, 100, lr=0.1, clip_eps=0.2)
    assert list(row) == [*COLUMNS, "entropy", "grad_norm", "value_loss", "clip_eps"]
    assert COLUMNS == (
        "total_reward", "total_reward_ma", "loss", "fps", "frame", "wall_t", "t", "epi", "opt_step", "lr",
    )  # fmt: skip
    assert row["entropy"] is None
    assert (row["loss"], row["value_loss"], row["lr"], row["clip_eps"]) == (1.0, 2.0, 0.1, 0.2)
    assert (row["frame"], row["t"], row["opt_step"], row["fps"], row["wall_t"]) == (100, 25, 12, 50.0, 2.0)


def test_before_the_first_episode_nothing_is_known():
    tracker = MetricsTracker()
    row = checkpoint(tracker, 100, wall_t=0.0)
    assert row["total_reward"] is row["total_reward_ma"] is row["loss"] is row["lr"] is row["fps"] is None
    assert row["epi"] == 0
    assert math.isnan(tracker.final_total_reward)
    assert math.isnan(tracker.total_reward_ma)
    assert not tracker.is_best


def test_a_return_that_is_not_a_number_is_an_error():
    tracker = MetricsTracker()
    tracker.episodes([1.0], [5])
    with pytest.raises(LabError, match="the return of episode 2 or a later one is not a number"):
        tracker.episodes([2.0, math.nan], [5, 5])
    assert tracker.epi == 1


def test_total_reward_is_the_mean_of_the_last_hundred_episodes():
    tracker = MetricsTracker()
    tracker.episodes([1000.0] * 7, [1] * 7)
    tracker.episodes([], [])
    tracker.episodes([1.0] * 50 + [2.0] * 50, [1] * 100)
    assert checkpoint(tracker, 1)["total_reward"] == 1.5
    assert tracker.final_total_reward == 1.5
    assert tracker.rows[-1]["epi"] == 107


def test_total_reward_ma_is_the_mean_of_the_last_hundred_rows():
    tracker = MetricsTracker(window=1)
    checkpoint(tracker, 1)
    rewards = [500.0, *([1.0] * 50), *([4.0] * 50)]
    for i, reward in enumerate(rewards):
        tracker.episodes([reward], [1])
        row = checkpoint(tracker, 2 + i)
        if i == 1:
            # the row without an episode does not count
            assert row["total_reward_ma"] == 250.5
    assert row["total_reward_ma"] == tracker.total_reward_ma == 2.5


def test_evaluations_do_not_mix():
    tracker = MetricsTracker(window=2)
    tracker.episodes([1.0, 3.0], [5, 5])
    checkpoint(tracker, 1)
    tracker.episodes([10.0, 30.0], [5, 5])
    assert checkpoint(tracker, 2)["total_reward"] == 20.0


def test_episode_length_is_a_column_where_asked_for():
    tracker = MetricsTracker(extras=["episode_length"])
    assert checkpoint(tracker, 1)["episode_length"] is None
    tracker.episodes([1.0, 1.0], [10, 20])
    assert checkpoint(tracker, 2)["episode_length"] == 15.0
    plain = MetricsTracker()
    plain.episodes([1.0], [10])
    assert "episode_length" not in checkpoint(plain, 1)


def test_tensors_are_read_at_the_checkpoint_only():
    loss = torch.zeros(())
    tracker = MetricsTracker()
    tracker.record(loss=loss)
    loss += 0.1
    assert checkpoint(tracker, 1)["loss"] == loss.item()
    assert type(tracker.rows[0]["loss"]) is float
    # the latest value stays where nothing new came
    assert checkpoint(tracker, 2)["loss"] == loss.item()


def test_counters_stay_exact():
    big = 2**53 + 1
    row = MetricsTracker().checkpoint(frame=big, t=big, opt_step=big, wall_t=1.0, variables={})
    assert (row["frame"], row["t"], row["opt_step"]) == (big, big, big)


def test_returns_are_not_rounded_to_float32():
    tracker = MetricsTracker()
    tracker.episodes([0.1], [1])
    assert checkpoint(tracker, 1)["total_reward"] == 0.1


def test_the_same_frame_makes_one_row():
    seen = []
    tracker = MetricsTracker([seen.append])
    tracker.episodes([1.0], [1])
    first = checkpoint(tracker, 100)
    assert checkpoint(tracker, 100, wall_t=9.0) == first
    assert tracker.rows == seen == [first]


def test_every_sink_gets_every_row():
    a, b = [], []
    tracker = MetricsTracker([a.append, b.append])
    checkpoint(tracker, 1)
    checkpoint(tracker, 2)
    assert a == b == tracker.rows


def test_best():
    tracker = MetricsTracker(window=1)
    flags = []
    for i, reward in enumerate([1.0, 3.0, 0.0, 4.0]):
        tracker.episodes([reward], [1])
        checkpoint(tracker, i + 1)
        flags.append(tracker.is_best)
    # the averages are 1, 2, 4/3, 2: equal to the best counts
    assert flags == [True, True, False, True]
    assert tracker.best == 2.0


def test_a_late_column_is_named_once_and_left_out():
    text = io.StringIO()
    handler = logger.add(text, level="WARNING")
    try:
        tracker = MetricsTracker()
        checkpoint(tracker, 1)
        tracker.record(entropy=1.0)
        rows = [checkpoint(tracker, 2), checkpoint(tracker, 3)]
    finally:
        logger.remove(handler)
    assert all(list(row) == list(COLUMNS) for row in rows)
    assert text.getvalue().count("'entropy'") == 1


def drive(tracker, start, stop):
    for i in range(start, stop):
        tracker.episodes([i / 3, -i / 7][: i % 3], [i, i][: i % 3])
        if i % 5 == 0:
            tracker.record(loss=torch.tensor(i / 11), entropy=i / 13)
        if i % 2:
            checkpoint(tracker, i, wall_t=i / 10, lr=1 / (i + 1))


@pytest.mark.parametrize("cut", [0, 1, 6, 150, 333])
def test_resume_goes_on_bit_for_bit(cut, tmp_path):
    whole = MetricsTracker(extras=["entropy"])
    drive(whole, 0, 500)
    first = MetricsTracker(extras=["entropy"])
    drive(first, 0, cut)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    # the run went on for a while behind its checkpoint
    drive(first, cut, cut + 20)
    second = MetricsTracker(extras=["entropy"])
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    kept = [row for row in whole.rows if row["frame"] < cut]
    second.load_rows(kept)
    assert second.wall_t == (kept[-1]["wall_t"] if kept else 0.0)
    assert second.frame == (kept[-1]["frame"] if kept else -1)
    drive(second, cut, 500)
    assert second.rows == whole.rows
    assert second.state_dict() == whole.state_dict()


def test_a_snapshot_stands_still_and_stays_small():
    tracker = MetricsTracker()
    drive(tracker, 0, 400)
    before = tracker.state_dict()
    copy = repr(before)
    drive(tracker, 400, 2000)
    assert repr(before) == copy
    assert len(repr(tracker.state_dict())) < 1.5 * len(copy)


def test_steps_without_an_episode_cost_next_to_nothing():
    tracker = MetricsTracker()
    start = time.perf_counter()
    for _ in range(100_000):
        tracker.episodes([], [])
    # 0.01 s where measured; the bound only catches work that does not belong there
    assert time.perf_counter() - start < 1.0


def test_fps_is_the_rate_of_recent_rows():
    tracker = MetricsTracker()
    # the first row waits 100 seconds for the start; the frames after it come at 50 a second, then at 200
    assert checkpoint(tracker, 100, wall_t=100.0)["fps"] == 1.0
    assert checkpoint(tracker, 200, wall_t=102.0)["fps"] == 50.0
    rows = [checkpoint(tracker, 200 + 100 * i, wall_t=102.0 + 0.5 * i) for i in range(1, 12)]
    assert rows[-1]["fps"] == 200.0
    # a resume goes on from its last row, whatever happened since
    tracker.load_rows(rows)
    assert checkpoint(tracker, 1400, wall_t=108.0)["fps"] == 200.0
