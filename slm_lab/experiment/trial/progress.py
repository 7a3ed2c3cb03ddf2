"""How far each session is: a live table where there is a terminal, else a line of the log now and then."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loguru import logger

from slm_lab.agent.metrics import Row
from slm_lab.lib.log import file_logger

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

INTERVAL = 0.5
"""Least seconds between two drawings of the table."""
LOG_SHARE = 10
"""Percent of a session between two of its log lines, at most."""
LOG_SECONDS = 60.0
"""Seconds between two log lines of a session, at most; a row has to come."""


class LiveTable:
    """A table on the terminal that is redrawn when there is news. Use as a context manager."""

    def __init__(self, *, live: bool, console: "Console | None" = None) -> None:
        self._drawn = 0.0
        self._live: Any = None
        if live:
            from rich.console import Console  # not needed where nothing is drawn
            from rich.live import Live

            console = console or Console(stderr=True)
            if console.is_terminal:
                # drawn when there is news: a thread of its own would take time from a session in this process
                self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            self.draw()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.update(self.render(), refresh=True)
            self._live.stop()

    def render(self) -> Any:
        """What is drawn, for rich."""
        raise NotImplementedError

    def draw(self) -> None:
        """Redraw, unless that was done a moment ago."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= INTERVAL:
            self._drawn = now
            self._live.update(self.render(), refresh=True)


class Progress(LiveTable):
    """The sessions of a trial; tell it each row."""

    def __init__(
        self,
        sessions: list[int],
        max_frame: int,
        *,
        live: bool = True,
        quiet: bool = False,
        console: "Console | None" = None,
    ) -> None:
        self._rows: dict[int, Row | None] = dict.fromkeys(sessions)
        self._states: dict[int, str] = dict.fromkeys(sessions, "waiting")
        self._max_frame = max_frame
        self._quiet = quiet
        self._logged: dict[int, int] = {}
        self._logged_at: dict[int, float] = dict.fromkeys(sessions, time.monotonic())
        super().__init__(live=live and not quiet, console=console)

    def row(self, session: int, row: Row) -> None:
        """A session reached a log checkpoint."""
        self._rows[session] = row
        self._states[session] = ""
        self.draw()
        if not self._quiet:
            self._log(session, row)

    def state(self, session: int, state: str) -> None:
        """Say what a session is at, in a word: starting, done, stopped, crashed."""
        self._states[session] = state
        self.draw()

    def render(self) -> "Table":
        """All sessions, a line each."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("session")
        for name in ("frames", "%", "fps", "total_reward", "ma", "ETA"):
            table.add_column(name, justify="right", min_width=6)
        for session, row in self._rows.items():
            table.add_row(str(session), *self._cells(row, self._states[session]))
        return table

    def _cells(self, row: Row | None, state: str) -> list[str]:
        if row is None:
            return ["", "", "", "", "", state]
        frame = int(row["frame"] or 0)
        fps = row["fps"]
        eta = duration((self._max_frame - frame) / fps) if fps and frame < self._max_frame else ""
        return [
            f"{frame:,}",
            f"{100 * frame / self._max_frame:.0f}",
            _number(fps, ",.0f"),
            _number(row["total_reward"], ",.1f"),
            _number(row["total_reward_ma"], ",.1f"),
            state or eta,
        ]

    def _log(self, session: int, row: Row) -> None:
        share = int(100 * int(row["frame"] or 0) / self._max_frame)
        late = time.monotonic() - self._logged_at[session] >= LOG_SECONDS
        if late or share // LOG_SHARE > self._logged.get(session, 0):
            self._logged[session] = share // LOG_SHARE
            self._logged_at[session] = time.monotonic()
            frames, percent, fps, reward, ma, eta = self._cells(row, "")
            left = f"  {eta} left" if eta else ""
            # a line would tear the table
            (logger if self._live is None else file_logger).info(
                "session {}: frame {} ({}%)  fps {}  total_reward {}  ma {}{}",
                *(session, frames, percent, fps, reward, ma, left),
            )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the larger ones only where there are any.

    >>> duration(5.2), duration(65), duration(3600)
    ('0:05', '1:05', '1:00:00')
    """
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
