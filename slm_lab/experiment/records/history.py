"""What a run folder holds, at any stage of the run, as arrays: of a search or an old run too.

Read from the tables (CSV) alone, which grow while a run goes on; imports no torch.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slm_lab.agent.sinks import read_table
from slm_lab.experiment.records.analysis import MA_ROWS, session_scalars
from slm_lab.experiment.records.baselines import baseline, current_id
from slm_lab.experiment.records.describe import get, read_spec, read_status, session_tables
from slm_lab.experiment.records.runs import find_run
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json
from slm_lab.lib.suggest import did_you_mean

if TYPE_CHECKING:
    from slm_lab.agent.sinks import Table
    from slm_lab.lib.layout import Layout

Targets = str | Path | Sequence[str | Path]
"""Runs: one or several, each as `find_run` takes it."""
_NONE = np.empty(0)
SCALARS = tuple(name for name in session_scalars(_NONE, _NONE, _NONE, _NONE) if name != "total_reward_ma")
"""Metrics of a whole session, beside the columns of its table."""


class NoRowError(LabError):
    """A run has no data yet: it has just started, or was stopped before its first row."""


@dataclass(frozen=True)
class Session:
    """The tables of one session."""

    trial: int
    index: int
    train: "Table"
    eval: "Table"
    crash: str | None = None
    """Last line of its traceback."""

    @property
    def frames(self) -> int:
        """Of the last row."""
        return int(self.train["frame"][-1]) if self.train else 0


@dataclass(frozen=True)
class History:
    """A run folder."""

    layout: "Layout"
    spec: dict[str, Any]
    """As the user wrote it, variables filled in; empty where it can't be read."""
    info: dict[str, Any]
    """The run file; empty where there is none."""
    status: str
    """running, completed, stopped, crashed, killed; ? if unknown."""
    sessions: list[Session]
    """That have a row, by trial and index."""
    missing: list[str] = field(default_factory=list)
    """What could not be read, in words."""

    @property
    def env(self) -> str:
        """Its id, as it is called today."""
        return current_id(str(get(self.spec, "env", "name") or "?"))

    @property
    def algorithm(self) -> str:
        """The label of its agent, or the class of its algorithm."""
        return str(get(self.spec, "agent", "name") or get(self.spec, "agent", "algorithm", "name") or "?")

    @property
    def is_search(self) -> bool:
        """Whether it is a search."""
        # those of older versions have neither of the two files, but more than one trial
        return self.info.get("mode") == "search" or self.layout.search_file().exists() or len(self.trials) > 1

    @cached_property
    def trials(self) -> dict[int, list[Session]]:
        """Sessions by trial."""
        trials: dict[int, list[Session]] = {}
        for session in self.sessions:
            trials.setdefault(session.trial, []).append(session)
        return trials

    @cached_property
    def judged(self) -> list[Session]:
        """The sessions that a score is taken from: those that did not crash; of a search those of the best trial.

        Where every session crashed, they count as far as they got.
        """
        trials = {
            trial: kept for trial, found in self.trials.items() if (kept := [s for s in found if s.crash is None])
        } or self.trials
        if not self.is_search:
            return trials[min(trials)]

        def strength(trial: int) -> tuple[float, float]:
            known = [v for s in trials[trial] if np.isfinite(v := score(s.train, "strength", env=self.env))]
            # a trial that was stopped early is not the best one, whatever it promised
            return max(s.frames for s in trials[trial]), float(np.mean(known)) if known else -np.inf

        best = read_best_trial(self.layout)
        return trials[best if best in trials else max(trials, key=strength)]


def read_history(layout: "Layout") -> History:
    """Read a run folder, at any stage of its run.

    What is missing or damaged is noted and left out, as long as one session has a row.

    Raises:
        NoRowError: no session has a row.
    """
    spec, missing = read_spec(layout), []
    if not spec:
        missing.append(f"{layout.spec().name} can't be read")
    info: dict[str, Any] = {}
    with suppress(LabError):
        info = read_json(layout.run_file())
    if not info:
        missing.append(f"info/{layout.run_file().name} is missing: no versions, command and status")
    sessions = []
    for (trial, index), path in session_tables(layout).items():
        try:
            train = _with_frames(read_table(path))
            table = _with_frames(read_table(layout.session_df(trial, index, "eval")))
        except (LabError, OSError) as e:
            missing.append(str(e))
            continue
        if "frame" in train:
            sessions.append(Session(trial, index, train, table, _crash(layout, trial, index)))
        else:
            missing.append(f"{path.name} has no row")
    if not sessions:
        why = "; ".join(missing[-3:]) if missing else "no session has a table in info/"
        raise NoRowError(f"{layout.root}: no data yet ({why})")
    wanted = get(spec, "meta", "max_session")
    known = isinstance(wanted, int) and info.get("mode") == "train"
    if known and not layout.search_file().exists() and len(sessions) < wanted:
        missing.append(f"{len(sessions)} of {wanted} sessions have a row")
    missing += [f"session {s.index} of trial {s.trial} crashed: {s.crash}" for s in sessions if s.crash]
    return History(layout, spec, info, read_status(layout), sessions, missing)


def read_histories(targets: Targets, out: str | Path = "data", *, strict: bool) -> tuple[list[History], list[str]]:
    """Read several run folders; gives the runs that have a row, and what is to be said of the others.

    Args:
        targets: run folders, or `latest` of `out`.
        out: folder of the run folders.
        strict: every run must have a row: each has a label, say.

    Raises:
        LabError: no such run.
        NoRowError: no run has a row; strict: all that have none, at once.
    """
    words = [targets] if isinstance(targets, str | Path) else targets
    layouts = [find_run(word, Path(out).expanduser()) for word in words]
    histories, faults = [], []
    for layout in layouts:
        try:
            histories.append(read_history(layout))
        except NoRowError as e:
            faults.append(str(e))
    if faults and (strict or not histories):
        raise NoRowError("\n".join(faults))
    return histories, [f"left out: {fault}" for fault in faults]


def check_metric(metric: str, histories: Iterable[History], others: Sequence[str] = ()) -> None:
    """See that a metric is a column of the tables of the runs, or one of some others."""
    columns = (name for history in histories for session in history.judged for name in session.train)
    known = [*dict.fromkeys(columns), *others]
    if metric not in known:
        raise LabError(f"metric '{metric}' is not known{did_you_mean(metric, known)} (known: {', '.join(known)})")


def score(table: "Table", metric: str = "total_reward", *, env: str = "", at: int | None = None) -> float:
    """One number for a session: what it reached in a metric.

    Of a column it is the mean of its last (at most 100) rows, so that of `total_reward` is `total_reward_ma`.

    Args:
        table: of its training.
        metric: a column, or one of SCALARS.
        env: id of its env, for the return of a random policy.
        at: only rows up to this frame count.

    Returns:
        NaN where it is not known: no episode ended, no such column.
    """
    stop = table["frame"].size if at is None else int(np.searchsorted(table["frame"], at, side="right"))
    if metric in SCALARS:
        cut = {name: table.get(name, np.full_like(table["frame"], np.nan))[:stop] for name in ("total_reward", "frame")}
        opt_steps = np.nan_to_num(table.get("opt_step", np.zeros_like(table["frame"]))[:stop])
        s = cut["total_reward"] - baseline(env)
        return session_scalars(cut["total_reward"], s, cut["frame"], opt_steps)[metric]
    column = "total_reward" if metric == "total_reward_ma" else metric
    last = table.get(column, np.full(1, np.nan))[:stop][-MA_ROWS:]
    last = last[np.isfinite(last)]
    return float(last.mean()) if last.size else float("nan")


def read_best_trial(layout: "Layout") -> int | None:
    """The best trial of a search that has ended trials, as its table of trials has it."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        rows = json.loads(layout.trial_data().read_text(encoding="utf-8"))
        if isinstance(rows, dict):
            ended = [row for row in rows.values() if isinstance(row, dict) and row.get("strength") is not None]
            ended.sort(key=lambda row: (row.get("status") != "completed", -row["strength"], row["trial"]))
            return int(ended[0]["trial"]) if ended else None
    return None


def _with_frames(table: "Table") -> "Table":
    """The rows that say at which frame they were written; no columns where there are none."""
    if "frame" not in table:
        return table
    known = np.isfinite(table["frame"])
    return {name: column[known] for name, column in table.items()} if known.any() else {}


def _crash(layout: "Layout", trial: int, index: int) -> str | None:
    with suppress(OSError):
        lines = layout.crash(trial, index).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no reason is known")
    return None
