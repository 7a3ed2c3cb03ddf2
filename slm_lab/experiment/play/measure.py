"""The score of saved policies: many episodes on envs of their own, and how sure their mean is."""

import statistics
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from slm_lab.experiment.play.enjoy import SavedPolicy, best_checkpoint, indices
from slm_lab.experiment.records.runs import find_run
from slm_lab.experiment.records.statistics import Estimate, estimate, mean
from slm_lab.experiment.records.wording import interval, number
from slm_lab.experiment.session.evaluate import play
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.lib.seeding import derive
from slm_lab.lib.suggest import did_you_mean

ENV, ACTIONS = 0, 1
"""What the seed of an evaluation is split into."""
WHICH = ("best", "latest")


@dataclass(frozen=True)
class PolicyScore:
    """What one policy did."""

    session: int
    frame: int
    """Frames it had learned from."""
    checkpoint: Path
    returns: list[float]
    """Undiscounted."""
    lengths: list[int]
    """Steps of each episode."""

    @property
    def estimate(self) -> Estimate:
        """Mean return with its 95 % interval: how much it would move with other episodes of this policy."""
        return estimate(mean, [self.returns])


class Evaluation(list[float]):
    """Returns of all episodes, as a list, and what else was measured."""

    def __init__(self, policies: Iterable[PolicyScore]) -> None:
        self.policies = list(policies)
        super().__init__(ret for policy in self.policies for ret in policy.returns)

    @property
    def lengths(self) -> list[int]:
        """Steps of all episodes, in the order of the returns."""
        return [length for policy in self.policies for length in policy.lengths]

    @property
    def estimate(self) -> Estimate:
        """Mean return with its 95 % interval.

        Of one policy over its episodes; of several over their means, since what varies between runs is the seed.
        """
        if len(self.policies) == 1:
            return self.policies[0].estimate
        return estimate(mean, [[policy.estimate.value for policy in self.policies]])

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headers, and one row per session; below them one of all, if there are several."""
        headers = ["session", "frame", "episodes", "total_reward [95 %]", "median", "lowest", "highest", "length"]

        def row(name: str, frame: str, rets: list[float], lengths: list[int], e: Estimate) -> list[str]:
            told = (statistics.median(rets), min(rets), max(rets), statistics.fmean(lengths))
            return [name, frame, str(len(rets)), interval(e), *map(number, told)]

        rows = [row(str(p.session), f"{p.frame:,}", p.returns, p.lengths, p.estimate) for p in self.policies]
        if len(rows) > 1:
            rows.append(row("all", "", self, self.lengths, self.estimate))
        return headers, rows

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **_interval(self.estimate),
            "sessions": [
                {
                    "session": p.session,
                    "frame": p.frame,
                    "checkpoint": str(p.checkpoint),
                    **_interval(p.estimate),
                    "returns": p.returns,
                    "lengths": p.lengths,
                }
                for p in self.policies
            ],
        }


def _interval(e: Estimate) -> dict[str, float]:
    return {"mean": e.value, "low": e.low, "high": e.high}


def evaluate(
    target: str | Path,
    episodes: int = 100,
    *,
    out: str | Path = "data",
    num_envs: int = 16,
    stochastic: bool = False,
    seed: int = 0,
    checkpoint: str | int = "best",
    all_sessions: bool = False,
    device: str = "cpu",
) -> Evaluation:
    """Play episodes with the policy of a run, on envs of their own.

    Args:
        target: a run folder (its best session counts), a checkpoint file, or `latest` of `out`.
        episodes: of each policy.
        out: folder of the run folders.
        num_envs: stepped together.
        stochastic: draw actions from the policy; else its likeliest ones are taken.
        seed: the same seed gives the same episodes.
        checkpoint: `best`, `latest`, or a frame at which `meta.keep_checkpoints` kept a policy.
        all_sessions: play with the policy of every session.
        device: torch name.

    Returns:
        The undiscounted returns, as a list. Its `estimate` has the mean (`value`) and the ends of the 95 % interval
        (`low`, `high`), `lengths` are the episodes' steps, `policies` has the returns of each session.

    Raises:
        LabError: no such run or policy.
    """
    paths = choose(target, str(checkpoint), out=Path(out).expanduser(), all_sessions=all_sessions)
    policies = [SavedPolicy.open(path) for path in paths]
    return Evaluation(measure(policy, episodes, num_envs, seed, stochastic, device) for policy in policies)


def measure(
    policy: SavedPolicy, episodes: int, num_envs: int = 16, seed: int = 0, stochastic: bool = False, device: str = "cpu"
) -> PolicyScore:
    """Play episodes with one policy; arguments as for `evaluate`."""
    if episodes < 1 or num_envs < 1:
        raise LabError(f"episodes and envs must be at least 1 (got {episodes} and {num_envs})")
    with closing(policy.env(min(num_envs, episodes))) as env:
        agent = policy.agent(env, device, seed=derive(seed, ACTIONS))
        returns, lengths = play(agent, env, episodes, derive(seed, ENV), explore=stochastic)
    return PolicyScore(policy.session, policy.frame, policy.path, returns, lengths)


def choose(target: str | Path, which: str, *, out: Path, all_sessions: bool = False) -> list[Path]:
    """Checkpoint files that are meant: of a run's best session, or of all sessions of its trial; see `evaluate`."""
    path = Path(target).expanduser()
    if path.is_file() and path.suffix == ".pt":
        if which != "best" or all_sessions:
            raise LabError(f"{target}: is one checkpoint; --checkpoint and --all-sessions choose among those of a run")
        return [path]
    layout = find_run(target, out)
    trial, best = indices(layout, best_checkpoint(layout))
    found = [indices(layout, path) for path in layout.root.glob("model/*_ckpt*.pt")]
    sessions = sorted({s for its_trial, s in found if its_trial == trial}) if all_sessions else [best]
    return [_checkpoint(layout, trial, session, which) for session in sessions]


def _checkpoint(layout: Layout, trial: int, session: int, which: str) -> Path:
    if which not in WHICH and not which.isdecimal():
        near = did_you_mean(which, WHICH)
        raise LabError(f"--checkpoint: unknown '{which}'{near} (known: {', '.join(WHICH)}, or a frame)")
    best, latest = layout.best(trial, session), layout.checkpoint(trial, session)
    if which == "best" and best.exists():
        return best
    path = layout.kept(trial, session, int(which)) if which.isdecimal() else latest
    if path.exists():
        if which == "best":
            logger.warning("session {}: no best policy was saved; using the latest checkpoint, {}", session, path.name)
        return path
    stem = f"model/{layout.s(trial, session)}_ckpt-"
    frames = sorted(int(p.stem.rpartition("-")[2]) for p in layout.root.glob(f"{stem}[0-9]*"))
    known = [word for word, file in (("best", best), ("latest", latest)) if file.exists()]
    listed = ", ".join([*known, *map(str, frames)]) or "none"
    kept = "" if frames else "; no frame was kept, see meta.keep_checkpoints"
    raise LabError(f"{layout.root}: session {session} has no checkpoint '{which}' (known: {listed}{kept})")
