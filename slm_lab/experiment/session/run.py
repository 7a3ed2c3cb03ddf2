"""Which session this is, and what sessions, trials and runs give back: plain data, passed explicitly.

No lab mode is in env variables, no index in the spec. Results can be sent by a worker to its parent.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from slm_lab.agent.metrics import Row
from slm_lab.experiment.records.analysis import Metrics
from slm_lab.lib.cores import available_cores
from slm_lab.lib.layout import Layout
from slm_lab.lib.seeding import derive
from slm_lab.spec.model import Spec


class Mode(StrEnum):
    """What is done with the spec."""

    DEV = "dev"
    TRAIN = "train"
    SEARCH = "search"
    ENJOY = "enjoy"


@dataclass(frozen=True)
class Options:
    """What the command line says beside the spec. Saved with the run; none of it changes the mathematics but `seed`."""

    out: Path = field(default_factory=lambda: Path("data"))
    """Folder that run folders are made in."""
    seed: int | None = None
    """Over meta.random_seed."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto: what the net's `gpu` key says, where a GPU is present."""
    cuda_offset: int = 0
    render: bool = False
    log_level: str = "INFO"
    log_metrics: bool = False
    """Log strength, efficiency, stability, gradient norms."""
    profile: bool = False
    keep: int = 3
    """Trials of a search whose models are kept; -1: all."""
    progress: bool = True
    """Live display where there is a terminal; log lines otherwise."""
    start_from: str | None = None
    """Run folder, checkpoint or `latest`: sessions start from its weights and normalizer."""
    ray_address: str | None = None
    """Of the Ray cluster that a search runs on; None: one is started here, for the search."""


@dataclass(frozen=True)
class Run:
    """One session of one trial."""

    spec: Spec
    mode: Mode
    layout: Layout
    trial: int = 0
    session: int = 0
    threads: int = 1
    """torch threads that the session may have; a small net takes one."""
    options: Options = Options()
    cores: int = field(default_factory=available_cores)
    """That the trial may use, all its sessions together."""
    shared_fd: int | None = None
    """Number of the open file with what the sessions of a distributed trial have in common."""
    batch: int = 1
    """Sessions that its process computes together."""
    report_episodes: bool = False
    """Someone listens to each episode."""

    @property
    def seed(self) -> int:
        """From --seed, else meta.random_seed, else 0; and from trial and session index."""
        return self.seed_of(self.session)

    def seed_of(self, session: int) -> int:
        """The seed of another session of the trial."""
        given = self.spec.meta.random_seed or 0 if self.options.seed is None else self.options.seed
        return derive(given, self.trial, session)


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
    signal: int | None = None
    """That asked it to stop."""
