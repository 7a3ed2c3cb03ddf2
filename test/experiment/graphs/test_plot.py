"""Graphs: which files are drawn, from what, and what they show."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from support.runs import make_run

from slm_lab.experiment.graphs import draw, plot
from slm_lab.experiment.records import analysis
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

    def keep(figure, paths):
        for path in paths:
            saved[path] = figure
            path.write_bytes(b"")

    monkeypatch.setattr(draw, "save", keep)
    return saved


def names(paths):
    return [p.name for p in paths]


def lines(figure):
    return figure.axes[0].get_lines()


def test_a_real_png(layout):
    rows = make_rows([10.0, 20.0])
    paths = plot.Graphs(layout, "CartPole-v1").session(0, 0, rows, analysis.session_metrics(rows, "CartPole-v1"))
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)
    assert sorted(paths) == sorted((layout.root / "graph").iterdir())


def test_session_graphs(layout, figures):
    rows = make_rows([None, 10.0, 20.0], entropy=0.5, explore_var=None)
    metrics = analysis.session_metrics(rows, "CartPole-v1")
    paths = plot.Graphs(layout, "CartPole-v1").session(0, 1, rows, metrics)
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
    paths = plot.Graphs(layout, "x", log_metrics=True).session(0, 0, rows, metrics, "eval")
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
    paths = plot.Graphs(layout, "Nobody-v0").trial(0, trial)
    for y in ("mean_returns", "mean_returns_ma"):
        assert layout.root / "graph" / f"ppo_t0_trial_graph_{y}_vs_frames.png" in paths
        assert layout.root / f"ppo_t0_trial_graph_{y}_vs_frames.png" in paths
    assert len(paths) == 4
    figure = figures[paths[0]]
    *sessions_drawn, mean = lines(figure)
    assert [list(line.get_ydata()) for line in sessions_drawn] == [[10.0, 20.0], [30.0, 20.0]]
    assert list(mean.get_ydata()) == [20.0, 20.0]
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    # resampled means of 10 and 30 reach from one to the other
    assert (band.min(), band.max()) == (10, 30)
    assert "2 sessions: mean and 95 % bootstrap interval" in figure.axes[0].texts[0].get_text()


def test_trial_with_log_metrics(layout, figures):
    sessions = [analysis.session_metrics(make_rows(r), "Nobody-v0") for r in ([10.0, 20.0], [30.0, 20.0])]
    paths = plot.Graphs(layout, "x", log_metrics=True).trial(0, analysis.trial_metrics(sessions))
    assert "ppo_t0_trial_graph_consistencies_vs_frames.png" in names(paths)
    assert "ppo_t0_trial_graph_training_efficiencies_ma_vs_opt_steps.png" in names(paths)


def test_one_session_has_no_band(layout, figures):
    trial = analysis.trial_metrics([analysis.session_metrics(make_rows([10.0]), "Nobody-v0")])
    paths = plot.Graphs(layout, "x").trial(0, trial)
    figure = figures[paths[0]]
    assert not figure.axes[0].collections
    # a single point is drawn as a dot, or it could not be seen
    assert lines(figure)[0].get_marker() == "o"


@pytest.mark.parametrize("rewards", [[], [None, None]])
def test_nothing_to_draw(layout, rewards):
    rows = [{**row, "loss": None} for row in make_rows(rewards)]
    metrics = analysis.session_metrics(rows, "CartPole-v1")
    assert plot.Graphs(layout, "x", log_metrics=True).session(0, 0, rows, metrics) == []
    assert plot.Graphs(layout, "x", log_metrics=True).trial(0, analysis.trial_metrics([metrics, metrics])) == []


@pytest.mark.parametrize(
    "points",
    [
        {"lr": [1.1e-3, 2.3e-3, 4.7e-3, 9.9e-3], "gamma": [0.9, 0.99, 0.999, 0.9999]},
        {"agent.net.hid_layers": [[64, 64], [256, 256, 256], [32], [400, 300]] * 2, "lr": [10.0**-k for k in range(8)]},
        {f"key_{i}": [f"a long value {k} of {i}" for k in range(12)] for i in range(4)},
        {"one": [1.0, 1.0], "same": ["a", "a"]},
        {"big": [1e6, 5e6, 9e6, 1.3e7]},
    ],
)
def test_tick_labels_of_a_search_never_overlap(layout, points):
    trials = len(next(iter(points.values())))
    scores = [{"total_reward_ma": 10.0 * i, "strength": 3.0 * i} for i in range(trials)]
    figure = None

    def keep(self, paths):
        nonlocal figure
        figure = self
        for path in paths:
            path.write_bytes(b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "save", keep)
        plot.Graphs(layout, "CartPole-v1").experiment(points, scores, [False] * trials)
    figure.draw_without_rendering()
    for axes in figure.axes:
        shown = [x for x in axes.get_xticklabels(which="both") if x.get_visible() and x.get_text()]
        low, high = axes.bbox.x0 - 1, axes.bbox.x1 + 1
        places = [(axes.transData.transform(x.get_position())[0], x) for x in shown]
        shown = [x for place, x in sorted(places, key=lambda pair: pair[0]) if low <= place <= high]
        assert shown
        for a, b in itertools.pairwise(shown):
            one, other = a.get_window_extent(), b.get_window_extent()
            if a.get_rotation() == 30:  # boxes of slanted labels overlap where the labels do not
                assert other.x1 - one.x1 > 10
            else:
                assert not one.overlaps(other), (a.get_text(), b.get_text())


def test_import_is_cheap_and_pyplot_is_never_loaded(tmp_path):
    run = make_run(tmp_path, sessions=[[1.0, 2.0]])
    code = (
        "import sys; from slm_lab.experiment.graphs.plot import plot;"
        "print('matplotlib' in sys.modules);"
        f"plot({str(run.root)!r}, {str(tmp_path / 'c.png')!r});"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\nFalse\n"
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
