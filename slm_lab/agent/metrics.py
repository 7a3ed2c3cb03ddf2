"""The progress of a session: finished episodes, the latest statistics, a row at each checkpoint."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loguru import logger

from slm_lab.lib.errors import LabError
from slm_lab.lib.stateful import State

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, float | int | None]
"""Column -> value, in the column order of the CSV. None: not known (yet); an empty cell."""
Sink = Callable[[Row], None]

COLUMNS = ("total_reward", "total_reward_ma", "loss", "fps", "frame", "wall_t", "t", "epi", "opt_step", "lr")
"""The columns that every table has; extras follow them."""
WINDOW = 100
"""total_reward is the mean of the last WINDOW episodes, total_reward_ma that of the last WINDOW rows."""
RECENT = 10
"""fps is the rate over the last RECENT rows."""


class MetricsTracker:
    """One per session and kind (train, eval). Knows neither agent nor env; results go to the sinks.

    Args:
        sinks: each is called with every row.
        extras: further columns in their order, also those that get a first value only later (the entropy before the
            first update). Names that are known when the first row is made, through `record` or as variables, are added
            after them; from then on the columns are fixed. `episode_length` is the mean length of the same episodes as
            total_reward, in steps.
        window: number of episodes that total_reward is the mean of. For an evaluation of n episodes: n, so that a row
            holds nothing of an earlier evaluation.
    """

    def __init__(self, sinks: Sequence[Sink] = (), extras: Sequence[str] = (), window: int = WINDOW) -> None:
        self.sinks = list(sinks)
        self.rows: list[Row] = []
        """Rows since the start, or since `load_rows`."""
        self.epi = 0
        """Episodes finished."""
        self.best: float | None = None
        """Highest total_reward_ma of any row."""
        self.is_best = False
        """The latest row reached `best`."""
        self.on_episodes: Callable[[int, list[float], list[int]], None] | None = None
        """Called with `epi`, returns and lengths when episodes have ended."""
        self._extras = list(dict.fromkeys(e for e in extras if e not in COLUMNS))
        self._columns: list[str] | None = None
        self._returns: deque[float] = deque(maxlen=window)
        self._lengths: deque[int] = deque(maxlen=window)
        self._row_rewards: deque[float | None] = deque(maxlen=WINDOW)
        self._times: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._latest: dict[str, float | Tensor] = {}
        self._last: Row | None = None
        self._dropped: set[str] = set()

    def episodes(self, returns: list[float], lengths: list[int]) -> None:
        """Count the episodes that ended in a step.

        Args:
            returns: undiscounted returns; usually empty.
            lengths: in steps t, as many.

        Raises:
            LabError: a return is not a number.
        """
        if returns:
            if any(map(math.isnan, returns)):
                raise LabError(
                    f"the return of episode {self.epi + 1} or a later one is not a number: see the env's rewards"
                )
            self.epi += len(returns)
            self._returns.extend(returns)
            self._lengths.extend(lengths)
            if self.on_episodes is not None:
                self.on_episodes(self.epi, returns, lengths)

    def record(self, **scalars: "float | Tensor") -> None:
        """Keep the latest value of each name. 0-d tensors are kept as they are and read at the next checkpoint only."""
        self._latest.update(scalars)

    @property
    def final_total_reward(self) -> float:
        """Mean return of the last (at most 100) finished episodes over all envs; NaN before the first."""
        return math.fsum(self._returns) / len(self._returns) if self._returns else math.nan

    @property
    def total_reward_ma(self) -> float:
        """Mean of total_reward over the last (at most 100) rows, those without a finished episode left out; or NaN."""
        known = [r for r in self._row_rewards if r is not None]
        return math.fsum(known) / len(known) if known else math.nan

    @property
    def frame(self) -> int:
        """Frame of the latest row; -1 before the first."""
        return -1 if self._last is None else int(self._last["frame"] or 0)

    @property
    def wall_t(self) -> float:
        """Seconds up to the latest row; a resumed run counts on from there."""
        return 0.0 if self._last is None else float(self._last["wall_t"] or 0.0)

    def checkpoint(self, *, frame: int, t: int, opt_step: int, wall_t: float, variables: dict[str, float]) -> Row:
        """Make a row, append it and hand it to the sinks.

        A second call at the same frame gives the same row again and does nothing, so the end of a session may always
        ask for one.

        Args:
            frame: frames over all envs.
            t: vector steps.
            opt_step: optimizer steps.
            wall_t: seconds since the session began, those before a resume included.
            variables: current lr, explore_var, entropy_coef ...; win over recorded values of the same name.
        """
        if self._last is not None and frame == self._last["frame"]:
            return self._last
        reward = _known(self.final_total_reward)
        self._row_rewards.append(reward)
        ma = _known(self.total_reward_ma)
        values: Row = {name: float(value) for name, value in {**self._latest, **variables}.items()}
        if self._lengths:
            values["episode_length"] = math.fsum(self._lengths) / len(self._lengths)
        values |= {
            "total_reward": reward,
            "total_reward_ma": ma,
            "fps": self._fps(int(frame), wall_t),
            "frame": int(frame),
            "wall_t": round(wall_t, 3),
            "t": int(t),
            "epi": self.epi,
            "opt_step": int(opt_step),
        }
        row = {name: values.get(name) for name in self._columns_for(values)}
        self.is_best = ma is not None and (self.best is None or ma >= self.best)
        if self.is_best:
            self.best = ma
        self._last = row
        self.rows.append(row)
        for sink in self.sinks:
            sink(row)
        return row

    def _fps(self, frame: int, wall_t: float) -> float | None:
        """Frames per second since the earliest of the RECENT rows before this one; of the first row since the start."""
        frames, seconds = self._times[0] if self._times else (0, 0.0)
        self._times.append((frame, wall_t))
        return round((frame - frames) / (wall_t - seconds), 1) if wall_t > seconds else None

    def load_rows(self, rows: Sequence[Row]) -> None:
        """Restore the rows up to a checkpoint, as `CsvSink.truncate_after` returns them.

        No snapshot holds them, for its cost would grow with the run. Call it after `load_state_dict`.
        """
        self.rows = list(rows)
        # the time since the checkpoint belongs to no row: fps is measured from the last row on
        self._times = deque(((int(r["frame"] or 0), float(r["wall_t"] or 0.0)) for r in rows[-1:]), RECENT)

    def state_dict(self) -> State:
        """A snapshot of bounded size: windows, counters, latest values, last row; not the rows."""
        return {
            "epi": self.epi,
            "best": self.best,
            "is_best": self.is_best,
            "columns": None if self._columns is None else list(self._columns),
            "returns": [float(r) for r in self._returns],
            "lengths": [int(n) for n in self._lengths],
            "row_rewards": list(self._row_rewards),
            "latest": {name: float(value) for name, value in self._latest.items()},
            "last": None if self._last is None else dict(self._last),
        }

    def load_state_dict(self, state: State) -> None:
        """Resume from a snapshot: later rows equal those of an uninterrupted run, except for fps and wall_t."""
        self.epi = state["epi"]
        self.best = state["best"]
        self.is_best = state["is_best"]
        self._columns = None if state["columns"] is None else list(state["columns"])
        self._returns = deque(state["returns"], self._returns.maxlen)
        self._lengths = deque(state["lengths"], self._lengths.maxlen)
        self._row_rewards = deque(state["row_rewards"], WINDOW)
        self._latest = dict(state["latest"])
        self._last = None if state["last"] is None else dict(state["last"])
        self.rows = []

    def _columns_for(self, values: Row) -> list[str]:
        if self._columns is None:
            # the mean length is always known, but a column of it is wanted only where declared
            found = [n for n in values if n not in COLUMNS and n not in self._extras and n != "episode_length"]
            self._columns = [*COLUMNS, *self._extras, *found]
        late = values.keys() - set(self._columns) - self._dropped - {"episode_length"}
        for name in sorted(late):
            logger.warning("'{}' came after the first row and gets no column; declare it in extras", name)
        self._dropped |= late
        return self._columns


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
