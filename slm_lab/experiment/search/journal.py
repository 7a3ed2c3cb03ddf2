"""The journal of a search: all that must outlive a kill, in one JSON file that is whole at every moment.

Ray Tune's own snapshot is seconds old when a search is killed, and the scheduler is not in it. The journal is written
before anything follows from what it says: which values a trial got, in which order the sampler was asked and told, what
each trial had reached at each rung. A resumed search plays it back, and then knows what the killed one knew.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_json


class TrialStatus(StrEnum):
    """What became of a trial."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped early"
    CRASHED = "crashed"


ENDED = (TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.CRASHED)


@dataclass
class Record:
    """One trial."""

    trial: int
    values: dict[str, Any]
    """Key path -> value."""
    status: TrialStatus = TrialStatus.WAITING
    frame: int = 0
    """Of the last row that counts."""
    metric: float | None = None
    """`total_reward_ma` there, the mean over sessions."""
    reason: str | None = None
    """Why it crashed."""
    misuse: bool = False
    """It crashed over values that do not make a spec."""
    crashed_sessions: int = 0
    """Of a trial that continued with the others."""

    @property
    def ended(self) -> bool:
        """Nothing is left to do."""
        return self.status in ENDED


@dataclass
class Journal:
    """Written with `save` after every change that something follows from."""

    path: Path
    records: dict[int, Record] = field(default_factory=dict)
    events: list[tuple[str, int, float | None]] = field(default_factory=list)
    """What the sampler saw, in its order: ("ask", trial, None), ("tell", trial, metric or None)."""
    scheduler: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Read it; an empty one where there is no file."""
        if not path.exists():
            return cls(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            records = [Record(**{**r, "status": TrialStatus(r["status"])}) for r in data["trials"]]
            events = [(str(kind), int(trial), metric) for kind, trial, metric in data["events"]]
            return cls(path, {r.trial: r for r in records}, events, data["scheduler"])
        except (ValueError, KeyError, TypeError) as e:
            raise LabError(f"{path}: not a journal of a search ({e})") from None

    def save(self) -> None:
        """Write it."""
        trials = [asdict(record) for record in self.records.values()]
        write_json(self.path, {"trials": trials, "events": self.events, "scheduler": self.scheduler})

    def asked(self, trial: int, values: Mapping[str, Any]) -> Record:
        """The sampler gave a trial its values."""
        self.records[trial] = record = Record(trial, dict(values))
        self.events.append(("ask", trial, None))
        self.save()
        return record

    def ended(self, trial: int, status: TrialStatus, **changes: Any) -> None:
        """A trial is over. What is true already stays: a trial that was stopped early does not complete as well."""
        record = self.records[trial]
        if record.ended:
            return
        record.status = status
        for name, value in changes.items():
            setattr(record, name, value)
        self.save()

    def told(self, trial: int, metric: float | None) -> None:
        """The sampler learned how a trial ended."""
        self.events.append(("tell", trial, metric))
        self.save()
