"""Figures as plain data for plotly's script: traces and titles. Imports no plotting library.

A trace has its x once for each clock (frames, wall time), and may belong to a switch of the page: `session 0`, say.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from slm_lab.experiment.graphs.draw import PALETTE
from slm_lab.experiment.records.curves import average, thin
from slm_lab.experiment.records.statistics import Estimate

CLOCKS = {"frame": "frames", "wall_t": "wall time (s)"}
"""Columns that curves are drawn over, and what the axis says."""
VALUES = 120_000
"""Points of all curves of a page together: keeps it small, however long the run was."""
MOST, LEAST = 2000, 100
"""Points of a curve."""
INK = "#222222"


@dataclass
class Figure:
    """One plot of the page."""

    title: str
    y: str
    """Of the axis."""
    x: Mapping[str, str] = field(default_factory=lambda: CLOCKS)
    """Clock -> title of the axis; of a figure without clocks the one title, under `x`."""
    traces: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    """Of plotly, beside what every plot has."""
    wide: bool = False
    """Over the whole page."""

    def add(self, trace: dict[str, Any] | None) -> None:
        """Draw a trace; None: there is none."""
        if trace is not None:
            self.traces.append(trace)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"title": self.title, "y": self.y, "x": dict(self.x), "traces": self.traces, "layout": self.layout}


def encode(values: ArrayLike) -> dict[str, str]:
    """Numbers as plotly's script reads them: little-endian doubles, exactly what the table holds.

    >>> encode([1.0])
    {'dtype': 'f8', 'bdata': 'AAAAAAAA8D8='}
    """
    return {"dtype": "f8", "bdata": base64.b64encode(np.asarray(values, "<f8").tobytes()).decode()}


def colour(index: int) -> str:
    """Of the palette, over and over."""
    return PALETTE[index % len(PALETTE)]


def fade(colour: str, alpha: float) -> str:
    """A colour with transparency.

    >>> fade("#0072B2", 0.5)
    'rgba(0,114,178,0.5)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def points_for(curves: int) -> int:
    """Points of each curve, by the number of curves."""
    return max(LEAST, min(MOST, VALUES // max(1, curves)))


def table_trace(table: Mapping[str, Any], column: str, points: int, **style: Any) -> dict[str, Any] | None:
    """A column of a table over its clocks, thinned to its extremes; None where it holds no number.

    Old tables have no `wall_t`. The style is that of `_line`.
    """
    y = table.get(column)
    if y is None or not np.isfinite(y).any():
        return None
    kept = thin(y, points)
    xs = {clock: encode(table[clock][kept]) for clock in CLOCKS if clock in table}
    return _line(xs, encode(y[kept]), lone=np.isfinite(y).sum() == 1, **style)


def average_traces(
    tables: Sequence[Mapping[str, Any]], column: str, *, name: str, color: str, switch: str | None
) -> list[dict[str, Any]]:
    """The mean of a column over sessions with its interval, over each clock: a band, a line."""
    clocks = [clock for clock in CLOCKS if all(clock in t for t in tables)]
    curves = {clock: average([t[clock] for t in tables], [t[column] for t in tables]) for clock in clocks}
    curves = {clock: curve for clock, curve in curves.items() if curve.x.size}
    if not curves:
        return []
    traces: list[dict[str, Any]] = []
    xs = {clock: encode(c.x) for clock, c in curves.items()}
    if len(tables) > 1:
        around = {clock: encode(np.concatenate([c.x, c.x[::-1]])) for clock, c in curves.items()}
        edges = {clock: encode(np.concatenate([c.high, c.low[::-1]])) for clock, c in curves.items()}
        traces.append(band(name, color, switch, xs=around, ys=edges))
    line = _line(xs, None, name=name, color=color, width=2.4, switch=switch, group=name)
    line["ys"] = {clock: encode(c.mean) for clock, c in curves.items()}
    return [*traces, line]


def band(name: str, color: str, switch: str | None, **edges: Any) -> dict[str, Any]:
    """An interval along a line; edges: `x` and `y`, or `xs` and `ys`, of the upper one and back along the lower."""
    return {
        "type": "scatter",
        "mode": "lines",
        "fill": "toself",
        "fillcolor": fade(color, 0.16),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "name": f"{name}, 95 % interval",
        "legendgroup": name,
        "switch": switch,
        **edges,
    }


def _line(xs: dict[str, Any], y: Any, *, name: str, color: str, **style: Any) -> dict[str, Any]:
    """style: width, opacity, switch, group, legend; lone: a single point, which would be an invisible line."""
    return {
        "type": "scatter",
        "mode": "lines+markers" if style.get("lone") else "lines",
        "name": name,
        "xs": xs,
        "y": y,
        "line": {"color": color, "width": style.get("width", 1.4)},
        "marker": {"color": color},
        "opacity": style.get("opacity", 1.0),
        "legendgroup": style.get("group", name),
        "showlegend": style.get("legend", True),
        "switch": style.get("switch"),
    }


def points_trace(x: Sequence[Any], y: ArrayLike, **style: Any) -> dict[str, Any]:
    """Points; `style` is plotly's."""
    return {"type": "scatter", "mode": "markers", "x": list(x), "y": encode(y), **style}


def rows_axis(rows: int) -> dict[str, Any]:
    """The axis of so many named rows, with room above and below."""
    return {"type": "category", "range": [-0.7, rows - 0.3]}


def interval_trace(estimates: Sequence[Estimate], labels: Sequence[str], colours: Sequence[str]) -> dict[str, Any]:
    """Estimates, one above the other, with their intervals as bars."""
    v, lo, hi = np.asarray(estimates, float).T
    return {
        "type": "scatter",
        "mode": "markers",
        "x": encode(v),
        "y": list(labels),
        "marker": {"color": list(colours), "size": 9},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": encode(np.nan_to_num(hi - v)),
            "arrayminus": encode(np.nan_to_num(v - lo)),
            "thickness": 5,
            "width": 0,
            "color": "rgba(120,120,120,0.35)",
        },
        "showlegend": False,
        "hovertemplate": "%{y}: %{x:.4g}<extra></extra>",
    }
