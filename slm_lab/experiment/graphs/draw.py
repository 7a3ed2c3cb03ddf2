"""Lines, points and panels; the only module that imports matplotlib, and only when something is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from slm_lab.experiment.records.statistics import Floats
from slm_lab.lib.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

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


@dataclass(frozen=True)
class Line:
    """One line of a graph, with a band or faint companions."""

    x: Floats
    y: Floats
    band: tuple[Floats, Floats] | None = None
    """Low and high edge, [N] each."""
    faint: Sequence[tuple[Floats, Floats]] = ()
    """Drawn thin behind the line: the raw values of an average, the sessions of a mean."""
    label: str = ""


def draw_panels(
    paths: Sequence[Path], panels: Mapping[str, Sequence[Line]], title: str, note: str, ylabel: str, xlabel: str
) -> list[Path]:
    """Draw lines into one graph, or into a grid of graphs with one legend.

    Args:
        paths: of the files, which get the same picture.
        panels: title of a graph -> its lines; a label has the same colour in all of them.
        title: above all.
        note: under it.
        ylabel: of the left graphs.
        xlabel: of the lowest graphs.

    Returns:
        The files; nothing where no line has a point.
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
            axes.set_title(cut(name, 40), loc="left", fontsize=10)
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
        save(figure, paths)
    return list(paths)


def draw_points(
    paths: Sequence[Path],
    points: Mapping[str, Sequence[Any]],
    scores: Mapping[str, Sequence[float]],
    hollow: Sequence[bool],
    title: str,
) -> None:
    """Draw each key against each score, one point per trial, into each of the files.

    Args:
        paths: of the files.
        points: key path -> its value in each trial. Values that are not numbers get a tick each.
        scores: name of a row of graphs -> score of each trial.
        hollow: of each trial, whether its point is drawn hollow.
        title: above all.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(4.8, 3.4 * len(points)), 2.9 * len(scores)), layout="constrained")
        grid = figure.subplots(len(scores), len(points), squeeze=False, sharey="row")
        for row, (name, y) in enumerate(scores.items()):
            for column, (path, values) in enumerate(points.items()):
                axes = grid[row][column]
                _scatter(axes, values, floats(y), hollow)
                axes.set_xlabel(path if row == len(scores) - 1 else "")
                axes.set_ylabel(name if column == 0 else "")
        figure.suptitle(cut(title), x=0.01, ha="left")
        _separate_labels(figure)
        save(figure, paths)


def _scatter(axes: "Axes", values: Sequence[Any], y: Floats, early: Sequence[bool]) -> None:
    from matplotlib.ticker import LogFormatter

    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values):
        x = floats(numbers)
        if x.size and x.min() > 0 and x.max() / x.min() >= 10:  # spans decades
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(LogFormatter())
            axes.xaxis.set_minor_formatter(LogFormatter())
    else:
        kinds = sorted({str(v) for v in values})
        x = floats([kinds.index(str(v)) for v in values])
        axes.set_xticks(range(len(kinds)), [cut(kind, 20) for kind in kinds])
        axes.margins(x=0.25)
    hollow = np.asarray(early, bool)
    axes.scatter(x[~hollow], y[~hollow], s=26, color=PALETTE[0], linewidths=0)
    axes.scatter(x[hollow], y[hollow], s=26, facecolors="none", edgecolors=PALETTE[0], linewidths=1.0)


def _separate_labels(figure: "Figure") -> None:
    """Turn, and then thin, the tick labels under each graph until none overlaps another."""
    for axes in figure.axes:
        for turn in (0, 30, 90):
            axes.tick_params(axis="x", labelrotation=turn)
            for label in axes.get_xticklabels(which="both"):
                label.set(ha="right" if turn == 30 else "center", rotation_mode="anchor" if turn == 30 else "default")
            figure.draw_without_rendering()
            if not (crowded := _crowded(axes)):
                break
        else:
            for label in crowded:
                label.set_visible(False)


def _crowded(axes: "Axes") -> "list[Text]":
    """Labels that come too close to one that stays, from the left."""

    def place(label: "Text") -> float:
        return float(axes.transData.transform(label.get_position())[0])

    low, high = sorted(axes.transData.transform([(x, 0) for x in axes.get_xlim()])[:, 0])
    shown = [label for label in axes.get_xticklabels(which="both") if label.get_visible() and label.get_text()]
    crowded: list[Text] = []
    last = -np.inf
    for label in sorted((label for label in shown if low - 1 <= place(label) <= high + 1), key=place):
        box = label.get_window_extent()
        # turned labels stand side by side: what counts is the distance of their base lines
        begin = box.x0 if label.get_rotation() % 180 == 0 else box.x1 - float(label.get_fontsize()) * 1.3
        if begin < last + 2:
            crowded.append(label)
        else:
            last = box.x1
    return crowded


def save(figure: "Figure", paths: Sequence[Path]) -> None:
    """Write a figure, in the format of the suffix of the first; a file that is there stays whole until replaced."""
    content = BytesIO()
    figure.savefig(content, format=paths[0].suffix[1:].lower(), dpi=150)
    for path in paths:
        write_atomic(path, content.getvalue())


def _head(figure: "Figure", title: str, note: str, *, alone: bool) -> None:
    if not alone:
        figure.suptitle(f"{cut(title, 90)}\n{note}", x=0.01, ha="left", fontsize=10)
        return
    axes = figure.axes[0]
    axes.set_title(cut(title), loc="left", fontsize=12, fontweight="bold", pad=24)
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


def cut(title: str, width: int = 64) -> str:
    """Shorten a text to `width` characters."""
    return title if len(title) <= width else title[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


def floats(values: ArrayLike | Sequence[float | None]) -> Floats:
    """As an array; None is NaN."""
    # None, as JSON and empty cells give it, becomes NaN on the way
    return np.array(values, dtype=float)
