"""Several runs side by side: scores of each method in each env with intervals, and who is better with what probability.

Runs of one spec are seeds of one method. In one env the numbers are in the env's own unit. Over several envs scores are
normalized first: 0 is a random policy (baselines.json), 1 a stated reference (references.json; where that has none, the
best method compared here). Scores of an env without a baseline are not normalized.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from slm_lab.experiment.records import statistics
from slm_lab.experiment.records.baselines import Reference, baselines, no_reference, reference
from slm_lab.experiment.records.curves import first_reached, moving_average
from slm_lab.experiment.records.history import SCALARS, History, Session, Targets, check_metric, read_histories, score
from slm_lab.experiment.records.methods import group
from slm_lab.experiment.records.statistics import FEW, Estimate
from slm_lab.lib.errors import LabError

AGGREGATES = {
    "iqm": statistics.iqm,
    "median": statistics.median,
    "mean": statistics.mean,
    "optimality_gap": statistics.optimality_gap,
}
_SHARE = 0.9
"""Of the way from random to the best method: the target whose frames are counted, where none is given."""


@dataclass(frozen=True)
class Method:
    """What was run in one env: the sessions of all runs of one spec."""

    label: str
    env: str
    histories: list[History]
    sessions: list[Session]
    scores: list[float]
    """A score a session that has one."""
    mean: Estimate
    median: Estimate
    iqm: Estimate
    frames_to_target: list[float]
    """Of each session; infinite where it never got there."""
    seconds_to_target: list[float]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    metric: str
    at: int | None
    envs: list[str]
    labels: list[str]
    methods: list[Method]
    """Env by env."""
    targets: dict[str, float]
    """Env -> return that sample efficiency asks for."""
    references: dict[str, Reference]
    """Env -> what its scores are normalized by, where that is known; empty for other metrics than the return."""
    notes: list[str]

    @cached_property
    def aggregates(self) -> dict[str, dict[str, Estimate]]:
        """Label -> estimates of AGGREGATES over the envs of `references`; of the methods that ran in all of these."""
        found = {}
        for label in self.labels:
            if (tasks := self.normalized(label)) is not None:
                # of a single env the median over envs is the mean
                chosen = {k: f for k, f in AGGREGATES.items() if len(tasks) > 1 or k != "median"}
                found[label] = {k: statistics.estimate(f, tasks) for k, f in chosen.items()}
        return found

    @cached_property
    def improvement(self) -> dict[tuple[str, str], Estimate]:
        """(a, b) -> probability that a run of a beats one of b; of methods that met in an env.

        Ranks need no common scale, so the envs that both ran in are enough.
        """
        scores = {(m.label, m.env): m.scores for m in self.methods if m.scores}
        found = {}
        for a, b in permutations(self.labels, 2):
            if envs := [e for e in self.envs if (a, e) in scores and (b, e) in scores]:
                x, y = ([scores[label, e] for e in envs] for label in (a, b))
                found[a, b] = statistics.improvement(x, y)
        return found

    def of(self, env: str) -> list[Method]:
        """The methods in an env."""
        return [method for method in self.methods if method.env == env]

    def normalized(self, label: str) -> list[statistics.Floats] | None:
        """Scores of a method in each env of `references`, on the common scale; None where it lacks one."""
        by_env = {m.env: m for m in self.methods if m.label == label and m.scores}
        if not self.references or not set(self.references) <= set(by_env):
            return None
        return [statistics.normalize(by_env[e].scores, *r[:2]) for e, r in self.references.items()]


def compare(
    targets: Targets,
    *,
    out: str | Path = "data",
    metric: str = "total_reward",
    at: int | None = None,
    target: float | None = None,
    labels: Sequence[str] | None = None,
) -> Comparison:
    """Compare runs: scores with 95 % intervals, and the probability that one method beats another.

    Args:
        targets: run folders, or `latest` of `out`; runs with equal specs are seeds of one method, and a search counts
            with its best trial.
        out: folder of the run folders.
        metric: a column of the tables (the mean of its last 100 rows counts), or a metric such as `strength`.
        at: only rows up to this frame count; None: all that there are.
        target: return; how long each method took to first reach it is reported. None: 90 % of the way from random
            (without a baseline: from the first rows) to the best method of the env.
        labels: one a run; runs of the same label and env are one method. None: by their specs.

    Raises:
        LabError: no such run or metric; a run without a row, where each has a label; not as many labels as runs.
    """
    histories, left_out = read_histories(targets, out, strict=labels is not None)
    check_metric(metric, histories, SCALARS)
    notes: list[str] = []
    longest = max((s.frames for h in histories for s in h.sessions), default=0)
    if at is not None and longest < at:
        raise LabError(f"--at: no run has reached {at:,} frames (the longest has {longest:,})")
    groups = group(histories, labels)
    envs = list(dict.fromkeys(env for env, _ in groups))
    goals = {e: _target([found for (env, _), found in groups.items() if env == e], at) for e in envs}
    if target is not None:
        goals = dict.fromkeys(envs, target)
    methods = [_method(label, env, found, metric, at, goals[env]) for (env, label), found in groups.items()]
    references = {}
    for env in envs if metric in ("total_reward", "total_reward_ma", "final_total_reward") else ():
        means = [m.mean.value for m in methods if m.env == env]
        if ref := reference(env, means):
            references[env] = ref
        elif np.isfinite(means).any():
            notes.append(f"{env}: {no_reference(env)}, so scores are not normalized and not part of the aggregates")
    names = list(dict.fromkeys(m.label for m in methods))
    found = Comparison(metric, at, envs, names, methods, goals, references, notes)
    notes += [*_notes(found), *left_out]
    return found


def to_json(found: Comparison) -> dict[str, Any]:
    """All numbers as plain data; intervals as [low, high]."""

    def plain(e: Estimate) -> dict[str, Any]:
        return {"value": e.value, "interval": [e.low, e.high]}

    return {
        "metric": found.metric,
        "at": found.at,
        "level": statistics.LEVEL,
        "methods": [
            {
                "label": m.label,
                "env": m.env,
                "runs": [h.layout.root.name for h in m.histories],
                "sessions": len(m.scores),
                "scores": m.scores,
                "mean": plain(m.mean),
                "median": plain(m.median),
                "iqm": plain(m.iqm),
                "frames_to_target": m.frames_to_target,
                "seconds_to_target": m.seconds_to_target,
            }
            for m in found.methods
        ],
        "targets": found.targets,
        "references": {e: r._asdict() for e, r in found.references.items()},
        "aggregates": {label: {k: plain(v) for k, v in e.items()} for label, e in found.aggregates.items()},
        "improvement": [{"better": a, "than": b, **plain(e)} for (a, b), e in found.improvement.items()],
        "notes": found.notes,
    }


def _method(label: str, env: str, histories: list[History], metric: str, at: int | None, target: float) -> Method:
    sessions = _distinct(histories)
    scores = [v for s in sessions if np.isfinite(v := score(s.train, metric, env=env, at=at))]
    nothing = Estimate(np.nan, np.nan, np.nan)
    mean, median, iqm = (
        statistics.estimate(statistic, [scores]) if scores else nothing
        for statistic in (statistics.mean, lambda tasks: np.median(tasks[0], axis=-1), statistics.iqm)
    )
    averages = [_averages(session, at) for session in sessions]
    frames, seconds = (
        [
            first_reached(s.train[clock][: y.size], y, target) if clock in s.train else np.nan
            for s, y in zip(sessions, averages, strict=True)
        ]
        for clock in ("frame", "wall_t")
    )
    return Method(label, env, histories, sessions, scores, mean, median, iqm, frames, seconds)


def _distinct(histories: Sequence[History]) -> list[Session]:
    """The sessions of a method, without those that repeat another one: of the same seed, with the same returns.

    A repeated session is no sample of its own: with it intervals would be too narrow.
    """
    found: dict[Any, Session] = {}
    for history in histories:
        for session in history.judged:
            rewards = session.train.get("total_reward", session.train["frame"])
            same = history.seed, session.trial, session.index, session.train["frame"].tobytes(), rewards.tobytes()
            found.setdefault(same, session)
    return list(found.values())


def _target(methods: Sequence[list[History]], at: int | None) -> float:
    """A return near the best method's that one session reached at least; NaN where no episode ended."""
    averages = [[_averages(s, at) for h in histories for s in h.judged] for histories in methods]
    curves = [[y[np.isfinite(y)] for y in found if np.isfinite(y).any()] for found in averages]
    known = [y for found in curves for y in found]
    if not known:
        return np.nan
    best = max(float(np.mean([y[-1] for y in found])) for found in curves if found)
    random = baselines().get(methods[0][0].env)
    low = float(random["mean"] if random else np.mean([y[0] for y in known]))
    return min(low + _SHARE * (best - low), max(float(y.max()) for y in known))


def _averages(session: Session, at: int | None) -> statistics.Floats:
    """Moving average of a session's returns up to a frame, [rows]."""
    frame = session.train["frame"]
    stop = frame.size if at is None else int(np.searchsorted(frame, at, side="right"))
    return moving_average(session.train.get("total_reward", np.full_like(frame, np.nan))[:stop])


def _notes(found: Comparison) -> list[str]:
    few = [f"{m.label} in {m.env} ({len(m.scores)})" for m in found.methods if 0 < len(m.scores) < FEW]
    unreliable = f"intervals from fewer than {FEW} sessions are unreliable; a single session has none"
    notes = [f"{unreliable}: {', '.join(few)}"] if few else []
    for m in found.methods:
        where = f"{m.label} in {m.env}"
        if not m.scores:
            notes.append(f"{where}: no session has a value of {found.metric}")
        elif lacking := len(m.sessions) - len(m.scores):
            notes.append(
                f"{where}: {lacking} of {len(m.sessions)} sessions left out, without a value of {found.metric}"
            )
        frames = [min(s.frames, found.at) if found.at is not None else s.frames for s in m.sessions]
        if frames and min(frames) < 0.99 * max(frames):
            notes.append(f"{where}: sessions {_uneven(frames)}")
        if found.at is not None and frames and max(frames) < found.at:
            notes.append(f"{where}: ended at {max(frames):,} frames, before --at {found.at:,}: its last score counts")
        if repeated := sum(len(h.judged) for h in m.histories) - len(m.sessions):
            told = "1 session that repeats" if repeated == 1 else f"{repeated} sessions that repeat"
            verb = "is" if repeated == 1 else "are"
            notes.append(f"{where}: {told} another one of the same seed {verb} left out")
        crashed = sum(s.crash is not None for h in m.histories for s in h.sessions)
        counted = sum(s.crash is not None for s in m.sessions)
        if crashed > counted:
            notes.append(f"{where}: {_crashed(crashed - counted)} left out")
        if counted:
            notes.append(f"{where}: {_crashed(counted)} counted as far as they got: all sessions of their run crashed")
        searched = [h.layout.root.name for h in m.histories if h.is_search]
        notes += [f"{name} is a search: its best trial counts, which was chosen by its strength" for name in searched]
    for env in found.envs:
        reached = {max((s.frames for s in m.sessions), default=0) for m in found.of(env)}
        if found.at is None and len(reached) > 1 and min(reached) < 0.99 * max(reached):
            notes.append(f"{env}: runs {_uneven(reached)}")
    absent = [label for label in found.labels if found.references and label not in found.aggregates]
    notes += [f"{label} has no score in all envs: no aggregate" for label in absent]
    return notes


def _uneven(frames: Collection[int]) -> str:
    return f"end at {min(frames):,} to {max(frames):,} frames; use --at FRAMES to compare them at the same frame"


def _crashed(count: int) -> str:
    return f"{count} crashed session{'s' * (count > 1)}"
