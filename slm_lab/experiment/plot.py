"""Graphs; the only module that imports matplotlib, and only when something is drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.curves import moving_average
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from slm_lab.agent.metrics import Row
    from slm_lab.experiment.analysis import Metrics
    from slm_lab.lib.layout import Layout

    Floats = NDArray[np.float64]

PLOTS = (".png", ".svg", ".pdf")
"""Kinds of file that a comparison is drawn to, by suffix."""
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
}
LABELS = {
    "mean_returns": "return, mean of the last 100 episodes",
    "mean_returns_ma": "return, moving average over 100 rows",
    "strengths": "strength (return above random)",
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
ALWAYS = ("mean_returns",)
"""Series of the metrics that are drawn in any case; the others with log_metrics. Each also as moving average."""
COLUMNS = ("loss", "entropy", "explore_var")
"""Columns of the table that are drawn where they hold a number."""


@dataclass(frozen=True)
class Line:
    """One line of a graph, with a band or faint companions."""

    x: "Floats"
    y: "Floats"
    band: "Floats | None" = None
    """Half its width, [N]."""
    faint: "Sequence[Floats]" = ()
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
        for y_name, line in ((name, Line(x, y)), (f"{name}_ma", Line(x, moving_average(y), faint=[y]))):
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
    """Draw a trial: mean over its sessions, a band of one standard deviation, the sessions thin behind it.

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
    note = f"trial {trial}, " + ("1 session" if sessions == 1 else f"{sessions} sessions: mean and standard deviation")
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
        written = [layout.experiment_graph("experiment_graph", top=top) for top in (False, True)]
        for file in written:
            figure.savefig(file, dpi=150)
    return written


def _scatter(axes: "Axes", values: Sequence[Any], y: "Floats", early: Sequence[bool]) -> None:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values):
        x = _floats(numbers)
        if x.size and x.min() > 0 and x.max() / x.min() >= 10:  # spans decades
            axes.set_xscale("log")
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


def plot_runs(
    folders: Sequence[Path], *, title: str | None = None, legends: Sequence[str] | None = None, output: Path
) -> Path:
    """Compare runs in one graph: mean_returns_ma over frames of trial 0 of each, mean and band over its sessions.

    Args:
        folders: run folders.
        title: above the graph.
        legends: one a folder, in their order; None: the folders' names.
        output: a file of PLOTS; its folder is made.

    Returns:
        `output`

    Raises:
        LabError: a folder holds no trial metrics, there are not as many legends as folders, `output` can't be written.
    """
    output = Path(output)
    if output.suffix.lower() not in PLOTS:
        raise LabError(f"plot: can't write {output.name} (known: {', '.join(PLOTS)})")
    if not folders:
        raise LabError("plot: no run folder given")
    if legends is not None and len(legends) != len(folders):
        raise LabError(f"plot: {len(folders)} run folders, but {len(legends)} legends (one each, in their order)")
    lines = []
    for folder, label in zip(folders, legends or [Path(f).resolve().name for f in folders], strict=True):
        local = _trial_local(Path(folder))
        averages = np.array([moving_average(one) for one in local["mean_returns"]])
        lines.append(_mean_line(_floats(local["frames"]), averages, label, faint=False))
    note = "trial 0 of each run: mean and standard deviation over sessions"
    head = title if title is not None else "Comparison of runs"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        drawn = _draw(output, lines, head, note, LABELS["mean_returns_ma"], "frames")
    except OSError as e:
        raise LabError(f"plot: {output} can't be written: {e.strerror}") from e
    if not drawn:
        raise LabError("plot: no finished episode in any of the runs, nothing to draw")
    return output


def _trial_local(folder: Path) -> dict[str, Any]:
    found = sorted((folder / "info").glob("*_t0_trial_metrics.json"))
    if not found:
        why = "no such folder" if not folder.is_dir() else "no info/*_t0_trial_metrics.json: did its trial end?"
        raise LabError(f"plot: {folder}: {why}")
    local = read_json(found[0]).get("local")
    if not isinstance(local, dict):
        raise LabError(f"plot: {found[0]}: damaged, it holds no 'local'")
    return local


def _series(local: dict[str, Any], log_metrics: bool) -> Iterator[tuple[str, str]]:
    for name in local:
        if name in ALWAYS or (log_metrics and name not in ("frames", "opt_steps")):
            yield name, "opt_steps" if name == "training_efficiencies" else "frames"


def _mean_line(x: "Floats", values: "Floats", label: str = "", faint: bool = True) -> Line:
    # values: [J, N]; a row that no session knows stays a gap
    known = np.isfinite(values)
    count = known.sum(axis=0)
    mean = np.divide(np.where(known, values, 0).sum(axis=0), count, out=np.full(x.size, np.nan), where=count > 0)
    if values.shape[0] == 1:
        return Line(x, mean, label=label)
    squares = np.where(known, (values - mean) ** 2, 0).sum(axis=0)
    std = np.sqrt(np.divide(squares, count - 1, out=np.zeros(x.size), where=count > 1))
    return Line(x, mean, band=std, faint=list(values) if faint else (), label=label)


def _draw(path: Path, lines: Sequence[Line], title: str, note: str, ylabel: str, xlabel: str) -> list[Path]:
    if not any(np.isfinite(line.y).any() for line in lines):
        return []
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    # a Figure of its own, without pyplot: no global state, no display, Agg for PNG
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for i, line in enumerate(lines):
            _add(axes, line, PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)])
        axes.set_title(_cut(title), loc="left", fontsize=12, fontweight="bold", pad=24)
        axes.annotate(
            note, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9, color="#666666"
        )
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.margins(x=0.01)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if any(line.label for line in lines):
            columns = 2 if len(lines) > 3 and max(len(line.label) for line in lines) <= 40 else 1
            figure.set_figheight(4.4 + 0.19 * -(-len(lines) // columns))
            figure.legend(loc="outside lower left", fontsize=9, ncols=columns)
        figure.savefig(path, dpi=150)
    return [path]


def _add(axes: "Axes", line: Line, colour: str, dash: str) -> None:
    for y in line.faint:
        axes.plot(line.x, y, color=colour, linewidth=0.8, alpha=0.3)
    if line.band is not None:
        axes.fill_between(line.x, line.y - line.band, line.y + line.band, color=colour, alpha=0.18, linewidth=0)
    # a lone point would be an invisible line
    marker = "o" if np.isfinite(line.y).sum() == 1 else None
    axes.plot(line.x, line.y, dash, color=colour, linewidth=1.8, marker=marker, label=line.label)


def _cut(title: str, width: int = 64) -> str:
    return title if len(title) <= width else title[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _label(name: str) -> str:
    return LABELS.get(name) or f"{LABELS[name.removesuffix('_ma')]}, moving average"


def _floats(values: "ArrayLike | Sequence[float | None]") -> "Floats":
    # None, as JSON and empty cells give it, becomes NaN on the way
    return np.array(values, dtype=float)
