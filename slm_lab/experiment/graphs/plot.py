"""The graphs of sessions, trials, searches, and of several runs. matplotlib is imported only when one is drawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from slm_lab.agent.metrics import Row
from slm_lab.experiment.graphs.draw import Line, draw_panels, draw_points, floats
from slm_lab.experiment.records.analysis import Metrics
from slm_lab.experiment.records.curves import average, moving_average
from slm_lab.experiment.records.history import Session, Targets, check_metric, read_histories
from slm_lab.experiment.records.methods import group
from slm_lab.experiment.records.statistics import Floats
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout

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
PLOTS = (".png", ".svg", ".pdf")
"""Kinds of file, by suffix."""
CLOCKS = {"frames": ("frame", "frames"), "time": ("wall_t", "wall time (s)")}
"""Horizontal axes: name -> column and label."""


@dataclass(frozen=True)
class Graphs:
    """Draws what is known of a run. Each method gives the files that it wrote; a graph without a point is left out."""

    layout: Layout
    """Its folders exist."""
    env_name: str
    """For the titles."""
    log_metrics: bool = False
    """Whether strengths, efficiencies, stabilities and consistencies are drawn too."""

    @property
    def title(self) -> str:
        """What is drawn."""
        return f"{self.layout.name} on {self.env_name}"

    def session(
        self, trial: int, session: int, rows: Sequence[Row], metrics: Metrics, kind: str = "train"
    ) -> list[Path]:
        """A session: mean_returns and its moving average, loss, entropy and explore_var where its rows have them.

        The metrics are what `analysis.session_metrics` made of the rows; the kind is train or eval.
        """
        note = f"trial {trial}, session {session}, {kind}"
        stem = f"{self.layout.s(trial, session)}_session_graph_{kind}"
        frame = floats([r["frame"] for r in rows])
        lines = [(name, x_name, Line(x, y, faint=faint)) for name, x_name, x, y, faint in self._series(metrics)]
        lines += [(name, "frame", Line(frame, floats([r.get(name) for r in rows]))) for name in COLUMNS]
        written = []
        for y_name, x_name, line in lines:
            paths = [self.layout.graph(stem, y_name, x_name)]
            written += draw_panels(paths, {"": [line]}, self.title, note, _label(y_name), LABELS[x_name])
        return written

    def trial(self, trial: int, metrics: Metrics) -> list[Path]:
        """A trial: the mean over its sessions with its bootstrap interval, the sessions thin behind it.

        mean_returns and mean_returns_ma go into graph/ and into the run folder too.
        """
        stem = f"{self.layout.t(trial)}_trial_graph"
        sessions = len(metrics["local"]["mean_returns"])
        note = f"trial {trial}, " + ("1 session" if sessions == 1 else f"{sessions} sessions: mean and {INTERVAL}")
        written = []
        for y_name, x_name, x, y, _ in self._series(metrics):
            tops = (False, True) if y_name.removesuffix("_ma") in ALWAYS else (False,)
            paths = [self.layout.graph(stem, y_name, x_name, top=top) for top in tops]
            values = np.atleast_2d(y)
            line = _mean_line([x] * len(values), list(values), faint=True)
            written += draw_panels(paths, {"": [line]}, self.title, note, _label(y_name), LABELS[x_name])
        return written

    def experiment(
        self, points: Mapping[str, Sequence[Any]], scores: Sequence[Mapping[str, float]], early: Sequence[bool]
    ) -> list[Path]:
        """What a search found: each searched key against total_reward_ma and strength, one point per trial.

        Args:
            points: key path -> its value in each trial. What is no number has a place of its own for each value.
            scores: scalar metrics of each trial.
            early: of each trial, whether it was stopped early: it is scored after fewer frames, and is drawn hollow.
        """
        title = f"{self.title}: {len(scores)} trials{', hollow: stopped early' if any(early) else ''}"
        written = [self.layout.experiment_graph("experiment_graph", top=top) for top in (False, True)]
        drawn = {name: [score[name] for score in scores] for name in ("total_reward_ma", "strength")}
        draw_points(written, points, drawn, early, title)
        return written

    def trials(self, locals_: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[Path]:
        """Trials of a search in one graph, from the series of each: mean_returns and its moving average over frames."""
        written = []
        for name in ("mean_returns", "mean_returns_ma"):
            lines = []
            for local, label in zip(locals_, labels, strict=True):
                returns = np.atleast_2d(floats(local["mean_returns"]))
                values = moving_average(returns) if name.endswith("_ma") else returns
                lines.append(_mean_line([floats(local["frames"])] * len(values), list(values), label))
            stem = f"multi_trial_graph_{name}_vs_frames"
            paths = [self.layout.experiment_graph(stem, top=top) for top in (False, True)]
            note = f"the {len(lines)} best trials"
            written += draw_panels(paths, {"": lines}, self.title, note, _label(name), LABELS["frames"])
        return written

    def _series(self, metrics: Metrics) -> Iterator[tuple[str, str, Floats, Floats, list[tuple[Floats, Floats]]]]:
        """What is drawn of metrics: names of y and x, x, y; of a moving average also what it averages."""
        local = metrics["local"]
        for name in local:
            if name in ALWAYS or (self.log_metrics and name not in ("frames", "opt_steps")):
                x_name = "opt_steps" if name == "training_efficiencies" else "frames"
                x, y = floats(local[x_name]), floats(local[name])
                yield name, x_name, x, y, []
                yield f"{name}_ma", x_name, x, moving_average(y), [(x, y)]


def _label(name: str) -> str:
    return LABELS.get(name) or f"{LABELS[name.removesuffix('_ma')]}, moving average"


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
    return _mean_line(xs, ys), len(xs)


def _mean_line(xs: list[Floats], ys: list[Floats], label: str = "", *, faint: bool = False) -> Line:
    """The mean of J sessions, [N_j] each, with its interval where there are several; faint: they are drawn too."""
    curve = average(xs, ys)
    if len(xs) < 2:
        return Line(curve.x, curve.mean, label=label)
    return Line(curve.x, curve.mean, (curve.low, curve.high), list(zip(xs, ys, strict=True)) if faint else (), label)
