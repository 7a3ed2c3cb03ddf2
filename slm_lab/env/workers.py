"""gymnasium envs in processes of their own: for those whose step is slow and holds Python's lock.

This process steps a share of the envs, and each worker, a fresh interpreter, another. Commands go over a pipe, arrays
through shared memory. A worker ends when its pipe closes, so it does not outlive this process, however that ends.
"""

import itertools
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np
from loguru import logger
from numpy.typing import NDArray

from slm_lab.env.actions import ActionMap
from slm_lab.env.observations import ObsMap
from slm_lab.env.parts import ALL, Seen
from slm_lab.env.rows import LocalRows, Make, make_all
from slm_lab.env.snapshot import pack, unpack
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import unnamed_file
from slm_lab.types import Array, Bools

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from slm_lab.env.workers import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
_PATIENCE = 5.0
"""Seconds that a worker has to end when asked."""


class SharedRows:
    """Envs of which this process steps the first share, and worker processes the others; with the methods of LocalRows.

    Args:
        name: id, for messages.
        make: makes env i; it travels to the workers.
        num_envs: K.
        processes: this one among them; each has as equal a share of the envs as can be.
        seen: what is to be seen of their observations.
        apart: each env gets a worker of its own instead, and this process has none.

    Raises:
        LabError: an env can't be made; or a worker died, here and in every call.
    """

    def __init__(
        self, name: str, make: Make, num_envs: int, processes: int, seen: Seen = ALL, *, apart: bool = False
    ) -> None:
        bounds = np.linspace(0, num_envs, processes + 1).round().astype(int).tolist()
        if apart:
            bounds = [0, *range(num_envs + 1)]
        shares = [slice(begin, end) for begin, end in itertools.pairwise(bounds)]
        self._mine, self._theirs = shares[0], shares[1:]
        self._workers: list[_Worker] = []
        self._file = unnamed_file()
        self._local: LocalRows | None = None
        try:
            for share in self._theirs:
                worker = _Worker(name, self._file.fileno())
                self._workers.append(worker)
                worker.send(cloudpickle.dumps((name, make, num_envs, share.start, share.stop, seen)))
            mine = make_all(make, range(self._mine.stop))
            if mine:
                self._local = LocalRows(name, mine, seen=seen)
            told = self._receive()
            if self._local is None:
                self._local = LocalRows(name, [], seen=seen, spaces=cloudpickle.loads(told[0]))
            self.actions, self.observations = self._local.actions, self._local.observations
            self._arrays = _Arrays(self._file.fileno(), num_envs, self.actions, self.observations)
        except BaseException:
            self.close()
            raise

    @property
    def _rows(self) -> LocalRows:
        if self._local is None:
            raise LabError("env: it is closed")
        return self._local

    def step(self, action: Array, obs: Array, gain: Array, terminated: Bools, truncated: Bools) -> None:
        """See LocalRows."""
        arrays, mine = self._arrays, self._mine
        arrays.action[...] = action
        self._send("step", [None] * len(self._workers))
        self._rows.step(action[mine], obs[mine], gain[mine], terminated[mine], truncated[mine])
        self._receive()
        self._copy(obs, arrays.obs)
        self._copy(gain, arrays.gain)
        self._copy(terminated, arrays.terminated)
        self._copy(truncated, arrays.truncated)

    def _copy(self, there: Array, shared: Array) -> None:
        """What workers wrote."""
        there[self._mine.stop :] = shared[self._mine.stop :]

    def begin(self, which: Sequence[int], seeds: Sequence[int], obs: Array) -> None:
        """See LocalRows."""

        def part(share: slice) -> tuple[list[int], list[int]]:
            chosen = [(i - share.start, s) for i, s in zip(which, seeds, strict=True) if share.start <= i < share.stop]
            return [i for i, _ in chosen], [s for _, s in chosen]

        # those with nothing to do are left in peace
        parts = [(worker, part(share)) for worker, share in zip(self._workers, self._theirs, strict=False)]
        asked = [(worker, p) for worker, p in parts if p[0]]
        for worker, p in asked:
            worker.send(("begin", p))
        self._rows.begin(*part(self._mine), obs[self._mine])
        for worker, _ in asked:
            worker.receive()
        for i in which:
            if i >= self._mine.stop:
                obs[i] = self._arrays.obs[i]

    def restore(self, seeds: Sequence[int], actions: Sequence[Array], obs: Array) -> list[float]:
        """See LocalRows."""
        self._send("restore", [(list(seeds[share]), [pack(a) for a in actions[share]]) for share in self._theirs])
        mine = self._rows.restore(seeds[self._mine], actions[self._mine], obs[self._mine])
        returns = [ret for part in (mine, *self._receive()) for ret in part]
        self._copy(obs, self._arrays.obs)
        return returns

    def render(self) -> NDArray[np.uint8] | None:
        """See LocalRows."""
        if self._mine.stop:
            return self._rows.render()
        self._workers[0].send(("render", None))
        return self._workers[0].receive()

    def close(self) -> None:
        """See LocalRows."""
        for worker in self._workers:
            worker.conn.close()  # hangs up
        for worker in self._workers:
            worker.end()
        self._workers = []
        if self._local is not None:
            self._local.close()
            self._local = None
        self._file.close()

    def _send(self, command: str, parts: Sequence[Any]) -> None:
        """Give each worker its part; there are none once it is closed."""
        for worker, part in zip(self._workers, parts, strict=False):
            worker.send((command, part))

    def _receive(self) -> list[Any]:
        """What each worker answers."""
        return [worker.receive() for worker in self._workers]


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, name: str, memory: int) -> None:
        self._name = name
        self.conn, child = Pipe()
        # no Ctrl-C before the worker has chosen to ignore it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with child:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(child.fileno()), str(memory)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[child.fileno(), memory],
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def send(self, message: Any) -> None:
        try:
            self.conn.send(message)
        except OSError:
            raise LabError(self._death()) from None

    def receive(self) -> Any:
        try:
            kind, content = self.conn.recv()
        except (EOFError, OSError):
            raise LabError(self._death()) from None
        if kind == "user":
            raise LabError(content)
        if kind == "error":
            raise LabError(f"env: a worker process of {self._name} failed:\n{content}")
        return content

    def end(self) -> None:
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _death(self) -> str:
        self.end()
        code = self.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"env: a worker process of {self._name} {how}"


class _Arrays:
    """What a vector step is made of, for all envs, in memory that parent and workers share."""

    def __init__(self, memory: int, n: int, actions: ActionMap, observations: ObsMap) -> None:
        layout: list[tuple[tuple[int, ...], Any]] = [
            ((n, *actions.shape), actions.dtype),
            ((n, *observations.shape), observations.dtype),
            ((n,), np.float64),
            ((n,), np.bool_),
            ((n,), np.bool_),
        ]
        # each begins at a multiple of 64 bytes
        sizes = [-(-int(np.prod(shape)) * np.dtype(kind).itemsize // 64) * 64 for shape, kind in layout]
        # whoever comes first gives the file its size; to the others it changes nothing
        os.ftruncate(memory, sum(sizes))
        buffer = mmap.mmap(memory, sum(sizes))
        arrays = [np.ndarray(shape, kind, buffer, sum(sizes[:k])) for k, (shape, kind) in enumerate(layout)]
        self.action, self.obs, self.gain, self.terminated, self.truncated = arrays


def main(pipe: int, memory: int) -> None:
    """A worker's life; `pipe` and `memory` are numbers of open files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    conn: Connection[Any, Any] = Connection(pipe)
    # the parent says the same
    logger.remove()
    rows: list[LocalRows] = []
    try:
        _serve(conn, memory, rows)
    except (EOFError, OSError):
        pass  # the parent hung up
    except LabError as e:
        _tell(conn, "user", str(e))
    except BaseException:  # noqa: BLE001  sent to the parent
        _tell(conn, "error", traceback.format_exc())
    finally:
        for part in rows:
            part.close()


def _seed_globals(seed: int) -> None:
    """Some envs draw from the streams of the process, which here belong to them alone."""
    random.seed(seed)
    np.random.seed(seed)


def _tell(conn: "Connection[Any, Any]", kind: str, text: str) -> None:
    # a parent that has failed in the same way has hung up, and knows
    with suppress(OSError):
        conn.send((kind, text))


def _serve(conn: "Connection[Any, Any]", memory: int, made: list[LocalRows]) -> None:
    """Answer commands until the pipe closes."""
    name, make, n, start, stop, seen = cloudpickle.loads(conn.recv())
    rows = LocalRows(name, make_all(make, range(start, stop)), seen=seen)
    made.append(rows)
    arrays = _Arrays(memory, n, rows.actions, rows.observations)
    mine = slice(start, stop)
    action, obs, gain = arrays.action[mine], arrays.obs[mine], arrays.gain[mine]
    terminated, truncated = arrays.terminated[mine], arrays.truncated[mine]
    answer: Any = cloudpickle.dumps((rows.action_space, rows.observation_space)) if start == 0 else None
    while True:
        conn.send(("done", answer))
        command, part = conn.recv()
        answer = None
        match command:
            case "step":
                rows.step(action, obs, gain, terminated, truncated)
            case "begin":
                which, seeds = part
                _seed_globals(seeds[0])
                rows.begin(which, seeds, obs)
            case "render":
                answer = rows.render()
            case "restore":
                seeds, actions = part
                _seed_globals(seeds[0])
                answer = rows.restore(seeds, [unpack(a) for a in actions], obs)
