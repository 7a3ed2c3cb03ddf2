"""What a run folder holds at any stage of its run."""

import json

import numpy as np
import pytest
from support.runs import make_run

from slm_lab.agent.sinks import CsvSink, read_rows, read_table
from slm_lab.experiment.records.analysis import session_metrics
from slm_lab.experiment.records.history import SCALARS, describe, read_history, score
from slm_lab.lib.errors import LabError


def test_table_is_what_was_written(tmp_path):
    path = tmp_path / "t.csv"
    sink = CsvSink(path)
    rows = [{"frame": 10, "loss": None}, {"frame": 20, "loss": 1 / 3}]
    for row in rows:
        sink(row)
    table = read_table(path)
    assert table["frame"].tolist() == [10, 20]
    assert np.isnan(table["loss"][0])
    assert table["loss"][1] == read_rows(path)[1]["loss"] == 1 / 3


@pytest.mark.parametrize("text", ["", "frame,loss\n", "frame,lo"])
def test_table_without_a_row(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert read_table(path) == {}
    assert read_table(tmp_path / "nothing.csv") == {}


def test_table_that_was_cut(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("frame,loss\n10,1.5\n7\n20,2.5\n30,2.")
    assert read_table(path)["loss"].tolist() == [1.5, 2.5]


def test_long_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("frame\n" + "".join(f"{i}\n" for i in range(45_001)))
    assert read_table(path)["frame"].tolist() == list(range(45_001))


def test_damaged_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("frame,loss\n10,x\n")
    with pytest.raises(LabError, match=r"t.csv: damaged, it must hold a table of numbers \(could not convert"):
        read_table(path)


def test_finished_run(tmp_path):
    found = read_history(make_run(tmp_path))
    assert (found.env, found.algorithm, found.status, found.is_search) == ("CartPole-v1", "PPO", "completed", False)
    assert [(s.trial, s.index, s.frames) for s in found.judged] == [(0, 0, 200), (0, 1, 200)]
    assert found.missing == []


def test_what_is_missing_is_noted(tmp_path):
    layout = make_run(tmp_path, sessions=[[1.0], [2.0], [], [3.0]])
    layout.session_df(0, 3).write_text("frame\nx\n")
    layout.crash(0, 1).write_text("Traceback\n  ...\nValueError: NaN in the loss\n\n")
    layout.run_file().unlink()
    found = read_history(layout)
    assert [s.index for s in found.sessions] == [0, 1]
    assert [s.index for s in found.judged] == [0]
    told = "\n".join(found.missing)
    assert "run.json is missing" in told
    assert "s2_session_df_train.csv has no row" in told
    assert "s3_session_df_train.csv: damaged" in told
    assert "session 1 of trial 0 crashed: ValueError: NaN in the loss" in told


def test_fewer_sessions_than_wanted(tmp_path):
    layout = make_run(tmp_path, sessions=[[1.0], [2.0]])
    layout.session_df(0, 1).unlink()
    assert "1 of 2 sessions have a row" in read_history(layout).missing


def test_run_without_a_row(tmp_path):
    layout = make_run(tmp_path, sessions=[[]])
    with pytest.raises(LabError, match=r"no data yet \(.*s0_session_df_train.csv has no row"):
        read_history(layout)


def test_spec_that_cannot_be_read(tmp_path):
    layout = make_run(tmp_path)
    layout.spec().write_text("{")
    found = read_history(layout)
    assert (found.env, found.algorithm) == ("?", "?")
    assert found.missing == ["ppo_cartpole_spec.json can't be read"]


def test_spec_of_an_old_version(tmp_path):
    layout = make_run(tmp_path)
    old = {"agent": [{"name": "DQN", "algorithm": {"name": "DQN"}}], "env": [{"name": "CartPole-v0"}]}
    layout.spec().write_text(json.dumps({"ppo_cartpole": old}))
    found = read_history(layout)
    assert (found.env, found.algorithm) == ("CartPole-v1", "DQN")


def test_scores_are_those_of_the_analysis(tmp_path):
    rng = np.random.default_rng(0)
    returns = [None, *(30 + 10 * rng.standard_normal(250)).tolist()]
    layout = make_run(tmp_path, sessions=[returns])
    table = read_history(layout).sessions[0].train
    right = session_metrics(read_rows(layout.session_df(0, 0)), "CartPole-v1")["scalar"]
    for name in ("total_reward_ma", *SCALARS):
        assert score(table, name, env="CartPole-v1") == right[name], name
    assert score(table, "total_reward") == right["total_reward_ma"]


def test_score_at_a_frame(tmp_path):
    table = read_history(make_run(tmp_path, sessions=[[None, 10.0, 30.0, 90.0]])).sessions[0].train
    assert score(table, at=300) == 20
    assert score(table, at=399) == 20
    assert np.isnan(score(table, at=100))
    assert np.isnan(score(table, "strength", at=50))
    assert score(table, "loss", at=200) == pytest.approx((1 / 100 + 1 / 200) / 2)


def test_best_trial_of_a_search_counts(tmp_path):
    layout = make_run(tmp_path, sessions=[[10.0, 20.0]])
    for trial, returns in ((1, [50.0, 90.0]), (2, [80.0])):
        other = make_run(tmp_path / "other", sessions=[returns])
        layout.session_df(trial, 0).write_text(other.session_df(0, 0).read_text())
    layout.search_file().write_text("{}")
    assert [s.trial for s in read_history(layout).judged] == [1]  # trial 2 was stopped early
    rows = {t: {"trial": t, "strength": s, "status": "completed"} for t, s in ((0, 9.0), (1, 3.0))}
    layout.trial_data().write_text(json.dumps(rows))
    assert [s.trial for s in read_history(layout).judged] == [0]


def test_the_line_of_a_search_has_the_score_of_its_best_trial(tmp_path):
    layout = make_run(tmp_path, sessions=[[10.0, 20.0]])
    for trial, reached in ((0, 21.5), (1, 85.0)):
        layout.trial_scalar(trial).write_text(json.dumps({"total_reward_ma": reached, "frame": 200}))
    assert describe(layout).total_reward_ma == 21.5
    rows = {t: {"trial": t, "strength": s, "status": "completed"} for t, s in ((0, 3.0), (1, 9.0))}
    layout.trial_data().write_text(json.dumps(rows))
    assert describe(layout).total_reward_ma == 85


@pytest.mark.parametrize(("status", "told"), [("completed", (200, 15.0)), ("stopped", (300, 20.0))])
def test_the_line_of_an_extended_run_follows_its_tables(tmp_path, status, told):
    layout = make_run(tmp_path, sessions=[[10.0, 20.0, 30.0]], status=status)
    table = layout.session_df(0, 0)
    header, *rows = table.read_text().splitlines()
    averages = ["total_reward_ma", "10.0", "15.0", "20.0"]
    table.write_text("\n".join(f"{row},{ma}" for row, ma in zip([header, *rows], averages, strict=True)) + "\n")
    layout.trial_scalar(0).write_text(json.dumps({"total_reward_ma": 15.0, "frame": 200}))
    line = describe(layout)
    assert (line.frames, line.total_reward_ma) == told


def test_damage_of_all_kinds(tmp_path):
    layout = make_run(tmp_path, sessions=[[10.0, 20.0], [30.0]])
    info = layout.root / "info"
    with layout.session_df(0, 0).open("a") as file:
        file.write("30,0.1,,6,30,0.001,30\n")
    (info / "ppo_cartpole_tmp_s1_session_df_train.csv").write_text("frame\n1\n")
    (info / "ppo_cartpole_t0_s1_copy_session_df_train.csv").write_text("frame\n1\n")
    spec = json.loads(layout.spec().read_text())
    spec["ppo_cartpole"]["meta"]["max_session"] = "many"
    layout.spec().write_text(json.dumps(spec))
    layout.run_file().write_text("[]")
    layout.trial_data().write_text('{"0": {"strength": "high"}}')
    found = read_history(layout)
    assert [(s.index, s.frames) for s in found.sessions] == [(0, 200), (1, 100)]
    assert "run.json is missing" in "\n".join(found.missing)
    layout.search_file().write_text("{}")
    assert [s.trial for s in read_history(layout).judged] == [0, 0]


def test_score_without_optimizer_steps(tmp_path):
    table = read_history(make_run(tmp_path)).sessions[0].train
    del table["opt_step"]
    assert score(table, "strength", env="CartPole-v1") == pytest.approx(15 - 22.97)
