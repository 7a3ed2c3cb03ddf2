"""Runs compared in one file: a curve a method with its interval, a graph an env."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from slm_lab.experiment.graphs.draw import Line, draw_panels
from slm_lab.experiment.graphs.plot import INTERVAL, LABELS
from slm_lab.experiment.records.compare import group
from slm_lab.experiment.records.curves import average, moving_average
from slm_lab.experiment.records.history import Session, Targets, check_metric, read_histories
from slm_lab.lib.errors import LabError

PLOTS = (".png", ".svg", ".pdf")
"""Kinds of file, by suffix."""
CLOCKS = {"frames": ("frame", "frames"), "time": ("wall_t", "wall time (s)")}
"""Horizontal axes: name -> column and label."""


def plot(
    targets: Targets,
    output: str | Path,
    *,
    out: str | Path = "data",
    metric: str = "total_reward",
    x: str = "frames",
    title: str | None = None,
    labels: Sequence[str] | None = None,
    told: Callable[[str], object] = lambda note: None,
) -> Path:
    """Draw runs into a .png, .svg or .pdf: a curve a method with its 95 % interval, a graph an env; gives the file.

    Args:
        targets: a run folder or several, or `latest` of `out`; runs of one spec are seeds of one method, and a search
            counts with its best trial.
        output: the file; its folder is made.
        out: folder of the run folders.
        metric: a column of the tables; `total_reward` is drawn as its moving average.
        x: `frames` or `time`.
        title: above the graph.
        labels: one a run; None: by their specs.
        told: called with what is to be said of each run that has no row, and is left out.

    Raises:
        LabError: no such run or column, nothing to draw, not as many labels as runs, a file that can't be written.
    """
    histories, left_out = read_histories(targets, out, strict=labels is not None)
    output = Path(output)
    if output.suffix.lower() not in PLOTS:
        raise LabError(f"plot: can't write {output.name} (known: {', '.join(PLOTS)})")
    if x not in CLOCKS:
        raise LabError(f"plot: no axis '{x}' (known: {', '.join(CLOCKS)})")
    check_metric(metric, histories)
    clock, xlabel = CLOCKS[x]
    methods = group(histories, labels)
    several = len({env for env, _ in methods}) > 1
    panels: dict[str, list[Line]] = {}
    counts = []
    for (env, label), found in methods.items():
        line, count = _line([s for h in found for s in h.judged], metric, clock)
        # a label is a colour in all graphs, so it can't hold what differs between them
        name = label if several else f"{label} ({_sessions(count, count)})"
        panels.setdefault(env, []).append(replace(line, label=name))
        counts.append(count)
    head = title if title is not None else ("Comparison of runs" if several else f"Runs on {next(iter(panels))}")
    note = f"mean over sessions and {INTERVAL}" if max(counts) > 1 else "1 session, no interval"
    note += f", {_sessions(min(counts), max(counts))} each" if several and max(counts) > 1 else ""
    shown = panels if several else {"": next(iter(panels.values()))}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        drawn = draw_panels([output], shown, head, note, _ylabel(metric, several), xlabel)
    except OSError as e:
        raise LabError(f"plot: {output} can't be written: {e.strerror}") from e
    if not drawn:
        raise LabError(f"plot: no run has a value of {metric}, nothing to draw")
    for note in left_out:
        told(note)
    return output


def _ylabel(metric: str, several: bool) -> str:
    if metric not in ("total_reward", "total_reward_ma"):
        return LABELS.get(metric, metric)
    return "total_reward, moving average" if several else LABELS["mean_returns_ma"]


def _sessions(low: int, high: int) -> str:
    count = str(low) if low == high else f"{low} to {high}"
    return f"{count} session" if high == 1 else f"{count} sessions"


def _line(sessions: Sequence[Session], metric: str, clock: str) -> tuple[Line, int]:
    """The mean of the sessions that know the metric, and how many do."""
    xs, ys = [], []
    for session in sessions:
        column = session.train.get("total_reward" if metric == "total_reward_ma" else metric)
        if column is None or clock not in session.train or not np.isfinite(column).any():
            continue
        xs.append(session.train[clock])
        ys.append(moving_average(column) if metric.startswith("total_reward") else column)
    curve = average(xs, ys)
    return Line(curve.x, curve.mean, (curve.low, curve.high) if len(xs) > 1 else None), len(xs)
