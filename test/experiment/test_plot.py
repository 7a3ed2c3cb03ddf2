"""Graphs: which files are drawn, from what, and what they show."""

import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from slm_lab.experiment import analysis, plot
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout


def make_rows(rewards, **columns):
    return [
        {"total_reward": r, "loss": 1.0 / (i + 1), "frame": 100 * (i + 1), "opt_step": 10 * (i + 1), **columns}
        for i, r in enumerate(rewards)
    ]


@pytest.fixture
def layout(tmp_path):
    layout = Layout.new(tmp_path, "ppo")
    layout.make_folders()
    return layout


@pytest.fixture
def figures(monkeypatch):
    """Figures in the order they were saved; nothing is drawn, which saves a second a test."""
    saved = {}

    def keep(figure, path, **_):
        saved[path] = figure
        path.write_bytes(b"")

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def names(paths):
    return [p.name for p in paths]


def lines(figure):
    return figure.axes[0].get_lines()


def test_a_real_png(layout):
    rows = make_rows([10.0, 20.0])
    paths = plot.plot_session(layout, 0, 0, rows, analysis.session_metrics(rows, "CartPole-v1"), env_name="CartPole-v1")
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)
    assert sorted(paths) == sorted((layout.root / "graph").iterdir())


def test_session_graphs(layout, figures):
    rows = make_rows([None, 10.0, 20.0], entropy=0.5, explore_var=None)
    metrics = analysis.session_metrics(rows, "CartPole-v1")
    paths = plot.plot_session(layout, 0, 1, rows, metrics, env_name="CartPole-v1")
    stem = "ppo_t0_s1_session_graph_train_"
    assert names(paths) == [
        stem + "mean_returns_vs_frames.png",
        stem + "mean_returns_ma_vs_frames.png",
        stem + "loss_vs_frame.png",
        stem + "entropy_vs_frame.png",
    ]
    assert np.array_equal(lines(figures[paths[0]])[0].get_ydata(), [math.nan, 10.0, 20.0], equal_nan=True)
    assert lines(figures[paths[1]])[-1].get_ydata()[-1] == 15.0
    axes = figures[paths[2]].axes[0]
    assert axes.get_title(loc="left") == "ppo on CartPole-v1"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("frames", "loss")


def test_log_metrics_draws_the_rest(layout, figures):
    rows = make_rows([30.0, 40.0, 35.0])
    metrics = analysis.session_metrics(rows, "CartPole-v1")
    paths = plot.plot_session(layout, 0, 0, rows, metrics, env_name="x", log_metrics=True, kind="eval")
    stem = "ppo_t0_s0_session_graph_eval_"
    for y, x in (
        ("strengths", "frames"),
        ("sample_efficiencies_ma", "frames"),
        ("training_efficiencies", "opt_steps"),
        ("stabilities", "frames"),
    ):
        assert f"{stem}{y}_vs_{x}.png" in names(paths)
    by_name = {p.name: figure for p, figure in figures.items()}
    figure = by_name[stem + "training_efficiencies_vs_opt_steps.png"]
    assert list(lines(figure)[0].get_xdata()) == [10, 20, 30]


def test_trial_graphs(layout, figures):
    sessions = [analysis.session_metrics(make_rows(r), "Nobody-v0") for r in ([10.0, 20.0], [30.0, 20.0])]
    trial = analysis.trial_metrics(sessions)
    paths = plot.plot_trial(layout, 0, trial, env_name="Nobody-v0")
    for y in ("mean_returns", "mean_returns_ma"):
        assert layout.root / "graph" / f"ppo_t0_trial_graph_{y}_vs_frames.png" in paths
        assert layout.root / f"ppo_t0_trial_graph_{y}_vs_frames.png" in paths
    assert len(paths) == 4
    figure = figures[paths[0]]
    *sessions_drawn, mean = lines(figure)
    assert [list(line.get_ydata()) for line in sessions_drawn] == [[10.0, 20.0], [30.0, 20.0]]
    assert list(mean.get_ydata()) == [20.0, 20.0]
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((20 - math.sqrt(200), 20 + math.sqrt(200)))


def test_trial_with_log_metrics(layout, figures):
    sessions = [analysis.session_metrics(make_rows(r), "Nobody-v0") for r in ([10.0, 20.0], [30.0, 20.0])]
    paths = plot.plot_trial(layout, 0, analysis.trial_metrics(sessions), env_name="x", log_metrics=True)
    assert "ppo_t0_trial_graph_consistencies_vs_frames.png" in names(paths)
    assert "ppo_t0_trial_graph_training_efficiencies_ma_vs_opt_steps.png" in names(paths)


def test_one_session_has_no_band(layout, figures):
    trial = analysis.trial_metrics([analysis.session_metrics(make_rows([10.0]), "Nobody-v0")])
    paths = plot.plot_trial(layout, 0, trial, env_name="x")
    figure = figures[paths[0]]
    assert not figure.axes[0].collections
    # a single point is drawn as a dot, or it could not be seen
    assert lines(figure)[0].get_marker() == "o"


@pytest.mark.parametrize("rewards", [[], [None, None]])
def test_nothing_to_draw(layout, rewards):
    rows = [{**row, "loss": None} for row in make_rows(rewards)]
    metrics = analysis.session_metrics(rows, "CartPole-v1")
    assert plot.plot_session(layout, 0, 0, rows, metrics, env_name="x", log_metrics=True) == []
    assert plot.plot_trial(layout, 0, analysis.trial_metrics([metrics, metrics]), env_name="x", log_metrics=True) == []


def make_run(folder, name, rewards):
    layout = Layout.new(folder, name)
    layout.make_folders()
    sessions = [analysis.save_session(layout, 0, i, make_rows(r), "Nobody-v0") for i, r in enumerate(rewards)]
    analysis.save_trial(layout, 0, sessions)
    return layout.root


def test_comparison_of_runs(tmp_path, figures):
    a = make_run(tmp_path, "ppo", [[None, 20.0], [30.0, 40.0]])
    b = make_run(tmp_path, "a2c", [[1.0, 3.0]])
    output = tmp_path / "new" / "compare.png"
    assert plot.plot_runs([a, b], title="CartPole", legends=["PPO", "A2C"], output=output) == output
    first, second = lines(figures[output])
    assert [first.get_label(), second.get_label()] == ["PPO", "A2C"]
    assert list(first.get_ydata()) == [30.0, 27.5]
    assert list(second.get_ydata()) == [1.0, 2.0]
    assert figures[output].axes[0].get_title(loc="left") == "CartPole"
    assert [t.get_text() for t in figures[output].legends[0].get_texts()] == ["PPO", "A2C"]


def test_comparison_names_the_runs_by_their_folders(tmp_path, figures):
    a = make_run(tmp_path, "ppo", [[1.0]])
    plot.plot_runs([a], output=tmp_path / "c.png")
    assert lines(figures[tmp_path / "c.png"])[0].get_label() == a.name


def test_comparison_faults(tmp_path):
    run = make_run(tmp_path, "ppo", [[1.0]])
    out = tmp_path / "c.png"
    with pytest.raises(LabError, match="1 run folders, but 2 legends"):
        plot.plot_runs([run], legends=["a", "b"], output=out)
    with pytest.raises(LabError, match=r"nowhere: no such folder"):
        plot.plot_runs([tmp_path / "nowhere"], output=out)
    with pytest.raises(LabError, match=r"no info/\*_t0_trial_metrics.json"):
        plot.plot_runs([tmp_path], output=out)
    with pytest.raises(LabError, match="no run folder"):
        plot.plot_runs([], output=out)
    with pytest.raises(LabError, match=r"can't write c.xyz \(known: .png, .svg, .pdf\)"):
        plot.plot_runs([run], output=tmp_path / "c.xyz")
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"file/c.png can't be written: "):
        plot.plot_runs([run], output=tmp_path / "file" / "c.png")
    empty = make_run(tmp_path, "sac", [[None]])
    with pytest.raises(LabError, match="nothing to draw"):
        plot.plot_runs([empty], output=out)
    for damaged in ("{", "{}"):
        (empty / "info" / "sac_t0_trial_metrics.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(LabError, match=r"trial_metrics.json: damaged, it holds no"):
            plot.plot_runs([empty], output=out)
    assert not out.exists()


def test_import_is_cheap_and_pyplot_is_never_loaded(tmp_path):
    run = make_run(tmp_path, "ppo", [[1.0, 2.0]])
    code = (
        "import sys; from pathlib import Path; from slm_lab.experiment import plot;"
        "print('matplotlib' in sys.modules);"
        f"plot.plot_runs([Path({str(run)!r})], output=Path({str(tmp_path / 'c.png')!r}));"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\nFalse\n"
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
