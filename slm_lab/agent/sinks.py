"""Sinks: each is called with every row of a tracker.

Tables and log lines are built in; `meta.sinks` adds others by name, also those of plug-ins.
"""

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from loguru import logger

from slm_lab.agent.metrics import Row
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_atomic
from slm_lab.lib.registry import lookup, register
from slm_lab.spec.model import SinkSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = dict[str, NDArray[np.float64]]

_BLOCK = 20_000
"""Rows that `read_table` holds as text at a time."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a table that a CsvSink wrote; see `_read_cells` for what is left out.

    Whole numbers come back as int, others as float, empty cells as None: exactly what was written.

    Raises:
        LabError: it holds something else than numbers
    """
    with _damage_told(path):
        header, *body = [*_read_cells(path)] or [[]]
        return [dict(zip(header, map(_value, cells), strict=True)) for cells in body]


def read_table(path: Path) -> "Table":
    """The columns of a table that a CsvSink wrote, [rows] each; an empty cell is NaN. See `_read_cells`.

    Raises:
        LabError: it holds something else than numbers.
    """
    with _damage_told(path):
        rows = _read_cells(path)
        header = next(rows, [])
        blocks: list[list[NDArray[np.float64]]] = []
        while block := list(islice(rows, _BLOCK)):
            columns = zip(*block, strict=True)
            blocks.append([np.array([float(cell) if cell else np.nan for cell in column]) for column in columns])
    if not blocks:
        return {}
    return {name: np.concatenate(parts) for name, parts in zip(header, zip(*blocks, strict=True), strict=True)}


def _read_cells(path: Path) -> Iterator[list[str]]:
    """The header of a table, then its rows; nothing where there is no file.

    A last line that is half written, and lines of another width, are left out.
    """
    if not Path(path).exists():
        return
    with Path(path).open(encoding="utf-8", errors="replace", newline="") as file:
        # what follows the last line break was cut off while it was written, even where it looks complete
        reader = csv.reader(line for line in file if line.endswith("\n"))
        header = next(reader, [])
        yield header
        yield from (cells for cells in reader if len(cells) == len(header))


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, csv.Error) as e:
        raise LabError(f"{path}: damaged, it must hold a table of numbers ({e})") from None


class CsvSink:
    """A table, one line per row, appended to: the cost of a row does not grow with the run. Floats are written exactly.

    Args:
        path: its folder must exist. An existing table is continued, in its own columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._header: list[str] | None = None
        if self.path.exists():
            with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
                line = file.readline()
            self._header = next(csv.reader([line])) if line.endswith("\n") else None

    def __call__(self, row: Row) -> None:
        """Append the row; the first one of a file brings the header."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if self._header is None:
                self._header = list(row)
                writer.writerow(self._header)
            writer.writerow([_cell(row.get(name)) for name in self._header])

    def sync(self) -> None:
        """Force the rows to the disk."""
        if self.path.exists():
            with self.path.open("ab") as file:
                os.fsync(file.fileno())

    def truncate_after(self, frame: int) -> list[Row]:
        """Drop the rows beyond a frame, and a half-written last line: what a resume from that frame will write again.

        Args:
            frame: of the checkpoint; -1 empties the table.

        Returns:
            The rows that remain.
        """
        rows = [row for row in read_rows(self.path) if (row["frame"] or 0) <= frame]
        if rows:
            self._header = list(rows[0])
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([self._header, *([_cell(v) for v in row.values()] for row in rows)])
            write_atomic(self.path, text.getvalue())
        else:
            self._header = None
            self.path.unlink(missing_ok=True)
        return rows


class LogSink:
    """One compact line of the log per row.

    Args:
        label: put first, `t0 s1` say.
        max_frame: length of the session; shows the share done.
        log: takes a format and its argument.
    """

    def __init__(
        self, label: str = "", max_frame: int | None = None, log: Callable[[str, str], None] = logger.info
    ) -> None:
        self.label = label
        self.max_frame = max_frame
        self._log = log

    def __call__(self, row: Row) -> None:
        """Log the row."""
        frame = int(row["frame"] or 0)
        share = f" ({100 * frame / self.max_frame:.0f}%)" if self.max_frame else ""
        parts = [f"{self.label} frame {frame}{share}".strip()]
        parts += [f"{text} {value:{form}}" for name, text, form in _SHOWN if (value := row.get(name)) is not None]
        self._log("{}", "  ".join(parts))


_SHOWN = (
    ("fps", "fps", ".0f"),
    ("total_reward", "total_reward", ".2f"),
    ("total_reward_ma", "ma", ".2f"),
    ("loss", "loss", ".4g"),
    ("lr", "lr", ".3g"),
    ("explore_var", "explore", ".3g"),
    ("entropy", "entropy", ".3g"),
)


@dataclass(frozen=True)
class SinkRun:
    """The session whose rows a sink gets."""

    name: str
    """Of the run folder."""
    trial: int
    session: int
    stem: str
    """Begins the names of the session's files: `ppo_cartpole_t0_s3`."""
    spec: dict[str, Any]
    """What is run, as plain data."""
    folder: Path
    """For files of the sink; `log` in the run folder."""
    resumed_at: int | None = None
    """Frame at which the session was resumed: rows beyond it come again. None: it starts at frame 0."""

    @property
    def label(self) -> str:
        """Names the session: `ppo_cartpole_2026_01_31_120000_t0_s3`."""
        return f"{self.name}_t{self.trial}_s{self.session}"


class Sink(ABC):
    """Base of the sinks that `meta.sinks` names. One is made per session, in the process of that session.

    A subclass is registered with `@register("sink")`. If it raises in `__call__`, the log says so once and training
    goes on without it; if it raises in `__init__`, the run is refused.

    Args:
        spec: its own keys, a `Spec` of the class.
        run: whose rows it gets.
    """

    Spec: ClassVar[type[SinkSpec]] = SinkSpec

    def __init__(self, spec: Any, run: SinkRun) -> None:
        self.spec = spec
        self.run = run

    @abstractmethod
    def __call__(self, row: Row) -> None:
        """Take a row; None: not known yet."""

    def close(self) -> None:
        """The session has ended."""
        return


class SafeSink:
    """A sink that can't hurt the training: the first exception is logged, and it gets no more rows.

    Raises:
        LabError: it can't be made.
    """

    def __init__(self, spec: SinkSpec, run: SinkRun) -> None:
        self._name = spec.name
        try:
            self._sink: Sink | None = lookup("sink", spec.name)(spec, run)
        except Exception as e:
            raise LabError(f"meta.sinks: {spec.name}: {_reason(e)}") from e

    def __call__(self, row: Row) -> None:
        """Hand the row on."""
        if self._sink is not None:
            self._try(lambda sink: sink(row))

    def close(self) -> None:
        """Close the sink."""
        if self._sink is not None:
            self._try(lambda sink: sink.close())

    def _try(self, call: Callable[[Sink], None]) -> None:
        assert self._sink is not None
        try:
            call(self._sink)
        except Exception as e:  # noqa: BLE001  code of others
            logger.warning("meta.sinks: {} failed and gets no more rows: {}", self._name, _reason(e))
            self._sink = None


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {' '.join(str(error).split())}"


class TensorBoardSpec(SinkSpec):
    """Keys of the sink `tensorboard`: none but its name."""


@register("sink", "tensorboard")
class TensorBoardSink(Sink):
    """Scalars over frames, as TensorBoard events in `log/events_*`.

    After a resume TensorBoard hides what was written beyond that frame before.
    """

    Spec = TensorBoardSpec

    def __init__(self, spec: SinkSpec, run: SinkRun) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        super().__init__(spec, run)
        purge = None if run.resumed_at is None else run.resumed_at + 1
        self.writer: Any = SummaryWriter(str(run.folder / f"events_{run.stem}"), purge_step=purge)

    def __call__(self, row: Row) -> None:
        """Write every column that has a value."""
        frame = int(row["frame"] or 0)
        for name, value in row.items():
            if name != "frame" and value is not None:
                self.writer.add_scalar(name, value, frame)
        self.writer.flush()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self.writer.close()


def _cell(value: float | None) -> str:
    # repr of a plain float is the shortest text that reads back as the same number
    return "" if value is None else str(value) if isinstance(value, int) else repr(float(value))


def _value(cell: str) -> float | int | None:
    if not cell:
        return None
    try:
        return int(cell)
    except ValueError:
        return float(cell)
