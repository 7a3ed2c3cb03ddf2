"""What a search leaves behind."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from slm_lab.agent.sinks import CsvSink
from slm_lab.experiment.search import findings
from slm_lab.experiment.search.journal import Journal, Record, TrialStatus
from slm_lab.experiment.search.table import SearchTable, describe
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

LR, WIDTH = "agent.algorithm.lr", "agent.net.hid_layers"
SCORES = {0: 30.0, 1: 60.0, 2: 90.0, 3: 20.0}
STATUS = {2: TrialStatus.STOPPED, 4: TrialStatus.CRASHED}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.new(tmp_path, "tiny")
    made.make_folders()
    return made


@pytest.fixture
def spec(searched: Callable[..., Spec]) -> Spec:
    return searched(
        {f"{LR}__loguniform": [1e-4, 0.1], f"{WIDTH}__choice": [[8], [16]]},
        meta__max_session=4,
        meta__search_max_session=1,
        meta__search_scheduler={"grace_period": 200},
    )


@pytest.fixture
def search(layout: Layout, spec: Spec) -> Journal:
    """Four trials with tables and models, and one that crashed. Returns rise by 10 a row up to the score."""
    journal = Journal(layout.search_file())
    for trial in range(5):
        journal.asked(trial, {LR: 10.0 ** (trial - 4), WIDTH: [8 + 8 * (trial % 2)]})
        status = STATUS.get(trial, TrialStatus.COMPLETED)
        if trial in SCORES:
            sink = CsvSink(layout.session_df(trial, 0))
            for k in range(1, 6):
                reward = SCORES[trial] + 10 * (k - 5)
                sink({"frame": 200 * k, "opt_step": k, "total_reward": reward, "total_reward_ma": reward, "wall_t": k})
            for path in (layout.checkpoint(trial, 0), layout.best(trial, 0), layout.weights(trial, 0)):
                path.write_bytes(b"model")
        frame = 600 if status is TrialStatus.STOPPED else 1000
        journal.ended(trial, status, frame=frame, metric=SCORES.get(trial), reason="no luck")
    return journal


@pytest.fixture
def found(layout: Layout, spec: Spec, search: Journal) -> findings.Found:
    all_ = {i: findings.analyse(layout, record, spec) for i, record in search.records.items() if i in SCORES}
    return {i: metrics for i, metrics in all_.items() if metrics is not None}


def test_a_stopped_trial_counts_up_to_where_it_was_stopped(layout: Layout, found: findings.Found) -> None:
    """Its sessions had run on for a moment."""
    assert found[2]["scalar"]["frame"] == 600
    assert found[2]["local"]["mean_returns"] == [[50.0, 60.0, 70.0]]
    assert found[0]["scalar"]["frame"] == 1000
    assert json.loads(layout.trial_scalar(2).read_text())["frame"] == 600


def test_a_trial_without_a_finished_episode_has_no_score(found: findings.Found) -> None:
    assert all(map(findings.has_score, found.values()))
    for nothing in (None, float("nan")):
        assert not findings.has_score({"scalar": {"strength": nothing}})


def test_ranking(search: Journal, found: findings.Found) -> None:
    """Those that ran to their end come first: the others were judged by fewer frames."""
    assert [record.trial for record in findings.ranking(search, found)] == [1, 0, 3, 2]


def test_table(layout: Layout, search: Journal, found: findings.Found) -> None:
    rows = findings.table(search, found, [LR, WIDTH])
    findings.save_table(layout, rows)
    with layout.experiment_df(top=True).open() as file:
        read = list(csv.DictReader(file))
    assert layout.experiment_df().read_text() == layout.experiment_df(top=True).read_text()
    assert [r["trial"] for r in read] == ["2", "1", "0", "3", "4"], "by strength, the crashed one last"
    assert list(read[0])[:6] == ["trial", LR, WIDTH, "frame", "total_reward_ma", "final_total_reward"]
    strengths = [float(r["strength"]) for r in read[:4]]
    assert strengths == sorted(strengths, reverse=True)
    assert (read[4]["strength"], read[4]["status"]) == ("", "crashed")
    assert read[0][WIDTH] == "[8]"
    assert json.loads(layout.trial_data().read_text())["1"][LR] == 1e-3


@pytest.mark.parametrize(("keep", "kept"), [(0, set()), (1, {1}), (2, {0, 1}), (9, {0, 1, 2, 3}), (-1, {0, 1, 2, 3})])
def test_models_that_are_kept(
    layout: Layout, search: Journal, found: findings.Found, keep: int, kept: set[int]
) -> None:
    findings.prune(layout, search, found, keep)
    assert {i for i in range(5) if layout.best(i, 0).exists()} == kept
    assert {i for i in range(5) if layout.weights(i, 0).exists()} == kept
    assert layout.session_df(3, 0).exists(), "tables stay"


def test_models_of_trials_that_run_are_never_touched(layout: Layout, search: Journal, found: findings.Found) -> None:
    search.records[3].status = TrialStatus.RUNNING
    findings.prune(layout, search, found, 0)
    assert layout.checkpoint(3, 0).exists()


def test_files_of_trial_1_are_not_those_of_trial_10(layout: Layout) -> None:
    for trial in (1, 10):
        layout.checkpoint(trial, 0).touch()
        layout.trial_spec(trial).touch()
    assert set(layout.trial_files(1)) == {layout.checkpoint(1, 0), layout.trial_spec(1)}
    # a copy of the run folder in itself is another run
    shutil.copytree(layout.root, layout.root / "copy", ignore=lambda *_: ["copy"])
    assert set(layout.trial_files(1)) == {layout.checkpoint(1, 0), layout.trial_spec(1)}


def test_best_spec_can_be_trained(layout: Layout, spec: Spec, search: Journal, found: findings.Found) -> None:
    layout.spec().write_text("{}")
    best = findings.ranking(search, found)[0]
    findings.save_best(layout, spec, best, found[best.trial])
    made = load_spec(layout.best_spec(), "tiny")
    assert made.agent.algorithm.lr == 1e-3
    assert made.meta.max_session == 4, "a search of single sessions; trained as the spec says"
    assert made.search is None
    assert made.meta.search_scheduler is None
    assert made.meta.max_trial is None
    assert Layout.open(layout.root) == layout, "it does not pass for the spec of the run"


def test_graphs(layout: Layout, search: Journal, found: findings.Found) -> None:
    findings.draw(layout, search, found, [LR, WIDTH], "CartPole-v1")
    names = {p.name for p in (layout.root / "graph").iterdir()}
    assert names == {
        "tiny_experiment_graph.png",
        "tiny_multi_trial_graph_mean_returns_vs_frames.png",
        "tiny_multi_trial_graph_mean_returns_ma_vs_frames.png",
    }
    assert names <= {p.name for p in layout.root.iterdir()}


def test_live_table(search: Journal) -> None:
    search.records[3].status = TrialStatus.RUNNING
    search.records[3].frame = 500
    console = Console(width=120, height=30, record=True)
    table = SearchTable(search, [LR, WIDTH], 8, 1000, live=False, console=console)
    console.print(table.render())
    text = console.export_text()
    lines = text.splitlines()
    assert lines[0].split() == ["trial", "lr", "hid_layers", "frames", "%", "ma", "status"]
    assert lines[1].split() == ["3", "0.1", "[16]", "500", "50", "20.0", "running"], "those that run come first"
    assert "4 of 8 trials, 1 stopped early, 1 crashed, best so far: trial 2, ma 90.0" in text


def test_live_table_fits_the_screen(search: Journal) -> None:
    console = Console(width=120, height=9, record=True)
    console.print(SearchTable(search, [LR], 5, 1000, live=False, console=console).render())
    assert "(1 more trial)" in console.export_text()


def test_time_that_is_left(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 frames in 10 s: half a trial that runs and two that are to come take 25 s more."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    journal.asked(0, {})
    table = SearchTable(journal, [], 3, 1000, live=False)
    assert table.seconds_left() is None
    now[0] = 5.0
    journal.records[0].frame = 500
    left = table.seconds_left()
    assert left is not None
    assert math.isclose(left, 25.0)


def test_lines_of_the_log() -> None:
    record = Record(7, {LR: 0.00123456}, TrialStatus.STOPPED, 600, 12.34)
    names = {LR: "lr"}
    assert describe(record, names) == "trial 7 stopped early at frame 600: ma 12.3  [lr 0.001235]"
    record = Record(7, {LR: 0.1}, TrialStatus.CRASHED, reason="no luck")
    assert describe(record, names) == "trial 7 crashed: no luck  [lr 0.1]"


@pytest.mark.parametrize("text", ["", "{}", '{"trials": [{"trial": 0}], "events": [], "scheduler": {}}'])
def test_damaged_journal(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal.json"
    path.write_text(text)
    with pytest.raises(LabError, match="not a journal of a search"):
        Journal.open(path)


def test_journal_round_trip(search: Journal) -> None:
    assert Journal.open(search.path) == search


def test_scalars_are_plain(found: findings.Found) -> None:
    scalars: dict[str, Any] = found[0]["scalar"]
    assert all(isinstance(value, int | float) for value in scalars.values())
