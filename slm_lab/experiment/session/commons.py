"""What the sessions of a distributed trial hold in common: parameters, optimizer state, and the count of frames.

It is in a file without a name that the pool of workers was started with, mapped into the memory of each. First the
counts, then the tensors. Nothing is locked but the moment in which the first session to come fills it in: steps on the
parameters are taken as they come (Hogwild, Recht et al. 2011, arXiv:1106.5730), and each session counts its own frames.
"""

import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.experiment.session import checkpoint

_ALIGN = 64
"""Bytes at a multiple of which each tensor begins."""
_FILLED, _LOST = 0, 1
"""Places of the counts that belong to no session."""


class Commons:
    """One session's access to it.

    The open file with the number `fd` is empty at the start of the trial; all its sessions run at the same time.
    """

    def __init__(self, fd: int, session: int, sessions: int) -> None:
        self._fd = fd
        self._session = session
        self._frames = slice(2, 2 + sessions)
        self._present = slice(2 + sessions, 2 + 2 * sessions)
        self._size = _aligned(8 * (2 + 2 * sessions))
        with self._locked():
            if os.fstat(fd).st_size < self._size:
                os.ftruncate(fd, self._size)
        # each count is one aligned word, written by one session: no reader sees half of one
        self._counts = memoryview(mmap.mmap(fd, self._size)).cast("q")

    def leave(self) -> None:
        """Say that this session is not to be waited for: it has begun, or never will."""
        self._counts[self._present.start + self._session] = 1

    @property
    def frame(self) -> int:
        """Frames of all sessions."""
        return self._counts[_LOST] + sum(self._counts[self._frames])

    def add(self, frames: int) -> int:
        """Count frames of this session; gives those of all."""
        self._counts[self._frames.start + self._session] += frames
        return self.frame

    def join(
        self, own: Mapping[str, Tensor], restore: Callable[[], tuple[int, Sequence[int]] | None]
    ) -> dict[str, Tensor]:
        """The common tensors. Whoever comes first fills them with its own.

        Args:
            own: this session's, by name; names, shapes and types are the same in all.
            restore: called by the first: brings its own tensors to where the trial was left, and gives the frame at
                which that was and how many of them each session had played; None: the trial begins.

        Returns:
            like `own`, in memory that all sessions see.
        """
        size = self._size + sum(_aligned(t.nbytes) for t in own.values())
        with self._locked():
            if os.fstat(self._fd).st_size < size:
                os.ftruncate(self._fd, size)
            memory = mmap.mmap(self._fd, size)
            common: dict[str, Tensor] = {}
            offset = self._size
            for name, t in own.items():
                common[name] = torch.frombuffer(memory, dtype=t.dtype, count=t.numel(), offset=offset).view(t.shape)
                offset += _aligned(t.nbytes)
            if not self._counts[_FILLED]:
                left = restore()
                if left is not None:
                    frame, played = left
                    for i, frames in enumerate(played):
                        self._counts[self._frames.start + i] = frames
                    # what a session played after its last checkpoint is learned, though nobody remembers it
                    self._counts[_LOST] = max(0, frame - sum(played))
                for name, t in own.items():
                    common[name].copy_(t)
                self._counts[_FILLED] = 1
        return common

    def wait(self, stop: Callable[[], bool]) -> None:
        """Wait until all sessions have arrived or are gone: frames are shared, and a late session would get none."""
        self.leave()
        while not all(self._counts[self._present]) and not stop():
            time.sleep(0.01)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # of the process, not of the open file, which all processes inherited; the system drops it when one dies
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)


def restore(paths: Sequence[Path], agent: Agent, num_envs: int) -> tuple[int, list[int]] | None:
    """Load what was learned last, whichever session saved it.

    Returns:
        The newest checkpoint's frame, and the frames that each session had played; None: there is no checkpoint.
    """
    states = [checkpoint.load(path) if checkpoint.exists(path) else None for path in paths]
    newest = max((s for s in states if s is not None), key=lambda s: s["counters"]["frame"], default=None)
    if newest is None:
        return None
    agent.load_learned(newest["agent"])
    return newest["counters"]["frame"], [0 if s is None else s["counters"]["t"] * num_envs for s in states]


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
