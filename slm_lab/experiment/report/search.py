"""The page of a search."""

import json
import math
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from slm_lab.experiment.records.curves import moving_average
from slm_lab.experiment.records.history import History, get, score
from slm_lab.experiment.records.wording import number
from slm_lab.experiment.report.figures import Figure, colour, encode, points_for, points_trace, table_trace
from slm_lab.experiment.report.page import Markup, Page, Section, headline, note, sentences, table, tag
from slm_lab.experiment.report.single import STATUS, about
from slm_lab.experiment.search.journal import Journal, Record, TrialStatus
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json
from slm_lab.spec.search import LISTS, Axis

MARKS = {TrialStatus.STOPPED: "circle-open", TrialStatus.CRASHED: "x"}
KEYS_NOTE = "Hollow points were stopped early, so their scores are of fewer frames. Shaded: outside the searched range."
BEST_NOTE = (
    "A trial that was chosen as the best scores too high on average: train the best spec with new seeds to report it."
)
NO_JOURNAL = "the search kept no journal: which trials were stopped early is not known"
_GREY = "#b0b7bf"


def search_page(history: History) -> Page:
    """The page of a search."""
    records = _records(history)
    scores = _scores(history, records)
    axes = _axes(history, records)
    judged = {s.trial for s in history.judged if s.crash is None}
    best = next((r for r in records if r.trial in judged), None)
    sections = [
        Section("Trials", [_curves(history, records, best)]),
        Section("Searched keys", _keys(records, axes, scores)),
        Section("Importance", _importance(axes, records, scores)),
        Section("Best trial", _best(history, best)),
        Section("All trials", [_table(records, axes, scores)]),
        *about(history),
    ]
    stopped = sum(r.status is TrialStatus.STOPPED for r in records)
    ended = sum(r.ended for r in records)
    words = f"search of {history.algorithm} on {history.env}, {ended} of {len(records)} trials ended"
    return Page(
        title=history.layout.root.name,
        subtitle=words + (f", {stopped} of them stopped early by ASHA" if stopped else ""),
        badges=[(history.status, STATUS.get(history.status, "plain"))],
        headline=_headline(scores, best),
        sections=[s for s in sections if s.parts],
        missing=[*history.missing, *([] if history.layout.search_file().exists() else [NO_JOURNAL])],
    )


def _records(history: History) -> list[Record]:
    """The trials as the journal has them; of a search of an older version, which kept none, those that have a table."""
    if journal := Journal.open(history.layout.search_file()).records:
        return [journal[trial] for trial in sorted(journal)]
    records = []
    for trial, sessions in history.trials.items():
        spec: Any = {}
        with suppress(LabError):
            spec = read_json(history.layout.trial_spec(trial))
        if isinstance(spec, dict) and len(spec) == 1:  # under its name
            spec = next(iter(spec.values()))
        values = {path: value for path in _searched(history) if (value := get(spec, *path.split("."))) is not None}
        records.append(Record(trial, values, TrialStatus.COMPLETED, max(s.frames for s in sessions)))
    return records


def _scores(history: History, records: Sequence[Record]) -> dict[int, float]:
    """Mean over sessions of total_reward_ma at the last row that counts."""
    scores = {}
    for record in records:
        sessions = [s for s in history.trials.get(record.trial, []) if s.crash is None]
        at = record.frame if record.status is TrialStatus.STOPPED and record.frame else None
        known = [v for s in sessions if np.isfinite(v := score(s.train, at=at))]
        if known:
            scores[record.trial] = float(np.mean(known))
    return scores


def _axes(history: History, records: Sequence[Record]) -> list[Axis]:
    """The searched keys, as the spec's search block has them."""
    found = _searched(history)
    paths = dict.fromkeys(path for record in records for path in record.values)
    return [found.get(path) or Axis(path, "choice", ()) for path in paths]


def _searched(history: History) -> dict[str, Axis]:
    """The search block of the spec, by key path."""
    block: Any = get(history.spec, "search") or {}
    found: dict[str, Axis] = {}

    def walk(data: Any, path: str) -> None:
        if isinstance(data, list) and len(data) == 1:  # of version 4
            data = data[0]
        for key, value in data.items() if isinstance(data, dict) else ():
            whole = f"{path}.{key}" if path else key
            name, mark, dist = whole.rpartition("__")
            if mark and isinstance(value, list):
                found[name] = Axis(name, dist, tuple(tuple(v) if isinstance(v, list) else v for v in value))
            else:
                walk(value, whole)

    walk(block, "")
    return found


def _headline(scores: dict[int, float], best: Record | None) -> Markup:
    if best is None or best.trial not in scores:
        return sentences(["No trial has ended an episode yet."])
    told = ", ".join(f"{k.rpartition('.')[2]} {_value(v)}" for k, v in best.values.items())
    words = [
        f"The best trial is {best.trial}, with {told}.",
        "It has the highest strength (total_reward above random, over the whole trial), not always the highest score.",
        "A trial's score is total_reward_ma, the mean total_reward of its last 100 rows, averaged over its sessions.",
        BEST_NOTE,
    ]
    return headline(number(scores[best.trial]), f"score of trial {best.trial}", words)


def _curves(history: History, records: Sequence[Record], best: Record | None) -> Figure:
    figure = Figure(
        "total_reward of every trial, moving average; hollow: stopped early, cross: crashed", "total_reward", wide=True
    )
    points = points_for(2 * len(history.sessions))
    ends: dict[TrialStatus, list[tuple[float, float, float, str]]] = {}
    for record in records:
        chosen = record is best
        name = f"trial {record.trial}" + (f", {record.status.value}" if not chosen else ", best")
        for s in history.trials.get(record.trial, []):
            if "total_reward" not in s.train:
                continue
            y = moving_average(s.train["total_reward"])
            style: dict[str, Any] = {"color": "#d55e00" if chosen else colour(0), "width": 2.6 if chosen else 1.2}
            opacity = 1.0 if chosen else 0.5 if record.status is not TrialStatus.STOPPED else 0.3
            trace = table_trace({**s.train, "y": y}, "y", points, name=name, legend=chosen, opacity=opacity, **style)
            figure.add(trace)
            if record.status in MARKS and np.isfinite(y).any():
                at = int(np.flatnonzero(np.isfinite(y))[-1])
                told = f"trial {record.trial} {record.status.value} at frame {record.frame or s.frames:,}"
                wall = s.train.get("wall_t", s.train["frame"])
                end = (float(s.train["frame"][at]), float(wall[at]), float(y[at]), told)
                ends.setdefault(record.status, []).append(end)
    for status, found in ends.items():
        mark = {"symbol": MARKS[status], "size": 7, "color": "#555555"}
        texts = [end[3] for end in found]
        marks = points_trace(
            [], [end[2] for end in found], name=status.value, marker=mark, text=texts, hoverinfo="text"
        )
        xs = {"frame": encode([end[0] for end in found]), "wall_t": encode([end[1] for end in found])}
        figure.traces.append({**marks, "x": None, "xs": xs})
    return figure


def _keys(records: Sequence[Record], axes: Sequence[Axis], scores: dict[int, float]) -> list[Markup | Figure]:
    """Each key against the score, on the scale that it was searched on."""
    figures: list[Markup | Figure] = [note(KEYS_NOTE)]
    for axis in axes:
        figure = Figure(axis.path, "score", x={"x": f"{axis.path.rpartition('.')[2]} ({axis.dist})"})
        known = [r for r in records if r.trial in scores and axis.path in r.values]
        numeric = axis.dist not in LISTS
        for early in (False, True):
            mine = [r for r in known if (r.status is TrialStatus.STOPPED) is early]
            x = [r.values[axis.path] if numeric else _value(r.values[axis.path]) for r in mine]
            symbol = "circle-open" if early else "circle"
            mark = {"size": 8, "color": colour(0), "symbol": symbol, "line": {"width": 1.5}}
            told = [f"trial {r.trial}: {number(scores[r.trial])}" for r in mine]
            name = "stopped early" if early else "ran to its end"
            figure.traces.append(points_trace(x, [scores[r.trial] for r in mine], marker=mark, text=told, name=name))
        figure.layout = {"xaxis": _scale(axis, known), "showlegend": False, "shapes": _outside(axis)}
        figures.append(figure)
    return figures if axes else []


def _scale(axis: Axis, known: Sequence[Record]) -> dict[str, Any]:
    if axis.dist in LISTS:
        kinds = [_value(v) for v in axis.args] or sorted({_value(r.values[axis.path]) for r in known})
        return {"type": "category", "categoryorder": "array", "categoryarray": kinds}
    low, high, log = _span(axis)
    edges = [low - 0.06 * (high - low), high + 0.06 * (high - low)]
    if log:
        return {"type": "log", "range": edges, "exponentformat": "power", "dtick": 1 if high - low > 1.5 else None}
    return {"type": "linear", "range": edges}


def _span(axis: Axis) -> tuple[float, float, bool]:
    """Ends of the searched range on the scale that it is drawn on, and whether they are powers of ten."""
    low, high = axis.args[:2]
    if axis.dist in ("randn", "qrandn", "normal"):
        low, high = low - 3 * high, low + 3 * high  # mean and standard deviation
    log = "log" in axis.dist and low > 0
    return (math.log10(low), math.log10(high), log) if log else (low, high, log)


def _outside(axis: Axis) -> list[dict[str, Any]]:
    if axis.dist in LISTS:
        return []
    low, high, log = _span(axis)
    wide = high - low
    look = {
        "type": "rect",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "fillcolor": _GREY,
        "opacity": 0.25,
        "line": {"width": 0},
    }
    edges = [(low - wide, low), (high, high + wide)]
    return [{**look, "x0": 10**a if log else a, "x1": 10**b if log else b} for a, b in edges]


def _importance(axes: Sequence[Axis], records: Sequence[Record], scores: dict[int, float]) -> list[Markup | Figure]:
    if not axes:
        return []
    whole = [r for r in records if r.status is TrialStatus.COMPLETED and r.trial in scores]
    try:
        from slm_lab.experiment.search.importance import importances

        found = importances(axes, [r.values for r in whole], [scores[r.trial] for r in whole])
    except ModuleNotFoundError:
        return [note("Importances need optuna, which the extra `train` installs.")]
    except LabError as e:
        return [note(f"No importances: {e}.")]
    figures: list[Markup | Figure] = []
    for title, shares in found.items():
        order = sorted(shares, key=lambda k: shares[k])
        bars = {"type": "bar", "orientation": "h", "x": encode([shares[k] for k in order]), "y": order, "name": title}
        layout = {"xaxis": {"rangemode": "tozero"}, "margin": {"l": 140, "r": 14, "t": 10, "b": 40}}
        figures.append(
            Figure(
                title, "", {"x": "share of the score's variance"}, [{**bars, "marker": {"color": colour(0)}}], layout
            )
        )
    words = (
        f"How much of the variation of the score each key explains, by Optuna's evaluators, from the {len(whole)} "
        "trials that ran to their end."
    )
    return [note(words), *figures]


def _best(history: History, best: Record | None) -> list[Markup | Figure]:
    if best is None:
        return []
    rows = [[k, tag("code", _value(v))] for k, v in best.values.items()]
    parts: list[Markup | Figure] = [table(["key", "value"], rows)]
    path = history.layout.best_spec()
    with suppress(LabError):
        spec = read_json(path)
        command = shlex.join(["slm-lab", "run", str(path), *spec, "train", "--seed", "1000"])
        whole = tag("pre", json.dumps(spec, indent=2, ensure_ascii=False))
        parts += [tag("p", "Train it with new seeds:"), tag("pre", command)]
        parts.append(tag("details", tag("summary", "Its spec"), whole))
    return parts


def _table(records: Sequence[Record], axes: Sequence[Axis], scores: dict[int, float]) -> Markup:
    headers = ["trial", *(a.path.rpartition(".")[2] for a in axes), "frames", "score", "status"]
    rows = [
        [
            r.trial,
            *(_value(r.values.get(a.path)) for a in axes),
            f"{r.frame:,}",
            number(scores.get(r.trial)),
            r.status.value,
        ]
        for r in sorted(records, key=lambda r: -scores.get(r.trial, -math.inf))
    ]
    return table(headers, rows, numbers=range(len(headers) - 1))


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(list(value) if isinstance(value, tuple) else value)
