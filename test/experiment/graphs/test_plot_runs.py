"""Runs compared in one file."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from support.runs import make_run

from slm_lab.experiment.graphs import draw
from slm_lab.experiment.graphs.plot import plot
from slm_lab.lib.errors import LabError


@pytest.fixture
def figures(monkeypatch):
    saved = {}

    def keep(figure, paths):
        for path in paths:
            saved[path] = figure
            path.write_bytes(b"")

    monkeypatch.setattr(draw, "save", keep)
    return saved


def folders(*layouts):
    return [layout.root for layout in layouts]


def test_methods_in_one_env(tmp_path, figures):
    a = make_run(tmp_path, "ppo", [[None, 20.0], [30.0, 40.0]])
    b = make_run(tmp_path, "a2c", [[1.0, 3.0]])
    output = tmp_path / "new" / "compare.png"
    found = plot(folders(a, b), title="CartPole", labels=["PPO", "A2C"], output=output)
    assert found == output
    axes = figures[output].axes[0]
    first, second = axes.get_lines()
    assert list(first.get_xdata()) == [200]  # what both sessions know
    assert list(first.get_ydata()) == [27.5]
    assert list(second.get_ydata()) == [1, 2]
    assert axes.get_title(loc="left") == "CartPole"
    assert [t.get_text() for t in figures[output].legends[0].get_texts()] == ["PPO (2 sessions)", "A2C (1 session)"]
    assert "95 % bootstrap interval" in axes.texts[0].get_text()


def test_runs_of_one_spec_are_one_curve(tmp_path, figures):
    runs = [make_run(tmp_path, sessions=[[float(i), float(i)]]) for i in range(3)]
    plot(folders(*runs), output=tmp_path / "c.svg")
    (line,) = figures[tmp_path / "c.svg"].axes[0].get_lines()
    assert list(line.get_ydata()) == [1, 1]
    assert line.get_label() == "ppo_cartpole (3 sessions)"


def test_envs_are_a_grid(tmp_path, figures):
    runs = [
        make_run(tmp_path, f"r{i}", [[1.0, 2.0]], env=f"Nobody-v{i}", agent=a) for i in range(4) for a in ("PPO", "DQN")
    ]
    plot(folders(*runs), output=tmp_path / "c.pdf")
    figure = figures[tmp_path / "c.pdf"]
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [f"Nobody-v{i}" for i in range(4)]
    assert all(len(axes.get_lines()) == 2 for axes in shown)
    colours = [[line.get_color() for line in axes.get_lines()] for axes in shown]
    assert colours == [colours[0]] * 4
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["PPO", "DQN"]
    assert "1 session, no interval" in figure.get_suptitle()


def test_metric_and_axis(tmp_path, figures):
    run = make_run(tmp_path, sessions=[[1.0, 2.0]])
    plot(folders(run), metric="loss", x="time", output=tmp_path / "c.png")
    axes = figures[tmp_path / "c.png"].axes[0]
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [2, 4]
    assert list(line.get_ydata()) == pytest.approx([1 / 100, 1 / 200])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("wall time (s)", "loss")


def test_run_that_was_stopped(tmp_path, figures):
    run = make_run(tmp_path, sessions=[[1.0, 2.0, 3.0], [1.0]], status="stopped")
    plot(folders(run), output=tmp_path / "c.png")
    assert np.isfinite(figures[tmp_path / "c.png"].axes[0].get_lines()[0].get_ydata()).all()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_real_files(tmp_path, suffix):
    run = make_run(tmp_path)
    assert plot(folders(run), output=tmp_path / f"c{suffix}").stat().st_size > 1000


def test_names_are_no_formulas(tmp_path):
    runs = [make_run(tmp_path, name) for name in ("a", "b")]
    output = tmp_path / "c.svg"
    plot(folders(*runs), output=output, title="$\\frac$ of $", labels=["$x^$", "$_$"])
    assert "<!-- $x^$ (2 sessions) -->" in output.read_text()


def test_file_stays_whole(tmp_path, monkeypatch):
    output = tmp_path / "c.png"
    output.write_bytes(b"old")

    def fail(figure, file, **_):
        file.write(b"half")
        raise RuntimeError

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(RuntimeError):
        plot(folders(make_run(tmp_path)), output=output)
    assert output.read_bytes() == b"old"
    assert list(tmp_path.glob(".c*")) == []


def test_faults(tmp_path):
    run = make_run(tmp_path)
    out = tmp_path / "c.png"
    for options, told in (
        ({"labels": ["a", "b"]}, "1 runs, but 2 labels"),
        ({"metric": "los"}, "metric 'los' is not known, did you mean 'loss'"),
        ({"metric": "strength"}, "metric 'strength' is not known"),
        ({"x": "days"}, r"no axis 'days' \(known: frames, time\)"),
        ({"output": tmp_path / "c.xyz"}, r"can't write c.xyz \(known: .png, .svg, .pdf\)"),
        ({"output": run.spec() / "c.png"}, r"c.png can't be written: "),
    ):
        with pytest.raises(LabError, match=told):
            plot(folders(run), **{"output": out, **options})
    empty = make_run(tmp_path, "sac", [[None, None]])
    with pytest.raises(LabError, match="no run has a value of total_reward, nothing to draw"):
        plot(folders(empty), output=out)
    assert not out.exists()
