"""How far the search is: a live table where there is a terminal, else a line of the log for each trial that ends."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from loguru import logger
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from slm_lab.experiment.search.journal import Journal, Record, TrialStatus
from slm_lab.experiment.trial.progress import LiveTable, duration
from slm_lab.spec.explain import shorten

_STYLES = {
    TrialStatus.WAITING: "dim",
    TrialStatus.RUNNING: "cyan",
    TrialStatus.COMPLETED: "green",
    TrialStatus.STOPPED: "yellow",
    TrialStatus.CRASHED: "bold red",
}


class SearchTable(LiveTable):
    """The trials of a search; call `update` when the journal has news."""

    def __init__(
        self,
        journal: Journal,
        paths: Sequence[str],
        count: int,
        max_frame: int,
        *,
        live: bool = True,
        console: Console | None = None,
    ) -> None:
        self._journal = journal
        self._names = short_names(paths)
        self._count = count
        self._max_frame = max_frame
        self._console = console or Console(stderr=True)
        super().__init__(live=live, console=self._console)
        self._begun = time.monotonic()
        self._before = {record.trial: record.frame for record in journal.records.values()}
        self._told = {record.trial for record in journal.records.values() if record.ended}

    def update(self) -> None:
        """Show the news."""
        for record in list(self._journal.records.values()):
            if record.ended and record.trial not in self._told:
                self._told.add(record.trial)
                level = "WARNING" if record.status is TrialStatus.CRASHED else "INFO"
                logger.log(level, "{}", describe(record, self._names))
        self.draw()

    def render(self) -> Group:
        """The trials, a line each, the best first; and a line on the whole."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("trial", justify="right")
        for name in self._names.values():
            table.add_column(name, justify="right", overflow="fold", max_width=24)
        for name in ("frames", "%", "ma"):
            table.add_column(name, justify="right", min_width=6)
        table.add_column("status")
        records = self._shown()
        for record in records:
            values = [show_value(record.values.get(path)) for path in self._names]
            share = min(100, 100 * record.frame // self._max_frame)
            metric = "-" if record.metric is None else f"{record.metric:,.1f}"
            words = [str(record.trial), *values, f"{record.frame:,}", str(share), metric]
            table.add_row(*words, Text(record.status.value, style=_STYLES[record.status]))
        hidden = len(self._journal.records) - len(records)
        note = f"  ({hidden} more trial{'s' * (hidden > 1)})" if hidden else ""
        return Group(table, Text(self.line() + note))

    def line(self) -> str:
        """Of the whole: trials, the best so far, the time that is left."""
        records = list(self._journal.records.values())
        ended = [record for record in records if record.ended]
        words = [f"{len(ended)} of {self._count} trials"]
        counts = {s: sum(record.status is s for record in ended) for s in (TrialStatus.STOPPED, TrialStatus.CRASHED)}
        words += [f"{number} {status.value}" for status, number in counts.items() if number]
        known = [record for record in records if record.metric is not None]
        if known:
            best = max(known, key=lambda record: record.metric or 0.0)
            words.append(f"best so far: trial {best.trial}, ma {best.metric:,.1f}")
        if (left := self.seconds_left()) is not None:
            words.append(f"ETA {duration(left)}")
        return ", ".join(words)

    def seconds_left(self) -> float | None:
        """From the frames per second so far; trials to come are taken to be as long as those that ended."""
        records = self._journal.records
        done = sum(record.frame - self._before.get(record.trial, 0) for record in records.values())
        elapsed = time.monotonic() - self._begun
        if done <= 0 or elapsed <= 0:
            return None
        ended = [record.frame for record in records.values() if record.ended]
        usual = sum(ended) / len(ended) if ended else self._max_frame
        running = sum(max(0.0, usual - record.frame) for record in records.values() if not record.ended)
        return (running + (self._count - len(records)) * usual) * elapsed / done

    def _shown(self) -> list[Record]:
        """As many as fit on the screen: those that run, then the best."""
        order = sorted(
            self._journal.records.values(),
            key=lambda r: (r.ended, -float("inf") if r.metric is None else -r.metric, r.trial),
        )
        return order[: max(4, self._console.height - 6)]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Of each key path the shortest end that no other one has.

    >>> list(short_names(["agent.algorithm.lr", "agent.a_spec.start_val", "agent.b_spec.start_val"]).values())
    ['lr', 'a_spec.start_val', 'b_spec.start_val']
    """

    def ends(path: str) -> list[str]:
        parts = path.split(".")
        return [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]

    taken = Counter(end for path in paths for end in ends(path))
    return {path: next((end for end in ends(path) if taken[end] == 1), path) for path in paths}


def describe(record: Record, names: Mapping[str, str]) -> str:
    """A trial that ended, in a line of the log; names: of the searched keys, short."""
    values = "  ".join(f"{names[path]} {show_value(value)}" for path, value in record.values.items())
    head = f"trial {record.trial} {record.status.value}"
    if record.status is TrialStatus.CRASHED:
        return f"{head}: {record.reason}  [{values}]"
    metric = "-" if record.metric is None else f"{record.metric:,.1f}"
    return f"{head} at frame {record.frame:,}: ma {metric}  [{values}]"


def show_value(value: Any) -> str:
    """Short, as in a table.

    >>> show_value(0.000123456), show_value([64, 64]), show_value(None)
    ('0.0001235', '[64, 64]', 'None')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else shorten(value)
