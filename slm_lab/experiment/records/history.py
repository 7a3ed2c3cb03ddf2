"""What a run folder holds, at any stage of the run, in a line or as arrays: of a search or an old run too.

Read from the tables (CSV) alone, which grow while a run goes on; imports no torch.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slm_lab.agent.sinks import read_rows, read_table
from slm_lab.experiment.records.analysis import MA_ROWS, session_scalars
from slm_lab.experiment.records.baselines import baseline, current_id
from slm_lab.experiment.records.runs import RunFile, Status, find_run, locked, read_best_trial
from slm_lab.experiment.records.statistics import Floats
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json
from slm_lab.lib.layout import Layout
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.load import read_file

if TYPE_CHECKING:
    from slm_lab.agent.sinks import Table

Targets = str | Path | Sequence[str | Path]
"""Runs: one or several, each as `find_run` takes it."""
_NONE = np.empty(0)
SCALARS = tuple(name for name in session_scalars(_NONE, _NONE, _NONE, _NONE) if name != "total_reward_ma")
"""Metrics of a whole session, beside the columns of its table."""


@dataclass(frozen=True)
class RunLine:
    """One run, as its folder shows it; None for what it does not say."""

    name: str
    """Of its folder."""
    spec: str
    env: str | None = None
    algorithm: str | None = None
    total_reward_ma: float | None = None
    """Mean over sessions."""
    frames: int | None = None
    """Of the session that is furthest."""
    sessions: int | None = None
    """That have a row, of all trials."""
    status: str | None = None
    """running, completed, stopped, crashed; killed: it was running, but no process is at it any more."""

    @property
    def date(self) -> str:
        """When the run was started.

        >>> RunLine("ppo_2026_01_31_120000", "ppo").date
        '2026-01-31 12:00'
        """
        year, month, day, time = self.name.removeprefix(f"{self.spec}_").split("_")[:4]
        return f"{year}-{month}-{day} {time[:2]}:{time[2:4]}"


def describe(layout: Layout) -> RunLine:
    """What the files of a run folder say."""
    spec, status = read_spec(layout), read_status(layout)
    frames, score = _progress(layout, status)
    return RunLine(
        layout.root.name,
        layout.name,
        current_id(env) if isinstance(env := get(spec, "env", "name"), str) else None,
        get(spec, "agent", "algorithm", "name"),
        score,
        frames,
        sum(map(_has_row, session_tables(layout).values())),
        status,
    )


def read_spec(layout: Layout) -> Any:
    """The spec that the run started with, as in its file; None where it can't be read."""
    with suppress(LabError):
        return next(iter(read_file(layout.spec()).values()), None)
    return None


def get(data: Any, *keys: str) -> Any:
    """A value of a nested spec, None where it lacks one; specs of old versions hold lists of one object."""
    for key in keys:
        inner = data[0] if isinstance(data, list) and len(data) == 1 else data
        data = inner.get(key) if isinstance(inner, dict) else None
    return data


def _progress(layout: Layout, status: str) -> tuple[int | None, float | None]:
    """Frames and total_reward_ma: of the finished trial (of a search the best), else of the sessions' tables so far."""
    best = read_best_trial(layout)
    # the metrics of a trial are older than its tables where it was extended and has not come to its end again
    if best is not None or status not in ("running", "stopped", "killed"):
        with suppress(LabError):
            scalars = read_json(layout.trial_scalar(best or 0))
            return scalars.get("frame"), scalars.get("total_reward_ma")
    last = []
    for table in session_tables(layout).values():
        with suppress(OSError, ValueError, LabError):
            last += read_rows(table)[-1:]
    frames = [int(frame) for row in last if (frame := row.get("frame")) is not None]
    scores = [float(score) for row in last if (score := row.get("total_reward_ma")) is not None]
    return max(frames, default=None), sum(scores) / len(scores) if scores else None


def session_tables(layout: Layout, only: int | None = None) -> dict[tuple[int, int], Path]:
    """The tables of a run's training by trial and session, in this order; or those of one trial."""
    own = re.compile(rf"{re.escape(layout.name)}_t(\d+)_s(\d+)_session_df_train\.csv")
    paths = (layout.root / "info").glob(f"*_t{'' if only is None else only}*_session_df_train.csv")
    found = [((int(m[1]), int(m[2])), path) for path in paths if (m := own.fullmatch(path.name))]
    return {key: path for key, path in sorted(found) if only in (None, key[0])}


def _has_row(table: Path) -> bool:
    with suppress(OSError), table.open("rb") as file:
        return len(list(islice(file, 2))) == 2
    return False


def read_status(layout: Layout) -> str:
    """Status of the run, as `RunLine.status`; ? if unknown."""
    try:
        status = RunFile.open(layout).status
    except LabError:
        return "?"
    if status is not Status.RUNNING:
        return status.value
    try:
        with locked(layout):
            return "killed"
    except (LabError, OSError):
        return status.value


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

    layout: Layout
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
    def seed(self) -> str:
        """That the seeds of its sessions are derived from."""
        given = get(self.info, "options", "seed")
        return str(get(self.spec, "meta", "random_seed") or 0 if given is None else given)

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


def read_history(layout: Layout) -> History:
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

    Strict, as where each run has a label: every one must have a row.

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

    def column(name: str, missing: float = np.nan) -> Floats:
        return table.get(name, np.full_like(table["frame"], missing))[:stop]

    if metric in SCALARS:
        returns, opt_steps = column("total_reward"), np.nan_to_num(column("opt_step", 0.0))
        return session_scalars(returns, returns - baseline(env), column("frame"), opt_steps)[metric]
    last = column("total_reward" if metric == "total_reward_ma" else metric)[-MA_ROWS:]
    last = last[np.isfinite(last)]
    return float(last.mean()) if last.size else float("nan")


def _with_frames(table: "Table") -> "Table":
    """The rows that say at which frame they were written; no columns where there are none."""
    if "frame" not in table:
        return table
    known = np.isfinite(table["frame"])
    return {name: column[known] for name, column in table.items()} if known.any() else {}


def _crash(layout: Layout, trial: int, index: int) -> str | None:
    with suppress(OSError):
        lines = layout.crash(trial, index).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no reason is known")
    return None
