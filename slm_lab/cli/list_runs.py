"""`slm-lab list-runs`."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from slm_lab.agent.sinks import read_rows
from slm_lab.cli.report import print_table
from slm_lab.experiment.runs import RunFile, Status, list_layouts, locked
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import read_file

_COLOURS = {"completed": "green", "running": "cyan", "stopped": "yellow", "killed": "yellow", "crashed": "bold red"}


@dataclass(frozen=True)
class RunLine:
    """One run, as far as its folder tells."""

    folder: str
    spec: str
    env: str | None
    algorithm: str | None
    sessions: int | None
    frames: int | None
    """Of the session that is furthest."""
    total_reward_ma: float | None
    """Mean over sessions."""
    status: str
    """running, completed, stopped, crashed; killed: it was running, but no process is at it any more."""


def main(out: Path, pattern: str, *, as_json: bool) -> None:
    """Print the runs of a folder, the newest last."""
    lines = [describe(layout) for layout in list_layouts(out) if pattern in layout.root.name]
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=2, ensure_ascii=False))
        return
    if not lines:
        print(f"no run in {out}" + (f" whose name contains '{pattern}'" if pattern else ""))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("folder", "spec", "env", "algorithm"):
        table.add_column(name, overflow="fold")
    for name in ("sessions", "frames", "total_reward_ma"):
        table.add_column(name, justify="right")
    table.add_column("status")
    for line in lines:
        score = "" if line.total_reward_ma is None else f"{line.total_reward_ma:.2f}"
        numbers = ["" if n is None else f"{n:,}" for n in (line.sessions, line.frames)]
        words = [line.folder, line.spec, line.env or "?", line.algorithm or "?", *numbers, score]
        table.add_row(*map(Text, words), Text(line.status, style=_COLOURS.get(line.status, "")))
    print_table(table)


def describe(layout: Layout) -> RunLine:
    """What the files of a run folder say; None for what they do not."""
    spec = _spec(layout)
    frames, score = _progress(layout)
    return RunLine(
        layout.root.name,
        layout.name,
        _get(spec, "env", "name"),
        _get(spec, "agent", "algorithm", "name"),
        _get(spec, "meta", "max_session") or 1,
        frames,
        score,
        _status(layout),
    )


def _spec(layout: Layout) -> Any:
    with suppress(LabError):
        return next(iter(read_file(layout.spec()).values()), None)
    return None


def _get(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _progress(layout: Layout) -> tuple[int | None, float | None]:
    """Frames and total_reward_ma: of the finished trial, else of the sessions' tables so far."""
    with suppress(OSError, ValueError):
        scalars = json.loads(layout.trial_scalar(0).read_text(encoding="utf-8"))
        return scalars.get("frame"), scalars.get("total_reward_ma")
    last = []
    for table in sorted((layout.root / "info").glob("*_session_df_train.csv")):
        with suppress(OSError, ValueError, LabError):
            last += read_rows(table)[-1:]
    frames = [int(frame) for row in last if (frame := row.get("frame")) is not None]
    scores = [float(score) for row in last if (score := row.get("total_reward_ma")) is not None]
    return max(frames, default=None), sum(scores) / len(scores) if scores else None


def _status(layout: Layout) -> str:
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
