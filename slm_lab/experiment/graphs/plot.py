"""The graphs of sessions, trials and searches. matplotlib is imported only when something is drawn."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.graphs.draw import Line, draw, draw_points, floats
from slm_lab.experiment.records.curves import average, moving_average

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slm_lab.agent.metrics import Row
    from slm_lab.experiment.records.analysis import Metrics
    from slm_lab.lib.layout import Layout

    Floats = NDArray[np.float64]

LABELS = {
    "mean_returns": "total_reward, mean of the last 100 episodes",
    "mean_returns_ma": "total_reward, moving average over 100 rows",
    "strengths": "strength (total_reward above random)",
    "sample_efficiencies": "sample efficiency (1 / frame)",
    "training_efficiencies": "training efficiency (1 / optimizer step)",
    "stabilities": "stability",
    "consistencies": "consistency",
    "loss": "loss",
    "entropy": "entropy (nats)",
    "explore_var": "exploration (explore_var)",
    "frames": "frames",
    "frame": "frames",
    "opt_steps": "optimizer steps",
}
INTERVAL = "95 % bootstrap interval"
ALWAYS = ("mean_returns",)
"""Series of the metrics that are drawn in any case; the others with log_metrics. Each also as moving average."""
COLUMNS = ("loss", "entropy", "explore_var")
"""Columns of the table that are drawn where they hold a number."""


def plot_session(
    layout: "Layout",
    trial: int,
    session: int,
    rows: "Sequence[Row] | Path",
    metrics: "Metrics",
    *,
    env_name: str,
    log_metrics: bool = False,
    kind: str = "train",
) -> list[Path]:
    """Draw a session: mean_returns and its moving average, loss, entropy and explore_var where the table has them.

    Args:
        layout: of the run; its folders exist.
        trial: index.
        session: index.
        rows: rows of the tracker, or the CSV file.
        metrics: what analysis.session_metrics made of them.
        env_name: for the title.
        log_metrics: draw strengths, efficiencies and stabilities too.
        kind: train or eval.

    Returns:
        The files written; a graph without a point is left out.
    """
    if isinstance(rows, Path):
        rows = read_rows(rows)
    title = f"{layout.name} on {env_name}"
    note = f"trial {trial}, session {session}, {kind}"
    stem = f"{layout.s(trial, session)}_session_graph_{kind}"
    local = metrics["local"]
    written = []
    for name, x_name in _series(local, log_metrics):
        y, x = floats(local[name]), floats(local[x_name])
        for y_name, line in ((name, Line(x, y)), (f"{name}_ma", Line(x, moving_average(y), faint=[(x, y)]))):
            paths = [layout.graph(stem, y_name, x_name)]
            written += draw(paths, [line], title, note, _label(y_name), LABELS[x_name])
    frame = floats([r["frame"] for r in rows])
    for name in COLUMNS:
        y = floats([r.get(name) for r in rows])
        written += draw([layout.graph(stem, name, "frame")], [Line(frame, y)], title, note, LABELS[name], "frames")
    return written


def plot_trial(
    layout: "Layout", trial: int, metrics: "Metrics", *, env_name: str, log_metrics: bool = False
) -> list[Path]:
    """Draw a trial: mean over its sessions with its bootstrap interval, the sessions thin behind it.

    Args:
        layout: of the run; its folders exist.
        trial: index.
        metrics: what analysis.trial_metrics gave.
        env_name: for the title.
        log_metrics: draw strengths, efficiencies, stabilities and consistencies too.

    Returns:
        The files written: in graph/, and mean_returns and mean_returns_ma in the run folder too.
    """
    stem = f"{layout.t(trial)}_trial_graph"
    local = metrics["local"]
    sessions = len(local["mean_returns"])
    title = f"{layout.name} on {env_name}"
    note = f"trial {trial}, " + ("1 session" if sessions == 1 else f"{sessions} sessions: mean and {INTERVAL}")
    written = []
    for name, x_name in _series(local, log_metrics):
        y, x = np.atleast_2d(floats(local[name])), floats(local[x_name])
        averages = np.array([moving_average(one) for one in y])
        for y_name, values in ((name, y), (f"{name}_ma", averages)):
            tops = (False, True) if name in ALWAYS else (False,)
            paths = [layout.graph(stem, y_name, x_name, top=top) for top in tops]
            written += draw(paths, [_mean_line(x, values)], title, note, _label(y_name), LABELS[x_name])
    return written


def plot_experiment(
    layout: "Layout",
    points: Mapping[str, Sequence[Any]],
    scores: Sequence[Mapping[str, float]],
    early: Sequence[bool],
    *,
    env_name: str,
) -> list[Path]:
    """Draw what a search found: each searched key against total_reward_ma and strength, a point a trial.

    Args:
        layout: of the run; its folders exist.
        points: key path -> its value in each trial. What is no number has a place of its own for each value.
        scores: scalar metrics of each trial.
        early: of each trial, whether it was stopped early: it has been judged by fewer frames, and is drawn hollow.
        env_name: for the title.

    Returns:
        The files written.
    """
    hollow = ", hollow: stopped early" if any(early) else ""
    title = f"{layout.name} on {env_name}: {len(scores)} trials{hollow}"
    written = [layout.experiment_graph("experiment_graph", top=top) for top in (False, True)]
    drawn = {name: [score[name] for score in scores] for name in ("total_reward_ma", "strength")}
    draw_points(written, points, drawn, early, title)
    return written


def plot_trials(
    layout: "Layout", locals_: Sequence[Mapping[str, Any]], labels: Sequence[str], *, env_name: str
) -> list[Path]:
    """Draw trials of a search into one graph: mean_returns and its moving average over frames.

    Args:
        layout: of the run; its folders exist.
        locals_: series of each trial, as analysis.trial_metrics gives them.
        labels: one a trial.
        env_name: for the title.

    Returns:
        The files written, each in graph/ and in the run folder.
    """
    written = []
    for suffix in ("", "_ma"):
        lines = []
        for local, label in zip(locals_, labels, strict=True):
            y = np.atleast_2d(floats(local["mean_returns"]))
            values = np.array([moving_average(one) for one in y]) if suffix else y
            lines.append(_mean_line(floats(local["frames"]), values, label, faint=False))
        name = f"multi_trial_graph_mean_returns{suffix}_vs_frames"
        paths = [layout.experiment_graph(name, top=top) for top in (False, True)]
        title, note = f"{layout.name} on {env_name}", f"the {len(lines)} best trials"
        written += draw(paths, lines, title, note, _label(f"mean_returns{suffix}"), LABELS["frames"])
    return written


def _series(local: dict[str, Any], log_metrics: bool) -> Iterator[tuple[str, str]]:
    for name in local:
        if name in ALWAYS or (log_metrics and name not in ("frames", "opt_steps")):
            yield name, "opt_steps" if name == "training_efficiencies" else "frames"


def _mean_line(x: "Floats", values: "Floats", label: str = "", faint: bool = True) -> Line:
    """The mean of J sessions, values [J, N], with its interval where there are several."""
    curve = average([x] * len(values), list(values))
    if len(values) == 1:
        return Line(curve.x, curve.mean, label=label)
    sessions = [(x, one) for one in values] if faint else ()
    return Line(curve.x, curve.mean, (curve.low, curve.high), sessions, label)


def _label(name: str) -> str:
    return LABELS.get(name) or f"{LABELS[name.removesuffix('_ma')]}, moving average"
