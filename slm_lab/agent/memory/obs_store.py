"""Where a replay memory keeps its observations: each one once, or, of stacked frames, only the newest frame of each."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.agent.memory.mirror import Mirror
from slm_lab.lib.stateful import State

Index = NDArray[np.int64]


class Pool:
    """Observations *O that have no place in the ring, kept under numbers. It grows; dropped places are reused."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.array = np.zeros((0, *shape), dtype)
        self._free: list[int] = []

    def put(self, obs: NDArray[Any]) -> Index:
        """Keep K observations [K, *O]; gives their numbers [K]."""
        short = len(obs) - len(self._free)
        if short > 0:
            old = self.array
            more = max(short, len(old) // 4)
            self.array = np.concatenate([old, np.zeros((more, *old.shape[1:]), old.dtype)])
            self._free = [*range(len(old) + more - 1, len(old) - 1, -1), *self._free]
        slots = np.array([self._free.pop() for _ in range(len(obs))], dtype=np.int64)
        self.array[slots] = obs
        return slots

    def take(self, slots: Index) -> NDArray[Any]:
        """[K] numbers -> [K, *O]"""
        return self.array.take(slots, 0)

    def drop(self, slots: Index) -> None:
        """Forget what is kept under these numbers."""
        self._free.extend(slots.tolist())

    def state_dict(self) -> State:
        """Contents and free places."""
        return {"array": torch.from_numpy(self.array.copy()), "free": list(self._free)}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self.array = state["array"].numpy().copy()
        self._free = list(state["free"])


class Ring:
    """A ring of rows [R, N, *S], which a device may mirror."""

    def __init__(self, rows: int, num_envs: int, shape: tuple[int, ...], dtype: str) -> None:
        self._rows = np.zeros((rows, num_envs, *shape), dtype)
        self._flat = self._rows.reshape(rows * num_envs, *shape)
        self._mirror: Mirror | None = None

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """The array of the observations."""
        return [self._rows]

    def mirror(self, device: torch.device) -> Mirror:
        """The mirror of the rows."""
        if self._mirror is None:
            self._mirror = Mirror(self._rows, device)
        return self._mirror


class PlainObs(Ring):
    """A ring of observations, [R, N, *O]."""

    def put(self, row: int | Index, obs: NDArray[Any]) -> None:
        """Write a row [N, *O]; or K rows [K, N, *O]."""
        self._rows[row] = obs
        if self._mirror is not None:
            self._mirror.put(row, obs)

    def gather(self, index: Index, device: torch.device) -> Tensor:
        """`take` on the device."""
        return self.mirror(device).take(index)

    def take(self, index: Index) -> NDArray[Any]:
        """[B] places `row * N + env` -> [B, *O]"""
        return self._flat.take(index, 0)

    def state_dict(self, rows: int) -> State:
        """The first rows."""
        return {"obs": torch.from_numpy(self._rows[:rows].copy())}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._rows[: len(state["obs"])] = state["obs"].numpy()


class StackedObs(Ring):
    """A ring of single frames [R, N, H, W] for observations that are stacks of the newest k frames, oldest first.

    A stack is rebuilt from the k rows that end at its own. Where that is not what it shows (compared by content: an
    episode began, or the env does not stack after all) it is a *start*, and kept whole beside the ring.

    Args:
        rows: R
        num_envs: N
        shape: (k, H, W)
        dtype: of a frame
    """

    def __init__(self, rows: int, num_envs: int, shape: tuple[int, ...], dtype: str) -> None:
        super().__init__(rows, num_envs, shape[1:], dtype)
        self._k, self._n, self._r = shape[0], num_envs, rows
        self._age = np.zeros((rows, num_envs), np.uint8)
        """Rows since the start, at most k - 1: then every frame of the stack is in the ring."""
        self._start = np.full((rows, num_envs), -1, np.int32)
        """Where the pool keeps it, if it is a start."""
        self._starts = Pool(shape, dtype)
        self._last: NDArray[Any] | None = None
        self._last_row = -1

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """The arrays of frames and stacks."""
        return [*super().arrays, self._starts.array]

    def put(self, row: int, obs: NDArray[Any]) -> None:
        """Write a row [N, k, H, W]; rows are written one after the other, or the last one again."""
        last, before = self._last, self._last_row
        if row == before:
            before, last = (row - 1) % self._r, None
        goes_on = np.zeros(self._n, np.bool_)
        if last is not None:
            goes_on = (last[:, 1:] == obs[:, :-1]).reshape(self._n, -1).all(1)
        old = self._start[row]
        self._starts.drop(old[old >= 0].astype(np.int64))
        old[:] = -1
        self._rows[row] = obs[:, -1]
        if self._mirror is not None:
            self._mirror.put(row, self._rows[row])
        self._age[row] = np.where(goes_on, np.minimum(self._age[before] + 1, self._k - 1), 0)
        starts = np.flatnonzero(~goes_on)
        if len(starts):
            old[starts] = self._starts.put(obs[starts])
        self._last, self._last_row = obs.copy(), row

    def take(self, index: Index) -> NDArray[Any]:
        """[B] places `row * N + env` -> [B, k, H, W]"""
        places, patch = self._plan(index)
        out = self._flat.take(places, 0)
        if patch is not None:
            batch, frame, frames = patch
            out[batch, frame] = frames
        return out

    def gather(self, index: Index, device: torch.device) -> Tensor:
        """`take` on the device."""
        mirror = self.mirror(device)
        places, patch = self._plan(index)
        out = mirror.take(places)
        if patch is not None:
            batch, frame, frames = (mirror.moved(x) for x in patch)
            out[batch, frame] = frames
        return out

    def _plan(self, index: Index) -> tuple[Index, tuple[Index, Index, NDArray[Any]] | None]:
        """Places of the frames [B, k]; for stacks that reach back beyond a start: rows, frames, and their contents."""
        k, n, r = self._k, self._n, self._r
        row, env = np.divmod(index, n)
        places = (row[:, None] + np.arange(1 - k, 1)) % r * n + env[:, None]
        age = self._age.reshape(-1).take(index)
        young = np.flatnonzero(age < k - 1)
        if not len(young):
            return places, None
        a = age[young].astype(np.int64)
        begin = (row[young] - a) % r * n + env[young]
        stack = self._starts.take(self._start.reshape(-1).take(begin).astype(np.int64))
        i, j = np.nonzero(np.arange(k) + a[:, None] < k)
        return places, (young[i], j, stack[i, j + a[i]])

    def state_dict(self, rows: int) -> State:
        """The first rows."""
        arrays = {"obs": self._rows, "age": self._age, "start": self._start}
        return {
            **{k: torch.from_numpy(v[:rows].copy()) for k, v in arrays.items()},
            "starts": self._starts.state_dict(),
            "last": None if self._last is None else torch.from_numpy(self._last.copy()),
            "last_row": self._last_row,
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        rows = len(state["obs"])
        self._rows[:rows] = state["obs"].numpy()
        self._age[:rows] = state["age"].numpy()
        self._start[:rows] = state["start"].numpy()
        self._starts.load_state_dict(state["starts"])
        self._last = None if state["last"] is None else state["last"].numpy().copy()
        self._last_row = int(state["last_row"])


def look_up(
    store: PlainObs | StackedObs,
    index: Index,
    next_index: Index,
    apart: Index,
    final: NDArray[Any] | None,
    device: torch.device | None,
) -> tuple[Tensor, Tensor]:
    """Observations and successors, [B, *O] each.

    Args:
        store: where they are
        index: [B] places
        next_index: [B] places of the successors
        apart: [A] rows of the batch whose successor is kept elsewhere
        final: [A, *O] those; None: there are none
        device: that the store is mirrored on; None: it is not
    """
    if device is not None:
        seen, then = store.gather(index, device), store.gather(next_index, device)
        if final is not None:
            mirror = store.mirror(device)
            then[mirror.moved(apart)] = mirror.moved(final)
        return seen, then
    obs, next_obs = store.take(index), store.take(next_index)
    if final is not None:
        next_obs[apart] = final
    return torch.from_numpy(obs), torch.from_numpy(next_obs)


def looks_stacked(obs: NDArray[Any], next_obs: NDArray[Any]) -> bool:
    """Whether one vector step's observations [N, *O] overlap as stacks of frames do.

    >>> frames = np.arange(5 * 20 * 20, dtype=np.uint8).reshape(1, 5, 20, 20)
    >>> looks_stacked(frames[:, :4], frames[:, 1:]), looks_stacked(frames[:, :4], frames[:, :4])
    (True, False)
    """
    shape = obs.shape[1:]
    image = obs.dtype == np.uint8 and len(shape) == 3 and 1 < shape[0] <= 16 <= min(shape[1:])
    return image and np.array_equal(obs[:, 1:], next_obs[:, :-1])
