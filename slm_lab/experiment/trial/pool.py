"""Worker processes that run sessions one after another, and survive each other's death.

Imports nothing but the standard library and one small leaf of the lab, so that workers can be started before the parent
has loaded torch: their imports then run beside its own. A worker is a fresh interpreter (no fork: threads and locks of
the parent stay behind) and does not import the parent's main module: scripts need no `if __name__ == "__main__"`, and
notebooks work.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

from slm_lab.lib.files import unnamed_file

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from slm_lab.experiment.trial.worker import main; main(int(sys.argv[2]))"
)
_TICK = 0.2
"""Seconds after which the parent looks whether it is asked to stop."""
_PATIENCE = 10.0
"""Seconds that a worker has to end when asked."""

_OUTPUT_KEPT = 1_000_000
"""Bytes of a worker's output that are passed on."""

Job = dict[str, Any]
"""Plain data; `index` says which one it is."""


class _Worker:
    """One process, the pipe to it, and what it is doing."""

    def __init__(self, threads: int, pass_fds: Sequence[int]) -> None:
        self.job: Job | None = None
        self.heard = False
        """It has sent something: its imports are over."""
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  closed with the worker
        self.conn, child = Pipe()
        with child, _SigintBlocked():
            command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(child.fileno())]
            count = str(threads)
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count},
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=subprocess.STDOUT,
                pass_fds=[child.fileno(), *pass_fds],
            )

    def send(self, message: tuple[str, Any]) -> None:
        # a dead worker is noticed where its messages are read
        with suppress(OSError):
            self.conn.send(message)

    def death(self) -> str:
        """Wait for the end of a process whose pipe is closed; say how it ended."""
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code >= 0:
            return f"its process ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"its process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def read_output(self) -> str:
        """The end of what it printed."""
        size = self.output.seek(0, os.SEEK_END)
        self.output.seek(max(0, size - _OUTPUT_KEPT))
        return self.output.read().decode(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        self.conn.close()
        self.output.close()


class Pool:
    """Use as a context manager; leaving it ends every worker.

    Args:
        size: processes.
        threads: numeric threads of each, until a job sets its own.
        pass_fds: open files that the workers keep open as long as they live.
    """

    def __init__(self, size: int, threads: int = 1, pass_fds: Sequence[int] = ()) -> None:
        self._threads = threads
        self._shared = unnamed_file()
        self.shared_fd = self._shared.fileno()
        """A file that all workers have open, under this number; empty, and for those who give them work to fill."""
        self._pass_fds = [*pass_fds, self.shared_fd]
        self._workers: list[_Worker] = []
        self.output: list[str] = []
        """What each ended worker printed, where it printed something."""
        try:
            self.fill(size)
        except BaseException:
            self._end(_PATIENCE)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end(_PATIENCE if kind is None else 0.0)

    def fill(self, size: int) -> None:
        """Start workers until there are as many: some may have died."""
        while len(self._workers) < size:
            self._workers.append(self._start())

    def kill(self) -> None:
        """End every worker on the spot; `run`, which may be waiting in another thread, takes them for dead."""
        for worker in self._workers:
            worker.process.kill()

    def run(
        self,
        jobs: Sequence[Job],
        on_event: Callable[[Job, dict[str, Any]], None],
        on_done: Callable[[Job, Any], None],
        on_death: Callable[[Job, str, str], None],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run the jobs, as many at a time as there are workers; give back when all are done or given up.

        Args:
            jobs: run in this order.
            on_event: called with what a job reports on its way.
            on_done: called with what a job gave back.
            on_death: called with the reason and the printed output where the process of a job died.
            should_stop: once true, no further job is begun and running ones are asked to stop; of one whose worker
                was still starting nothing more is heard.
        """
        waiting = deque(jobs)
        told = False
        for worker in self._workers:
            self._next(worker, waiting)
        while busy := {w.conn: w for w in self._workers if w.job is not None}:
            if not told and should_stop():
                told = True
                waiting.clear()
                for worker in busy.values():
                    if worker.heard:
                        worker.send(("stop", None))
                    else:
                        # nothing is begun, and imports hear nothing
                        self._workers.remove(worker)
                        worker.kill()
                continue
            for conn in wait(list(busy), _TICK):
                worker = busy[conn]  # type: ignore[index]  # what was waited for
                job = worker.job
                assert job is not None
                try:
                    kind, content = worker.conn.recv()
                except (EOFError, OSError):
                    self._bury(worker, on_death, job)
                    if waiting:
                        fresh = self._start()
                        self._workers.append(fresh)
                        self._next(fresh, waiting)
                    continue
                worker.heard = True
                if kind == "done":
                    on_done(job, content)
                    self._next(worker, waiting)
                else:
                    on_event(job, content)

    def _start(self) -> _Worker:
        return _Worker(self._threads, self._pass_fds)

    def _next(self, worker: _Worker, waiting: deque[Job]) -> None:
        worker.job = waiting.popleft() if waiting else None
        if worker.job is not None:
            worker.send(("run", worker.job))

    def _bury(self, worker: _Worker, on_death: Callable[[Job, str, str], None], job: Job) -> None:
        reason = worker.death()
        output = worker.read_output()
        self._workers.remove(worker)
        worker.close()
        on_death(job, reason, output)

    def _end(self, patience: float) -> None:
        for worker in self._workers:
            # a closed pipe makes it end
            worker.conn.close()
        for worker in self._workers:
            try:
                worker.process.wait(patience)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            if text := worker.read_output():
                self.output.append(text)
            worker.close()
        self._workers.clear()
        self._shared.close()


class _SigintBlocked:
    """A child started inside has SIGINT blocked until it lifts that itself.

    So no Ctrl-C can hit it while it starts up. One for this process waits until the end of the block.
    """

    def __enter__(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
