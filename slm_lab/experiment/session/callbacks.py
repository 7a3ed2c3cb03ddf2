"""A caller's own functions, called while a run is at work, in the caller's process."""

import time
from collections.abc import Callable
from typing import NamedTuple

from slm_lab.agent.metrics import Row

POLL = 0.1
"""Seconds between two calls of `should_stop`, at least; it is called after every row too."""
FEED = 0.2
"""Seconds of episodes that a session reports together."""


class Episode(NamedTuple):
    """A finished episode of training."""

    epi: int
    """Its number in the session, from 1."""
    ret: float
    """Undiscounted return of the env."""
    length: int
    """Steps."""


class Callbacks:
    """Calls the functions. The first exception of one of them is kept, and asks the run to stop.

    Args:
        on_row: called with the session's index and each of its rows.
        on_episode: called with the session's index and each finished episode, before the row that covers it.
        should_stop: called now and then; true stops the run.
    """

    def __init__(
        self,
        on_row: Callable[[int, Row], object] | None = None,
        on_episode: Callable[[int, Episode], object] | None = None,
        should_stop: Callable[[], object] | None = None,
    ) -> None:
        self._on_row, self._on_episode, self._should_stop = on_row, on_episode, should_stop
        self._stopped = False
        self._next = 0.0
        self.wants_episodes = on_episode is not None
        self.error: Exception | None = None
        """What a function raised."""

    def row(self, session: int, row: Row) -> None:
        """A session has a row."""
        if self._on_row is not None and not self._stopped:
            self._call(self._on_row, session, row)
        self._next = 0.0
        self.stop()

    def episodes(self, session: int, episodes: list[Episode]) -> None:
        """Episodes of a session have ended."""
        for episode in episodes:
            if self._on_episode is not None and not self._stopped:
                self._call(self._on_episode, session, episode)

    def with_stop(self, other: Callable[[], bool]) -> Callable[[], bool]:
        """`stop`, or what another function says; that function alone where there is nothing to call."""
        if (self._on_row, self._on_episode, self._should_stop) == (None, None, None):
            return other
        return lambda: other() or self.stop()

    def stop(self) -> bool:
        """Whether to stop; cheap enough to be asked at each step."""
        if self._should_stop is not None and not self._stopped and time.monotonic() >= self._next:
            self._stopped = bool(self._call(self._should_stop)) or self._stopped
            self._next = time.monotonic() + POLL
        return self._stopped

    def _call(self, function: Callable[..., object], *args: object) -> object:
        try:
            return function(*args)
        except Exception as e:  # noqa: BLE001  raised again once the sessions have saved
            self._stopped, self.error = True, e
            return None


class EpisodeFeed:
    """Sends the episodes of FEED seconds, or up to a row, together: short ones would flood the pipe to the parent."""

    def __init__(self, send: Callable[[list[Episode]], None]) -> None:
        self._send = send
        self._waiting: list[Episode] = []
        self._due = 0.0

    def add(self, epi: int, returns: list[float], lengths: list[int]) -> None:
        """Episodes that ended in one step, the last of which is number `epi`."""
        first = epi - len(returns) + 1
        self._waiting += map(Episode, range(first, epi + 1), returns, lengths)
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Send what there is."""
        if self._waiting:
            self._send(self._waiting)
            self._waiting = []
        self._due = time.monotonic() + FEED
