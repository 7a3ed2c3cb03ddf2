"""What sessions, trials and runs give back: plain data that a worker can send to its parent."""

from dataclasses import dataclass, field
from pathlib import Path

from slm_lab.agent.metrics import Row
from slm_lab.experiment.records.analysis import Metrics


@dataclass(frozen=True)
class SessionResult:
    """A session that ended, or was stopped and can be resumed."""

    trial: int
    session: int
    frame: int
    """Frames reached."""
    rows: list[Row]
    """Rows of training, one a log checkpoint."""
    metrics: Metrics
    """Of training: {"scalar": ..., "local": ...}."""
    eval_metrics: Metrics | None = None
    """Of the evaluations, where there are any."""
    stopped: bool = False
    """Interrupted before its end; its checkpoint is saved."""


@dataclass(frozen=True)
class Crash:
    """A session that failed."""

    session: int
    reason: str
    """One line, or the message of a user error."""
    file: Path | None = None
    """The traceback."""
    misuse: bool = False
    """A fault of the spec or of an option, found only when the session was built; not of the training."""


Outcome = SessionResult | Crash | None
"""What became of one session; None: it was not started before a stop, and can be resumed."""


@dataclass(frozen=True)
class TrialResult:
    """The sessions of one trial."""

    trial: int
    metrics: dict[str, float]
    """Scalar metrics over the sessions that did not crash; empty if there are none or the trial was stopped."""
    sessions: list[SessionResult] = field(default_factory=list)
    crashed: list[Crash] = field(default_factory=list)
    stopped: bool = False
    """Interrupted; can be resumed."""


class Scalars(dict[str, float]):
    """Scalar metrics by name."""

    def __missing__(self, key: str) -> float:
        """`final_return`, as scripts from before call it."""
        if key != "final_return" or "final_total_reward" not in self:
            raise KeyError(key)
        return self["final_total_reward"]


@dataclass(frozen=True)
class RunResult:
    """One command's worth of work."""

    folder: Path
    """The run folder."""
    metrics: dict[str, float]
    """Scalar metrics of the trial: total_reward_ma, final_total_reward, strength ..."""
    crashed: list[Crash] = field(default_factory=list)
    """Sessions that failed; the metrics are those of the others."""
    stopped: bool = False
    """Interrupted; `slm-lab run train@<folder>` resumes it."""
