"""Graphs; the only module that imports matplotlib, and only when something is drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.curves import average, moving_average
from slm_lab.experiment.ticks import separate_labels
from slm_lab.lib.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import ArrayLike, NDArray

    from slm_lab.agent.metrics import Row
    from slm_lab.experiment.analysis import Metrics
    from slm_lab.lib.layout import Layout

    Floats = NDArray[np.float64]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255")
"""Colours that stay apart for the colour-blind (Okabe and Ito 2008, two of Paul Tol's behind them)."""
DASHES = ("-", "--", ":")
"""Once the colours are used up."""
INK, FAINT = "#222222", "#8A8A8A"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    # a name may hold a dollar sign
    "text.parse_math": False,
}
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
class Line:
    """One line of a graph, with a band or faint companions."""

    x: "Floats"
    y: "Floats"
    band: "tuple[Floats, Floats] | None" = None
    """Low and high edge, [N] each."""
    faint: "Sequence[tuple[Floats, Floats]]" = ()
    """Drawn thin behind the line: the raw values of an average, the sessions of a mean."""
    label: str = ""


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
        y, x = _floats(local[name]), _floats(local[x_name])
        for y_name, line in ((name, Line(x, y)), (f"{name}_ma", Line(x, moving_average(y), faint=[(x, y)]))):
            path = layout.graph(stem, y_name, x_name)
            written += _draw(path, [line], title, note, _label(y_name), LABELS[x_name])
    frame = _floats([r["frame"] for r in rows])
    for name in COLUMNS:
        y = _floats([r.get(name) for r in rows])
        written += _draw(layout.graph(stem, name, "frame"), [Line(frame, y)], title, note, LABELS[name], "frames")
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
        y, x = np.atleast_2d(_floats(local[name])), _floats(local[x_name])
        averages = np.array([moving_average(one) for one in y])
        for y_name, values in ((name, y), (f"{name}_ma", averages)):
            line = _mean_line(x, values)
            for top in (False, True) if name in ALWAYS else (False,):
                path = layout.graph(stem, y_name, x_name, top=top)
                written += _draw(path, [line], title, note, _label(y_name), LABELS[x_name])
    return written


def plot_experiment(
    layout: "Layout",
    points: Mapping[str, Sequence[Any]],
    scores: Sequence[Mapping[str, float]],
    early: Sequence[bool],
    *,
    env_name: str,
    names: Sequence[str] = ("total_reward_ma", "strength"),
) -> list[Path]:
    """Draw what a search found: each searched key against each score, a point a trial.

    Args:
        layout: of the run; its folders exist.
        points: key path -> its value in each trial. What is no number has a place of its own for each value.
        scores: scalar metrics of each trial.
        early: of each trial, whether it was stopped early: it has been judged by fewer frames, and is drawn hollow.
        env_name: for the title.
        names: scores that are drawn, a row each.

    Returns:
        The files written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(4.8, 3.4 * len(points)), 2.9 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), len(points), squeeze=False, sharey="row")
        for row, name in enumerate(names):
            y = _floats([score[name] for score in scores])
            for column, (path, values) in enumerate(points.items()):
                axes = grid[row][column]
                _scatter(axes, values, y, early)
                axes.set_xlabel(path if row == len(names) - 1 else "")
                axes.set_ylabel(name if column == 0 else "")
        hollow = ", hollow: stopped early" if any(early) else ""
        figure.suptitle(_cut(f"{layout.name} on {env_name}: {len(scores)} trials{hollow}"), x=0.01, ha="left")
        separate_labels(figure)
        written = [layout.experiment_graph("experiment_graph", top=top) for top in (False, True)]
        for file in written:
            save(figure, file)
    return written


def _scatter(axes: "Axes", values: Sequence[Any], y: "Floats", early: Sequence[bool]) -> None:
    from matplotlib.ticker import LogFormatter

    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values):
        x = _floats(numbers)
        if x.size and x.min() > 0 and x.max() / x.min() >= 10:  # spans decades
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(LogFormatter())
            axes.xaxis.set_minor_formatter(LogFormatter())
    else:
        kinds = sorted({str(v) for v in values})
        x = _floats([kinds.index(str(v)) for v in values])
        axes.set_xticks(range(len(kinds)), [_cut(kind, 20) for kind in kinds])
        axes.margins(x=0.25)
    hollow = np.asarray(early, bool)
    axes.scatter(x[~hollow], y[~hollow], s=26, color=PALETTE[0], linewidths=0)
    axes.scatter(x[hollow], y[hollow], s=26, facecolors="none", edgecolors=PALETTE[0], linewidths=1.0)


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
            y = np.atleast_2d(_floats(local["mean_returns"]))
            values = np.array([moving_average(one) for one in y]) if suffix else y
            lines.append(_mean_line(_floats(local["frames"]), values, label, faint=False))
        for top in (False, True):
            path = layout.experiment_graph(f"multi_trial_graph_mean_returns{suffix}_vs_frames", top=top)
            title, note = f"{layout.name} on {env_name}", f"the {len(lines)} best trials"
            written += _draw(path, lines, title, note, _label(f"mean_returns{suffix}"), LABELS["frames"])
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


def _draw(path: Path, lines: Sequence[Line], title: str, note: str, ylabel: str, xlabel: str) -> list[Path]:
    return draw_panels(path, {"": lines}, title, note, ylabel, xlabel)


def draw_panels(
    path: Path, panels: Mapping[str, Sequence[Line]], title: str, note: str, ylabel: str, xlabel: str
) -> list[Path]:
    """Draw lines into one graph, or into a grid of graphs with one legend.

    Args:
        path: of the file.
        panels: title of a graph -> its lines; a label has the same colour in all of them.
        title: above all.
        note: under it.
        ylabel: of the left graphs.
        xlabel: of the lowest graphs.

    Returns:
        The file; nothing where no line has a point.
    """
    if not any(np.isfinite(line.y).any() for lines in panels.values() for line in lines):
        return []
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    names = list(dict.fromkeys(line.label for lines in panels.values() for line in lines))
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    # a Figure of its own, without pyplot: no global state, no display, Agg for PNG
    with mpl.rc_context(STYLE):
        size = (7.2, 4.4) if len(panels) == 1 else (4.2 * across, 3.0 * down + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down, across, squeeze=False).flat
        for axes in list(grid)[len(panels) :]:
            axes.set_visible(False)
        handles: dict[str, Any] = {}
        for i, (name, lines) in enumerate(panels.items()):
            axes = figure.axes[i]
            for line in lines:
                k = names.index(line.label) if line.label else lines.index(line)
                handles[line.label] = _add(
                    axes, line, PALETTE[k % len(PALETTE)], DASHES[k // len(PALETTE) % len(DASHES)]
                )
            axes.set_title(_cut(name, 40), loc="left", fontsize=10)
            axes.set_xlabel(xlabel if i >= len(panels) - across else "")
            axes.set_ylabel(ylabel if i % across == 0 else "")
            axes.margins(x=0.01)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _head(figure, title, note, alone=len(panels) == 1)
        if any(names):
            columns = 2 if len(names) > 3 and max(map(len, names)) <= 40 else 1
            figure.set_figheight(size[1] + 0.19 * -(-len(names) // columns))
            labels = [name for name in names if name]
            figure.legend([handles[n] for n in labels], labels, loc="outside lower left", fontsize=9, ncols=columns)
        save(figure, path)
    return [path]


def save(figure: "Figure", path: Path) -> None:
    """Write a figure, in the format of the suffix; a file that is there stays whole until it is replaced."""
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=150)
    write_atomic(path, content.getvalue())


def _head(figure: "Figure", title: str, note: str, *, alone: bool) -> None:
    if not alone:
        figure.suptitle(f"{_cut(title, 90)}\n{note}", x=0.01, ha="left", fontsize=10)
        return
    axes = figure.axes[0]
    axes.set_title(_cut(title), loc="left", fontsize=12, fontweight="bold", pad=24)
    axes.annotate(
        note, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9, color="#666666"
    )


def _add(axes: "Axes", line: Line, colour: str, dash: str) -> "Line2D":
    for x, y in line.faint:
        axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.3)
    if line.band is not None:
        axes.fill_between(line.x, *line.band, color=colour, alpha=0.18, linewidth=0)
    # a lone point would be an invisible line
    marker = "o" if np.isfinite(line.y).sum() == 1 else None
    return axes.plot(line.x, line.y, dash, color=colour, linewidth=1.8, marker=marker, label=line.label)[0]


def _cut(title: str, width: int = 64) -> str:
    return title if len(title) <= width else title[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _label(name: str) -> str:
    return LABELS.get(name) or f"{LABELS[name.removesuffix('_ma')]}, moving average"


def _floats(values: "ArrayLike | Sequence[float | None]") -> "Floats":
    # None, as JSON and empty cells give it, becomes NaN on the way
    return np.array(values, dtype=float)
