"""ASHA on the rows of the trials: by hand, in batches, and across a kill."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from slm_lab.experiment.search.journal import Journal, TrialStatus
from slm_lab.experiment.search.scheduler import Report, Rungs, Scheduler

SETTINGS = {
    "time_attr": "frame",
    "metric": "total_reward_ma",
    "mode": "max",
    "max_t": 800,
    "grace_period": 100,
    "reduction_factor": 2,
    "brackets": 1,
    "stop_last_trials": True,
}


def report(frame: int, score: float | None) -> Report:
    return {"frame": frame, "training_iteration": frame // 50, "time_total_s": 1.0, "total_reward_ma": score}


def trial(index: int) -> Any:
    return SimpleNamespace(config={"trial": index}, trial_id=f"t{index}", get_error=lambda: RuntimeError("gone"))


def scheduler(journal: Journal, settings: dict[str, Any] | None = SETTINGS, count: int = 4) -> Scheduler:
    for i in range(count):
        if i not in journal.records:
            journal.asked(i, {"x": i})
    rungs = None if settings is None else Rungs(settings, 0, journal.scheduler)
    return Scheduler(journal, rungs, end=800, full=800)


def test_rungs_by_hand() -> None:
    """Rungs at 100, 200, 400, 800. With factor 2 a trial goes on if it is not below the median of those before it."""
    rungs = Rungs(SETTINGS, 0, {})
    assert not rungs.stops(0, report(100, 5.0))  # the first: nothing to compare with
    assert rungs.stops(1, report(100, 4.0))  # below 5
    assert not rungs.stops(2, report(100, 4.5))  # median of 5 and 4
    assert not rungs.stops(2, report(150, 0.0))  # between rungs nothing is judged
    assert not rungs.stops(0, report(200, 9.0))
    assert rungs.stops(2, report(200, 8.0))


def test_a_score_that_is_not_known_is_not_judged() -> None:
    """No episode has ended yet: the trial is judged at its first row that has a score."""
    rungs = Rungs(SETTINGS, 0, {})
    assert not rungs.stops(0, report(100, 5.0))
    assert not rungs.stops(1, report(100, None))
    assert rungs.stops(1, report(150, 4.0))


def feed(made: Scheduler, index: int, rows: Sequence[Report], batch: int) -> None:
    for start in range(0, len(rows), batch):
        if made.on_trial_result(None, trial(index), {"rows": rows[start : start + batch]}) == TrialScheduler.STOP:
            break
    made.on_trial_complete(None, trial(index), {})


SCORES = [5.0, 3.0, 4.0, 7.0, 6.5, 2.0]


def rows(index: int) -> list[Report]:
    return [report(frame, SCORES[index] * frame / 100) for frame in range(50, 801, 50)]


def outcome(journal: Journal) -> list[tuple[TrialStatus, int, float | None]]:
    return [(record.status, record.frame, record.metric) for record in journal.records.values()]


EXPECTED = [
    (TrialStatus.COMPLETED, 800, 40.0),
    (TrialStatus.STOPPED, 100, 3.0),
    (TrialStatus.STOPPED, 200, 8.0),  # at 100 it equals the median of 5 and 3
    (TrialStatus.COMPLETED, 800, 56.0),
    (TrialStatus.COMPLETED, 800, 52.0),
    (TrialStatus.STOPPED, 100, 2.0),
]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batches_do_not_matter(journal: Journal, batch: int) -> None:
    """Each row is judged on its own; those after the one that stopped the trial do not count."""
    made = scheduler(journal, count=6)
    for index in range(6):
        feed(made, index, rows(index), batch)
    assert outcome(journal) == EXPECTED


@pytest.mark.parametrize("killed_in", range(6))
def test_a_resumed_search_stops_the_same_trials(journal: Journal, killed_in: int) -> None:
    """Killed in the middle of a trial; what lives is the journal. The trial tells all its rows again."""
    made = scheduler(journal, count=6)
    for index in range(killed_in):
        feed(made, index, rows(index), 2)
    made.on_trial_result(None, trial(killed_in), {"rows": rows(killed_in)[:5]})
    again = Journal.open(journal.path)
    made = scheduler(again, count=6)
    for index in range(killed_in, 6):
        if not again.records[index].ended:
            feed(made, index, rows(index), 3)
    assert outcome(again) == EXPECTED


def test_a_stopped_trial_stays_so_whatever_is_told_of_it_still(journal: Journal) -> None:
    made = scheduler(journal, count=2)
    for index in range(2):
        feed(made, index, rows(index), 1)
    assert made.on_trial_result(None, trial(1), {"rows": rows(1)}) == TrialScheduler.STOP
    assert outcome(journal) == EXPECTED[:2]


def test_without_the_rungs_it_would_not(journal: Journal) -> None:
    """What Ray's own restore does: the rungs are empty again, and a trial that was to be stopped runs to its end."""
    made = scheduler(journal, count=6)
    for index in range(5):
        feed(made, index, rows(index), 2)
    again = Journal.open(journal.path)
    again.scheduler = {}
    feed(scheduler(again, count=6), 5, rows(5), 3)
    assert outcome(again)[:5] == EXPECTED[:5]
    assert outcome(again)[5] == (TrialStatus.COMPLETED, 800, 16.0)


def test_without_a_scheduler_all_run_to_their_end(journal: Journal) -> None:
    made = scheduler(journal, None, count=6)
    for index in range(6):
        feed(made, index, rows(index), 4)
    assert {record.status for record in journal.records.values()} == {TrialStatus.COMPLETED}
    assert [record.frame for record in journal.records.values()] == [800] * 6


def test_brackets_are_given_out_by_the_seed() -> None:
    many = {**SETTINGS, "brackets": 3}

    def given(seed: int) -> dict[str, int]:
        rungs = Rungs(many, seed, {})
        for index in range(40):
            rungs.stops(index, report(10, 1.0))
        return dict(rungs.state()["bracket_of"])

    assert given(0) == given(0) != given(1)
    assert set(given(0).values()) == {0, 1, 2}


def test_max_t_ends_a_trial_that_is_not_poor(journal: Journal) -> None:
    journal.asked(0, {})
    made = Scheduler(journal, Rungs({**SETTINGS, "max_t": 400}, 0, {}), end=400, full=800)
    feed(made, 0, rows(0), 16)
    assert outcome(journal) == [(TrialStatus.COMPLETED, 400, 20.0)]


def test_crashes_are_recorded(journal: Journal) -> None:
    made = scheduler(journal)
    made.on_trial_complete(None, trial(0), {"crash": "ValueError: no", "misuse": True})
    made.on_trial_error(None, trial(1))
    first, second = journal.records[0], journal.records[1]
    assert (first.status, first.reason, first.misuse) == (TrialStatus.CRASHED, "ValueError: no", True)
    assert (second.status, second.reason) == (TrialStatus.CRASHED, "gone")
    # what is over stays as it was
    made.on_trial_complete(None, trial(0), {})
    assert journal.records[0].status is TrialStatus.CRASHED
