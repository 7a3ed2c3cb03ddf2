"""The graphs of sessions, trials and searches. matplotlib is imported only when something is drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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


@dataclass(frozen=True)
class Graphs:
    """Draws what is known of a run. Each method gives the files that it wrote; a graph without a point is left out."""

    layout: "Layout"
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
        self, trial: int, session: int, rows: "Sequence[Row]", metrics: "Metrics", kind: str = "train"
    ) -> list[Path]:
        """A session: mean_returns and its moving average, loss, entropy and explore_var where the table has them.

        Args:
            trial: index.
            session: index.
            rows: of its table.
            metrics: what `analysis.session_metrics` made of them.
            kind: train or eval.
        """
        note = f"trial {trial}, session {session}, {kind}"
        stem = f"{self.layout.s(trial, session)}_session_graph_{kind}"
        written = []
        for name, x_name, y, x in self._series(metrics):
            for y_name, line in ((name, Line(x, y)), (f"{name}_ma", Line(x, moving_average(y), faint=[(x, y)]))):
                paths = [self.layout.graph(stem, y_name, x_name)]
                written += draw(paths, [line], self.title, note, _label(y_name), LABELS[x_name])
        frame = floats([r["frame"] for r in rows])
        for name in COLUMNS:
            line, paths = Line(frame, floats([r.get(name) for r in rows])), [self.layout.graph(stem, name, "frame")]
            written += draw(paths, [line], self.title, note, LABELS[name], "frames")
        return written

    def trial(self, trial: int, metrics: "Metrics") -> list[Path]:
        """A trial: the mean over its sessions with its bootstrap interval, the sessions thin behind it.

        mean_returns and mean_returns_ma go into graph/ and into the run folder too.

        Args:
            trial: index.
            metrics: what `analysis.trial_metrics` gave.
        """
        stem = f"{self.layout.t(trial)}_trial_graph"
        sessions = len(metrics["local"]["mean_returns"])
        note = f"trial {trial}, " + ("1 session" if sessions == 1 else f"{sessions} sessions: mean and {INTERVAL}")
        written = []
        for name, x_name, values, x in self._series(metrics):
            y = np.atleast_2d(values)
            averages = np.array([moving_average(one) for one in y])
            for y_name, drawn in ((name, y), (f"{name}_ma", averages)):
                tops = (False, True) if name in ALWAYS else (False,)
                paths = [self.layout.graph(stem, y_name, x_name, top=top) for top in tops]
                written += draw(paths, [_mean_line(x, drawn)], self.title, note, _label(y_name), LABELS[x_name])
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
        """Trials of a search in one graph: mean_returns and its moving average over frames.

        Args:
            locals_: series of each trial, as `analysis.trial_metrics` gives them.
            labels: one a trial.
        """
        written = []
        for suffix in ("", "_ma"):
            lines = []
            for local, label in zip(locals_, labels, strict=True):
                y = np.atleast_2d(floats(local["mean_returns"]))
                values = np.array([moving_average(one) for one in y]) if suffix else y
                lines.append(_mean_line(floats(local["frames"]), values, label, faint=False))
            name = f"mean_returns{suffix}"
            stem = f"multi_trial_graph_{name}_vs_frames"
            paths = [self.layout.experiment_graph(stem, top=top) for top in (False, True)]
            note = f"the {len(lines)} best trials"
            written += draw(paths, lines, self.title, note, _label(name), LABELS["frames"])
        return written

    def _series(self, metrics: "Metrics") -> "Iterator[tuple[str, str, Floats, Floats]]":
        """What is drawn of metrics: the names of y and x, and their values."""
        local = metrics["local"]
        for name in local:
            if name in ALWAYS or (self.log_metrics and name not in ("frames", "opt_steps")):
                x_name = "opt_steps" if name == "training_efficiencies" else "frames"
                yield name, x_name, floats(local[name]), floats(local[x_name])


def _mean_line(x: "Floats", values: "Floats", label: str = "", faint: bool = True) -> Line:
    """The mean of J sessions, values [J, N], with its interval where there are several."""
    curve = average([x] * len(values), list(values))
    if len(values) == 1:
        return Line(curve.x, curve.mean, label=label)
    sessions = [(x, one) for one in values] if faint else ()
    return Line(curve.x, curve.mean, (curve.low, curve.high), sessions, label)


def _label(name: str) -> str:
    return LABELS.get(name) or f"{LABELS[name.removesuffix('_ma')]}, moving average"
