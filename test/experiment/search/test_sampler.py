"""Seeded, played back, and true to what each axis says."""

import math
from typing import Any

import pytest

from slm_lab.experiment.search.journal import Journal, TrialStatus
from slm_lab.experiment.search.sampler import Sampler
from slm_lab.spec.search import Axis

AXES = [
    Axis("choice", "choice", ([64], [64, 64])),
    Axis("loguniform", "loguniform", (1e-4, 1e-1)),
    Axis("lograndint", "lograndint", (1, 100)),
    Axis("normal", "normal", (5.0, 1.0)),
    Axis("qlograndint", "qlograndint", (8, 64, 8)),
    Axis("qrandint", "qrandint", (8, 64, 8)),
    Axis("randint", "randint", (1, 4)),
    Axis("uniform", "uniform", (0.0, 1.0)),
]


def run(sampler: Sampler, journal: Journal, count: int) -> list[dict[str, Any]]:
    """Give out trials and end each at once; the nearer its `uniform` is to 0.3, the better."""
    given = []
    for i in range(count):
        config = sampler.suggest(f"id{len(journal.records)}-{i}")
        given.append(config)
        trial = config["trial"]
        score = -abs(config["values"].get("uniform", 0.0) - 0.3)
        journal.ended(trial, TrialStatus.COMPLETED, frame=100, metric=score)
        sampler.on_trial_complete(f"id{len(journal.records) - 1}-{i}", {"total_reward_ma": 1e9})
    return given


def test_values_are_what_the_axes_say(journal: Journal) -> None:
    given = run(Sampler(AXES, 30, 0, journal), journal, 30)
    assert [config["trial"] for config in given] == list(range(30))
    values = [config["values"] for config in given]
    assert {tuple(v["choice"]) for v in values} == {(64,), (64, 64)}
    assert {v["randint"] for v in values} == {1, 2, 3}
    assert all(v["qrandint"] % 8 == 0 and v["qlograndint"] % 8 == 0 for v in values)
    assert all(1e-4 <= v["loguniform"] <= 1e-1 and 1 <= v["lograndint"] <= 99 for v in values)
    assert min(v["loguniform"] for v in values) < 1e-3, "spread over the decades"
    assert math.isclose(sum(v["normal"] for v in values) / 30, 5.0, abs_tol=1.0)


def test_the_same_seed_gives_the_same_search(journal: Journal, tmp_path: Any) -> None:
    first = run(Sampler(AXES, 16, 3, journal), journal, 16)
    other = Journal(tmp_path / "other.json")
    assert run(Sampler(AXES, 16, 3, other), other, 16) == first
    third = Journal(tmp_path / "third.json")
    assert run(Sampler(AXES, 16, 4, third), third, 16) != first


def test_it_learns(journal: Journal) -> None:
    """After its ten random trials it draws near what was good: TPE, not chance."""
    given = run(Sampler([Axis("uniform", "uniform", (0.0, 1.0))], 40, 0, journal), journal, 40)
    errors = [abs(config["values"]["uniform"] - 0.3) for config in given]
    assert sum(errors[20:]) / 20 < 0.5 * sum(errors[:10]) / 10


@pytest.mark.parametrize("killed_at", [1, 12])
def test_a_journal_is_played_back(journal: Journal, tmp_path: Any, killed_at: int) -> None:
    """A killed search goes on with the very values that it would have drawn."""
    whole = run(Sampler(AXES, 16, 3, journal), journal, 16)
    part = Journal(tmp_path / "part.json")
    first = run(Sampler(AXES, 16, 3, part), part, killed_at)
    again = Journal.open(part.path)
    assert again == part
    assert first + run(Sampler(AXES, 16, 3, again), again, 16 - killed_at) == whole


def test_unfinished_trials_come_first_and_keep_their_values(journal: Journal) -> None:
    sampler = Sampler(AXES, 5, 3, journal)
    first, second = sampler.suggest("a"), sampler.suggest("b")
    journal.ended(0, TrialStatus.CRASHED, reason="x")
    again = Sampler(AXES, 5, 3, Journal.open(journal.path))
    assert again.left == 4
    assert again.suggest("c") == second
    assert first["trial"] == 0
    assert [again.suggest(str(i))["trial"] for i in range(3)] == [2, 3, 4]
    assert again.suggest("none left") == Sampler.FINISHED


def test_an_end_that_was_not_told_before_the_kill_is_told(journal: Journal) -> None:
    sampler = Sampler(AXES, 5, 3, journal)
    sampler.suggest("a")
    journal.ended(0, TrialStatus.COMPLETED, metric=1.0)
    assert journal.events == [("ask", 0, None)]
    again = Journal.open(journal.path)
    Sampler(AXES, 5, 3, again)
    assert again.events == [("ask", 0, None), ("tell", 0, 1.0)]


def test_grid(journal: Journal) -> None:
    """All points before any comes again; without a sampled axis no sampler is needed."""
    axes = [Axis("a", "grid_search", (1, 2)), Axis("b", "grid_search", ("x", "y")), Axis("uniform", "uniform", (0, 1))]
    given = [config["values"] for config in run(Sampler(axes, 8, 0, journal), journal, 8)]
    points = [(v["a"], v["b"]) for v in given]
    assert points == [(1, "x"), (1, "y"), (2, "x"), (2, "y")] * 2
    assert len({v["uniform"] for v in given}) == 8


def test_grid_alone(journal: Journal) -> None:
    given = run(Sampler([Axis("a", "grid_search", (1, 2))], 2, 0, journal), journal, 2)
    assert [config["values"] for config in given] == [{"a": 1}, {"a": 2}]
