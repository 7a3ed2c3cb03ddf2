"""The page of one run."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slm_lab.experiment.records import statistics
from slm_lab.experiment.records.baselines import reference
from slm_lab.experiment.records.curves import moving_average
from slm_lab.experiment.records.history import SCALARS, History, Session, get, score
from slm_lab.experiment.records.methods import flatten
from slm_lab.experiment.records.wording import coarse, interval, number
from slm_lab.experiment.report.figures import INK, Figure, average_traces, colour, points_for, table_trace
from slm_lab.experiment.report.page import Markup, Page, Section, headline, note, sentences, table, tag, text
from slm_lab.lib.errors import LabError
from slm_lab.spec.files import bundled_files
from slm_lab.spec.load import read_file

STATUS = {"completed": "good", "running": "busy", "crashed": "bad"}
"""Kinds of badge."""
_NOT_DRAWN = ("total_reward", "total_reward_ma", "frame", "wall_t", "t", "epi", "opt_step")
"""Columns that have no plot of their own."""
_TITLES = {
    "loss": "loss",
    "lr": "learning rate",
    "fps": "frames per second",
    "entropy": "entropy (nats)",
    "explore_var": "exploration",
    "episode_length": "episode length (steps)",
}


def run_page(history: History) -> Page:
    """The page of a run that is no search."""
    sessions = history.judged or history.sessions
    switches = {f"session {s.index}": colour(s.index) for s in sessions}
    sections = [
        Section("total_reward", return_parts(sessions)),
        Section("Statistics", list(statistics_figures(sessions))),
        *evaluation(history, sessions),
        Section("Metrics", metrics_parts(history, sessions)),
        *about(history),
    ]
    return Page(
        title=history.layout.root.name,
        subtitle=subtitle(history, sessions),
        badges=[(history.status, STATUS.get(history.status, "plain"))],
        headline=_headline(history, sessions),
        sections=[s for s in sections if s.parts],
        switches=switches,
        missing=list(history.missing),
    )


def subtitle(history: History, sessions: Sequence[Session]) -> str:
    """Algorithm, env, sessions, frames."""
    algorithm = get(history.spec, "agent", "algorithm", "name")
    name = history.algorithm if algorithm in (None, history.algorithm) else f"{history.algorithm} ({algorithm})"
    count = "1 session" if len(sessions) == 1 else f"{len(sessions)} sessions"
    frames = f"{max(s.frames for s in sessions):,}"
    wanted = get(history.spec, "env", "max_frame")
    of = f" of {wanted:,}" if isinstance(wanted, int) and wanted > max(s.frames for s in sessions) else ""
    return f"{name} on {history.env}, {count}, {frames}{of} frames"


def _headline(history: History, sessions: Sequence[Session]) -> Markup:
    """The score, its interval, and what both mean."""
    scores = [v for s in sessions if np.isfinite(v := score(s.train))]
    if not scores:
        return sentences(["No episode has ended yet, so there is no score."])
    e = statistics.estimate(statistics.mean, [scores])
    small = "total_reward_ma" if np.isnan(e.low) else f"95 % interval {number(e.low)} to {number(e.high)}"
    what = "total_reward per episode, averaged over the last 100 rows of the table"
    words = [f"The score is the {what}" + (f" and over {len(scores)} sessions (seeds). " if len(scores) > 1 else ". ")]
    if len(scores) > 1:
        words.append(
            "The interval comes from resampling the sessions (bootstrap): it shows how far the score would move with "
            "other seeds. "
        )
    words.append(coarse(len(scores)))
    scale = ""
    if ref := reference(history.env, [e.value]):
        known = "" if ref.source.startswith("the best") else f"; {number(ref.high)} is {ref.source}"
        scale = f"A random policy reaches {number(ref.low)}{known}."
    spread = f"Sessions: {', '.join(number(v) for v in sorted(scores, reverse=True))}." if len(scores) > 1 else ""
    short = "" if history.status == "completed" else "The run has not ended; this is what it has reached so far."
    return headline(number(e.value), small, ("".join(words), scale, spread, short))


def _trace(s: Session, table: Mapping[str, Any], column: str, points: int, **style: Any) -> dict[str, Any] | None:
    """A column of a session's table, in the session's colour and under its switch."""
    session = f"session {s.index}"
    look = {"name": session, "color": colour(s.index), "switch": session, "group": session, **style}
    return table_trace(table, column, points, **look)


def return_parts(sessions: Sequence[Session]) -> list[Markup | Figure]:
    """Returns of each session, their moving average, and the mean over sessions with its interval."""
    figure = Figure("total_reward: rows (thin), moving average over 100 rows (thick)", "total_reward", wide=True)
    points = points_for(2 * len(sessions) * 8)
    known = []
    for s in sessions:
        if "total_reward" not in s.train or not np.isfinite(s.train["total_reward"]).any():
            continue
        known.append({**s.train, "average": moving_average(s.train["total_reward"])})
        thin = {"name": f"session {s.index}, row", "width": 1, "opacity": 0.45, "legend": False}
        figure.add(_trace(s, known[-1], "total_reward", points, **thin))
        figure.add(_trace(s, known[-1], "average", points, width=2))
    if len(known) > 1:
        figure.traces += average_traces(known, "average", name="mean of sessions", color=INK, switch=None)
    if not figure.traces:
        return []
    words = "A row is the mean total_reward of the last 100 episodes. "
    if len(known) > 1:
        words += (
            "The black band is the 95 % interval of the mean over sessions, over the stretch that all have reached."
        )
    return [note(words), figure]


def statistics_figures(sessions: Sequence[Session]) -> list[Figure]:
    """A small figure for each other column."""
    columns = list(dict.fromkeys(name for s in sessions for name in s.train if name not in _NOT_DRAWN))
    # what is read first comes first
    first = [name for name in ("loss", "episode_length", "lr", "grad_norm") if name in columns]
    points = points_for(2 * len(sessions) * max(1, len(columns)))
    figures = []
    for column in [*first, *(name for name in columns if name not in first)]:
        title = _TITLES.get(column, column)
        figure = Figure(title, title)
        for s in sessions:
            figure.add(_trace(s, s.train, column, points))
        if figure.traces:
            figures.append(figure)
    return figures


def evaluation(history: History, sessions: Sequence[Session]) -> list[Section]:
    """Evaluations during the training, and the last one."""
    known = [s for s in sessions if "total_reward" in s.eval]
    if not known:
        return []
    figure = Figure("total_reward of greedy evaluation episodes", "total_reward", wide=True)
    for s in known:
        figure.add(_trace(s, s.eval, "total_reward", points_for(len(known))))
    last = [float(s.eval["total_reward"][-1]) for s in known]
    e = statistics.estimate(statistics.mean, [last])
    episodes = get(history.spec, "meta", "rigorous_eval")
    each = f" of {episodes} episodes" if episodes else ""
    said = tag("p", f"Last evaluation{each}, mean over sessions: {interval(e)}.")
    return [Section("Evaluation", [said, figure] if figure.traces else [said])]


def metrics_parts(history: History, sessions: Sequence[Session]) -> list[Markup | Figure]:
    """A table of the metrics of each session, and their mean with its interval."""
    rows = []
    for name in ("total_reward_ma", *SCALARS):
        values = [score(s.train, name, env=history.env) for s in sessions]
        known = [v for v in values if np.isfinite(v)]
        mean = interval(statistics.estimate(statistics.mean, [known])) if known else "-"
        rows.append([name, mean, *map(number, values)])
    frames = ["frames", "", *(f"{s.frames:,}" for s in sessions)]
    headers = ["metric", "mean [95 % interval]", *(f"session {s.index}" for s in sessions)]
    words = (
        "Efficiencies and stability are SLM-Lab's, and leave their range where rows are worse than random: an "
        "efficiency can be negative, a stability far below 0. The clipped ones count such rows as 0, and stay in it."
    )
    return [table(headers, [*rows, frames], numbers=range(1, len(headers))), note(words)]


def about(history: History) -> list[Section]:
    """Spec, versions, machine, and how to repeat the run."""
    return [Section("Spec", [spec_table(history)] if history.spec else []), Section("Repeat it", repeat(history))]


def spec_table(history: History) -> Markup:
    """Every key; what differs from the bundled spec of that name is marked and comes first."""
    own = flatten(history.spec)
    file, bundled = bundled_spec(history.layout.name)
    if file is None:
        rows = [[k, tag("code", _value(v))] for k, v in own.items()]
        told = note(f"No bundled spec is called '{history.layout.name}'.")
        return Markup(told + table(["key", "value"], rows))
    keys = dict.fromkeys([*bundled, *own])
    changed = [k for k in keys if k != "name" and own.get(k) != bundled.get(k) and not _is_variable(bundled.get(k))]
    count = f"{len(changed)} key{'s' * (len(changed) != 1)} differ" + "s" * (len(changed) == 1)
    told = note(f"{count} from the bundled {file}." if changed else f"As the bundled {file} has it.")
    rows = [[k, tag("code", _value(own.get(k))), tag("code", _value(bundled.get(k)))] for k in changed]
    first = table(["changed key", "here", "bundled"], rows, cls="changed") if rows else Markup()
    rest = table(["key", "value"], [[k, tag("code", _value(own[k]))] for k in own])
    return Markup(told + first + tag("details", tag("summary", f"All {len(own)} keys"), rest))


def bundled_spec(name: str) -> tuple[str | None, dict[str, Any]]:
    """File and leaves of the bundled spec that a run of this name came from; (None, {}) where there is none.

    A spec with variables for the env lends its name to runs as `<name>_<env>`.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in bundled_files():
        try:
            specs = read_file(path)
        except LabError:
            continue
        for own, spec in specs.items():
            if name == own or name.startswith(f"{own}_"):
                leaves = {k: v for k, v in flatten(spec).items() if k != "name"}
                found[own] = f"{path.parent.name}/{path.name}", leaves
    return found[max(found, key=len)] if found else (None, {})


def repeat(history: History) -> list[Markup | Figure]:
    """The command that repeats the run, the one it was started with, versions, machine and commit."""
    info, layout = history.info, history.layout
    mode = info.get("mode", "train")
    options = _mapping(info, "options")
    words = ["slm-lab", "run", str(layout.spec()), layout.name, str(mode)]
    for key, option in (("seed", "--seed"), ("start_from", "--from"), ("device", "--device")):
        if options.get(key) not in (None, "auto"):
            words += [option, str(options[key])]
    parts: list[Markup | Figure] = [tag("pre", shlex.join(words))]
    command = info.get("command")
    if isinstance(command, list) and command and Path(str(command[0])).name in ("slm-lab", "__main__.py"):
        parts += [tag("p", "It was started with"), tag("pre", shlex.join(["slm-lab", *map(str, command[1:])]))]
    rows = [*_mapping(info, "versions").items(), *_mapping(info, "machine").items()]
    rows += [("commit", info.get("git_commit")), ("started", info.get("started")), ("ended", info.get("ended"))]
    resumed = info.get("resumed")
    rows += [
        ("resumed", r.get("started")) for r in (resumed if isinstance(resumed, list) else []) if isinstance(r, dict)
    ]
    rows += [("folder", str(layout.root))]
    return [*parts, table(["", ""], [[k.replace("_", " "), text(v)] for k, v in rows if v is not None])]


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a file that may be damaged."""
    part = data.get(key)
    return part if isinstance(part, dict) else {}


def _is_variable(value: Any) -> bool:
    return isinstance(value, str) and re.search(r"\$\{\w+\}", value) is not None


def _value(value: Any) -> str:
    return "not set" if value is None else str(value)
