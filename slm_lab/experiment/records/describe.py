"""What a run folder shows of its run, at any stage; imports no torch."""

import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.records.baselines import current_id
from slm_lab.experiment.records.runs import RunFile, Status, locked
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import read_file


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
    spec = read_spec(layout)
    frames, score = _progress(layout)
    return RunLine(
        layout.root.name,
        layout.name,
        current_id(env) if isinstance(env := get(spec, "env", "name"), str) else None,
        get(spec, "agent", "algorithm", "name"),
        score,
        frames,
        sum(map(_has_row, session_tables(layout).values())),
        read_status(layout),
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


def _progress(layout: Layout) -> tuple[int | None, float | None]:
    """Frames and total_reward_ma: of the finished trial, else of the sessions' tables so far."""
    with suppress(LabError):
        scalars = read_json(layout.trial_scalar(0))
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
