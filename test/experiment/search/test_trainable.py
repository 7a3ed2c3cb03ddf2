"""What Ray runs, without Ray: rows merged, sessions ended, work taken up again."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from slm_lab.agent.metrics import Row
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.search.store import Plan
from slm_lab.experiment.search.trainable import Merge, SearchTrial
from slm_lab.experiment.session.run import Options
from slm_lab.lib.layout import Layout
from slm_lab.spec.model import Spec


def row(frame: int, score: float | None) -> Row:
    return {"frame": frame, "wall_t": frame / 100, "total_reward": score, "total_reward_ma": score}


def test_reports_are_means_over_sessions() -> None:
    merge = Merge(2)
    assert merge.row(0, row(100, 1.0)) == []
    assert merge.row(0, row(200, 2.0)) == []
    (first,) = merge.row(1, row(100, 3.0))
    assert (first["frame"], first["total_reward_ma"], first["training_iteration"]) == (100, 2.0, 1)
    (second,) = merge.row(1, row(200, None))
    assert (second["frame"], second["total_reward_ma"]) == (200, None)


def test_rows_that_come_again_are_left_out() -> None:
    """A session that went on from its checkpoint repeats those after it."""
    merge = Merge(1)
    assert len(merge.row(0, row(100, 1.0))) == 1
    assert len(merge.row(0, row(200, 1.0))) == 1
    assert merge.row(0, row(100, 1.0)) == []
    assert len(merge.row(0, row(300, 1.0))) == 1


def test_the_others_go_on_without_a_crashed_session() -> None:
    merge = Merge(2)
    merge.row(0, row(100, 1.0))
    (made,) = merge.drop(1)
    assert made["total_reward_ma"] == 1.0
    assert merge.drop(0) == []


Make = Callable[..., SearchTrial]


@pytest.fixture
def make(searched: Callable[..., Spec], tmp_path: Path) -> Iterator[Make]:
    """Trial 3 of a search in a run folder."""
    layout = Layout.new(tmp_path, "tiny")
    layout.make_folders()

    def trial(values: dict[str, Any] | None = None, cpu: int = 1, **changes: Any) -> SearchTrial:
        spec = searched(**changes)
        options = Options(out=tmp_path, device="cpu", progress=False)
        plan = Plan(spec.to_dict(), layout, options, cpu, min(cpu, spec.meta.max_session), 0.0, "")

        class Planned(SearchTrial):
            """As tune.with_parameters makes it."""

            def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
                super().setup(config, plan)

        made.append(Planned({"trial": 3, "values": values or {"agent.algorithm.lr": 0.01}}))
        return made[-1]

    made: list[SearchTrial] = []
    yield trial
    for one in made:
        one.stop()


def workers() -> list[psutil.Process]:
    """Processes of sessions; this one may have others, of other tests."""
    alive = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    nurseries = [p for p in alive if any("slm_lab.experiment.trial.nursery" in word for word in p.cmdline())]
    return [worker for nursery in nurseries for worker in nursery.children()]


def layout_of(trial: SearchTrial) -> Layout:
    return trial._store.layout


def finish(trial: SearchTrial) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All its reports, and its last result."""
    reports = []
    for _ in range(200):
        result = trial.step()
        if result.get("done"):
            return reports, result
        reports += result["rows"]
    raise AssertionError("it does not end")


def test_it_runs_a_trial_of_the_lab(make: Make) -> None:
    trial = make()
    reports, last = finish(trial)
    layout = layout_of(trial)
    assert last == {"trial": 3, "done": True, "crashed_sessions": 0}
    rows = read_rows(layout.session_df(3, 0))
    assert [r["frame"] for r in reports] == [r["frame"] for r in rows] == [200, 400, 600, 800, 1000]
    assert [r["total_reward_ma"] for r in reports] == [r["total_reward_ma"] for r in rows]
    assert layout.trial_metrics(3).exists()
    assert '"lr": 0.01' in layout.trial_spec(3).read_text()
    assert "search" not in layout.trial_spec(3).read_text()

    # once more, as after a kill: all is there already, and nothing is run again
    before = layout.checkpoint(3, 0).stat().st_mtime_ns
    again, last = finish(make())
    assert [r["frame"] for r in again] == [200, 400, 600, 800, 1000]
    assert last["done"]
    assert layout.checkpoint(3, 0).stat().st_mtime_ns == before

    # files of another trial that had the same index are not taken for its own
    other = make({"agent.algorithm.lr": 0.02})
    other._prepare()
    assert not layout.checkpoint(3, 0).exists()
    assert other._backlog == []


def test_one_after_the_other_in_the_same_processes(make: Make) -> None:
    """The second trial begins where the first was stopped: its sessions have ended and saved by then."""
    trial = make(env__max_frame=10_000_000)
    layout = layout_of(trial)
    while not trial.step()["rows"]:
        pass
    (worker,) = workers()
    assert trial.reset_config({"trial": 4, "values": {"agent.algorithm.lr": 0.02}})
    frames = read_rows(layout.session_df(3, 0))[-1]["frame"]
    while not trial.step()["rows"]:
        pass
    assert layout.checkpoint(3, 0).exists()
    assert read_rows(layout.session_df(3, 0))[-1]["frame"] == frames, "it does not learn on"
    assert '"lr": 0.02' in layout.trial_spec(4).read_text()
    assert workers() == [worker]


def test_a_trial_that_is_not_asked_for_is_laid_down(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes up its work, to the bit, when it is asked for again."""
    whole = make()
    expected, _ = finish(whole)
    layout = layout_of(whole)
    weights = layout.weights(3, 0).read_bytes()
    whole.stop()
    for path in layout.trial_files(3):
        path.unlink()
    monkeypatch.setattr("slm_lab.experiment.search.trainable.LEASE", 0.0)
    trial = make()
    for _ in range(4):
        trial.step()
        assert trial._thread is not None
        trial._thread.join(20)
    monkeypatch.undo()
    reports, last = finish(trial)
    assert last["done"]
    assert reports[-1]["frame"] == expected[-1]["frame"]
    assert layout.weights(3, 0).read_bytes() == weights


def test_a_stopped_trial_leaves_no_process(make: Make) -> None:
    """Two sessions at a time in processes of their own: all gone, and saved, when Ray has stopped the trial."""
    trial = make(cpu=2, env__max_frame=10_000_000, meta__max_session=3)
    tables = [layout_of(trial).session_df(3, session) for session in (0, 1)]
    while not all(table.exists() for table in tables):
        trial.step()
    children = workers()
    assert len(children) == 2, "three sessions, two cores"
    begun = time.monotonic()
    trial.stop()
    assert time.monotonic() - begun < 8
    assert not any(child.is_running() for child in children)
    assert layout_of(trial).checkpoint(3, 0).exists()


def test_values_that_make_no_spec(make: Make) -> None:
    _, last = finish(make({"agent.algorithm.gamma": 2.0}))
    assert last["misuse"]
    assert last["crash"] == "agent.algorithm.gamma: must be at most 1 (got 2.0)"


def test_a_trial_whose_sessions_crash(make: Make) -> None:
    _, last = finish(make({"agent.algorithm.lr": 1e30}))
    assert last["done"]
    assert "not finite" in last["crash"]


def test_sessions_of_a_search(make: Make) -> None:
    trial = make(meta__max_session=4, meta__search_max_session=1)
    spec, _ = trial._prepare()
    assert spec.meta.max_session == 1
