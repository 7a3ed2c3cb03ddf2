"""How well a session or trial did: scalars and series computed from its table, once, at the end.

Symbols: `R_i` is total_reward of row i of N, `R_rand` what a uniformly random policy reaches (baselines.json),
`s_i = R_i - R_rand` the strength of row i, `f_i` its frame, `o_i` its opt_step. Rows before the first finished episode
are NaN and left out of every sum and mean. A metric that is not defined (no episode finished, one row, one session) is
NaN, and null in the files.

`sample_efficiency`, `training_efficiency` and `stability` are SLM-Lab's, comparable with its tables. They weigh
rows with `s_i`, so where some rows are worse than random they leave the range that their names promise: an efficiency
may be negative, a stability far below 0. The metrics that end in `_clipped` take `max(s_i, 0)` in its place: then an
efficiency lies between `1 / f_N` and `1 / f_1`, a stability between 0 and 1; NaN where no row is better than random.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import ArrayLike

from slm_lab.agent.metrics import Row
from slm_lab.experiment.records.baselines import baseline
from slm_lab.experiment.records.statistics import Floats
from slm_lab.experiment.records.wording import summary
from slm_lab.lib.files import write_json
from slm_lab.lib.layout import Layout

Metrics = dict[str, dict[str, Any]]
"""{"scalar": {name: float}, "local": {name: list}}; NaN: not defined (null in the files)."""
MA_ROWS = 100
"""Rows of a moving average."""


def strength(s: ArrayLike) -> float:
    """Mean strength over the rows, `mean_i s_i`.

    Args:
        s: [N] return above that of a random policy, per row.

    >>> strength([1.0, 2.0, 6.0])
    3.0
    """
    return _mean(_known(s))


def efficiency(s: ArrayLike, clock: ArrayLike) -> float:
    """Mean of `1 / clock` weighted with strength, `sum_i (s_i / c_i) / sum_i s_i`: high where strength came early.

    Rows at clock 0 are left out of both sums. NaN where the strengths do not sum to more than 0: a policy that is no
    better than chance has no efficiency, and the ratio would change its sign.

    Args:
        s: [N] strength.
        clock: [N] frames (sample efficiency) or optimizer steps (training efficiency).

    >>> efficiency([1.0, 3.0], [10, 20])
    0.0625
    """
    series = running_efficiency(s, clock)
    known = np.flatnonzero(np.isfinite(np.asarray(s, float)))
    return float(series[known[-1]]) if known.size else np.nan


def stability(s: ArrayLike) -> float:
    """`1 - |sum_{i<N} min(s_{i+1} - s_i, 0) / sum_{i<N} s_i|`: 1 where strength never dropped. NaN below two rows.

    Args:
        s: [N] strength.

    >>> stability([1.0, 4.0, 3.0])
    0.8
    """
    known = _known(s)
    total = float(known[:-1].sum())
    if known.size < 2 or total == 0:  # a drop needs two rows
        return np.nan
    drops = np.minimum(np.diff(known), 0)
    return float(1 - abs(drops.sum() / total))


def consistency(s: ArrayLike) -> float:
    """`1 - 2 sum_i std_j(s_ij) / sum_i mean_j(s_ij)` with the sample std over sessions j.

    NaN for a single session, and where the means do not sum to more than 0: the ratio would change its sign.

    Args:
        s: [J, N] strength of J sessions. Rows that some session does not know are left out.

    >>> consistency([[10.0, 10.0], [10.0, 10.0]])
    1.0
    """
    s = np.asarray(s, float)
    s = s[:, np.isfinite(s).all(axis=0)]
    if s.shape[0] < 2 or s.shape[1] == 0:  # sessions can agree from two on
        return np.nan
    total = float(s.mean(axis=0).sum())
    return float(1 - 2 * s.std(axis=0, ddof=1).sum() / total) if total > 0 else np.nan


def running_efficiency(s: ArrayLike, clock: ArrayLike) -> Floats:
    """`efficiency` of the rows up to each row, [N]."""
    s, clock = np.asarray(s, float), np.asarray(clock, float)
    use = np.isfinite(s) & (clock > 0)
    weighted = np.cumsum(np.divide(s, clock, out=np.zeros_like(s), where=use))
    total = np.cumsum(np.where(use, s, 0.0))
    positive = total > 0
    return np.divide(weighted, total, out=np.full_like(s, np.nan), where=positive & np.isfinite(s))


def running_stability(s: ArrayLike) -> Floats:
    """`1 - |min(s_i - s_{i-1}, 0) / s_{i-1}|` of each row, [N]; NaN in the first."""
    s = np.asarray(s, float)
    series = np.full_like(s, np.nan)
    before = s[:-1]
    drops = np.minimum(np.diff(s), 0)
    np.divide(drops, before, out=series[1:], where=np.isfinite(drops) & (before != 0))
    return 1 - np.abs(series)


def running_consistency(s: ArrayLike) -> Floats:
    """`1 - 2 std_j / mean_j` of each row, [N]; NaN for a single session, or a mean that is not above 0. s: [J, N]."""
    s = np.asarray(s, float)
    series = np.full(s.shape[1], np.nan)
    if s.shape[0] < 2:  # sessions can agree from two on
        return series
    mean = s.mean(axis=0)
    np.divide(s.std(axis=0, ddof=1), mean, out=series, where=np.isfinite(mean) & (mean > 0))
    return 1 - 2 * series


def session_metrics(rows: Sequence[Row], env_name: str) -> Metrics:
    """Metrics of one session.

    Args:
        rows: of the tracker or the table; any number, 0 included.
        env_name: as baselines.json knows it.

    Returns:
        scalar: total_reward_ma, final_total_reward (the last row's total_reward: the mean of the last 100 episodes),
        strength, max_strength, final_strength, sample_efficiency, training_efficiency, stability, and the last three
        clipped.
        local: a value a row of mean_returns, strengths, sample_efficiencies, training_efficiencies, stabilities,
        frames, opt_steps.
    """
    returns = np.array([r["total_reward"] for r in rows], dtype=float)
    frames = [int(r["frame"] or 0) for r in rows]
    opt_steps = [int(r["opt_step"] or 0) for r in rows]
    s = returns - baseline(env_name)
    return {
        "scalar": session_scalars(returns, s, frames, opt_steps),
        "local": {
            "mean_returns": returns.tolist(),
            "strengths": s.tolist(),
            "sample_efficiencies": running_efficiency(s, frames).tolist(),
            "training_efficiencies": running_efficiency(s, opt_steps).tolist(),
            "stabilities": running_stability(s).tolist(),
            "frames": frames,
            "opt_steps": opt_steps,
        },
    }


def trial_metrics(sessions: Sequence[Metrics]) -> Metrics:
    """Metrics of a trial: those of its sessions, each cut to the rows that all have, and averaged.

    Args:
        sessions: what `session_metrics` gave, or what was read back from its JSON. Sessions without a row (stopped at
            once) are left out, unless none has any.

    Returns:
        scalar: frame (of the last common row), the means of the session scalars, consistency.
        local: per session lists of mean_returns, strengths, sample_efficiencies, training_efficiencies, stabilities;
        consistencies; frames and opt_steps of the first session.

    Raises:
        ValueError: no session.
    """
    if not sessions:
        raise ValueError("a trial without a session has no metrics")
    local = [m["local"] for m in sessions if m["local"]["frames"]] or [sessions[0]["local"]]
    rows = min(len(m["frames"]) for m in local)
    cut = [{name: series[:rows] for name, series in m.items()} for m in local]
    strengths = np.array([m["strengths"] for m in cut], dtype=float)
    scalars = [
        session_scalars(np.array(m["mean_returns"], float), s, m["frames"], m["opt_steps"])
        for m, s in zip(cut, strengths, strict=True)
    ]
    names = ("mean_returns", "strengths", "sample_efficiencies", "training_efficiencies", "stabilities")
    return {
        "scalar": {
            "frame": min(m["frames"][-1] for m in cut) if rows else 0,
            **{name: _mean(_known([s[name] for s in scalars])) for name in scalars[0]},
            "consistency": consistency(strengths),
        },
        "local": {
            **{name: [m[name] for m in cut] for name in names},
            "consistencies": running_consistency(strengths).tolist(),
            "frames": cut[0]["frames"],
            "opt_steps": cut[0]["opt_steps"],
        },
    }


def save_session(
    layout: Layout, trial: int, session: int, rows: Sequence[Row], env_name: str, kind: str = "train"
) -> Metrics:
    """Analyse a session and write info/..._session_metrics_<kind>.json and ..._session_metrics_scalar_<kind>.json."""
    metrics = session_metrics(rows, env_name)
    write_json(layout.session_metrics(trial, session, kind), metrics)
    write_json(layout.session_scalar(trial, session, kind), metrics["scalar"])
    return metrics


def save_trial(layout: Layout, trial: int, sessions: Sequence[Metrics]) -> Metrics:
    """Analyse a trial and write trial_metrics.json, trial_metrics_scalar.json and its copy in the run folder."""
    metrics = trial_metrics(sessions)
    write_json(layout.trial_metrics(trial), metrics)
    for top in (False, True):
        write_json(layout.trial_scalar(trial, top=top), metrics["scalar"])
    return metrics


class RunningMetrics:
    """The scalars of the rows so far, from sums that are kept: the cost of a row does not grow with the run.

    A sink: logs one line per row. Equals `session_metrics` of the same rows but for rounding.
    """

    def __init__(self, env_name: str, label: str = "session_metrics", rows: Sequence[Row] = ()) -> None:
        self.label = label
        self._random = baseline(env_name)
        self._count = 0
        self._sum = self._drops = 0.0
        self._last = self._max = np.nan
        # per clock: sum of s / c and sum of s over the rows where c > 0
        self._clocks = {"frame": [0.0, 0.0], "opt_step": [0.0, 0.0]}
        for row in rows:
            self.add(row)

    def __call__(self, row: Row) -> None:
        """Take the row in and log."""
        self.add(row)
        logger.info("{}", summary(self.scalars(), self.label))

    def add(self, row: Row) -> None:
        """Take a row in; one without a finished episode changes nothing."""
        if row["total_reward"] is None:
            return
        s = row["total_reward"] - self._random
        if self._count:
            self._drops += min(s - self._last, 0.0)
        self._count += 1
        self._sum += s
        self._last = s
        self._max = float(np.fmax(self._max, s))
        for name, sums in self._clocks.items():
            clock = row[name]
            if clock:
                sums[0] += s / clock
                sums[1] += s

    def scalars(self) -> dict[str, float]:
        """strength, max_strength, final_strength, sample_efficiency, training_efficiency, stability."""
        weighted = {name: a / b if b > 0 else np.nan for name, (a, b) in self._clocks.items()}
        before_last = self._sum - self._last
        return {
            "strength": self._sum / self._count if self._count else np.nan,
            "max_strength": self._max,
            "final_strength": self._last,
            "sample_efficiency": weighted["frame"],
            "training_efficiency": weighted["opt_step"],
            "stability": 1 - abs(self._drops / before_last) if self._count > 1 and before_last else np.nan,
        }


def session_scalars(returns: Floats, s: Floats, frames: ArrayLike, opt_steps: ArrayLike) -> dict[str, float]:
    """The scalar metrics of a session, from its columns: returns, strengths, frames, opt_steps, each [N]."""
    known, strengths = _known(returns), _known(s)
    above = np.maximum(s, 0)
    return {
        "total_reward_ma": _mean(_known(returns[-MA_ROWS:])),
        "final_total_reward": float(known[-1]) if known.size else np.nan,
        "strength": strength(s),
        "max_strength": float(strengths.max()) if strengths.size else np.nan,
        "final_strength": float(strengths[-1]) if strengths.size else np.nan,
        "sample_efficiency": efficiency(s, frames),
        "training_efficiency": efficiency(s, opt_steps),
        "stability": stability(s),
        "sample_efficiency_clipped": efficiency(above, frames),
        "training_efficiency_clipped": efficiency(above, opt_steps),
        "stability_clipped": stability(above),
    }


def _known(values: ArrayLike) -> Floats:
    # None, as JSON has it, becomes NaN on the way
    values = np.asarray(values, float)
    return values[np.isfinite(values)]


def _mean(known: Floats) -> float:
    return float(known.mean()) if known.size else np.nan
