"""Worker processes that run sessions one after another, and survive each other's death.

Imports nothing but the standard library and small leaves of the lab, so that workers can be started before the parent
has loaded torch: their imports then run beside its own. A worker is a fork of a `nursery`, never of the parent: threads
and locks of the parent are left out, and its main module is not imported: scripts need no `if __name__ == "__main__"`,
and notebooks work.
"""

import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

from slm_lab.experiment.trial.nursery import Nursery, give_back, read_end, take
from slm_lab.lib.files import unnamed_file

_TICK = 0.2
"""Seconds after which the parent looks whether it is asked to stop."""
_PATIENCE = 10.0
"""Seconds that a worker has to end when asked."""

Job = dict[str, Any]
"""What can be sent to a worker that has imported nothing yet; `sessions` says whose it is."""


class _Worker:
    """One process, the pipe to it, and what it is doing."""

    def __init__(self, nursery: Nursery, keep: Sequence[int]) -> None:
        self.job: Job | None = None
        self.heard = False
        """It has sent something: its imports are over."""
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  closed with the worker
        self.conn, child = Pipe()
        with child:
            self.process = nursery.fork(child.fileno(), self.output.fileno(), keep)

    def send(self, message: tuple[str, Any]) -> None:
        # a dead worker is noticed where its messages are read
        with suppress(OSError):
            self.conn.send(message)

    def end(self, patience: float) -> int | None:
        """Exit code of a process whose pipe is closed; it is killed where its end takes longer."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def death(self) -> str:
        """Wait for its end; say how it ended."""
        code = self.end(_PATIENCE)
        if code is None:
            return "its process ended, and the process that could say how had died before"
        if code >= 0:
            return f"its process ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"its process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def kill(self) -> None:
        # one that nobody has told of yet ends with its pipe
        self.conn.close()
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        self.conn.close()
        self.output.close()
        self.process.close()


class Pool:
    """So many processes, the workers. Use as a context manager; leaving it ends them.

    They keep the open files `pass_fds` open as long as they live.
    """

    def __init__(self, size: int, pass_fds: Sequence[int] = ()) -> None:
        self._shared = unnamed_file()
        self.shared_fd = self._shared.fileno()
        """A file that all workers have open, under this number; empty, and for those who give them work to fill."""
        self._keep = [*pass_fds, self.shared_fd]
        self._nursery = take()
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
            self._workers.append(_Worker(self._nursery, self._keep))

    def kill(self) -> None:
        """End every worker on the spot; `run`, which may be waiting in another thread, takes them for dead."""
        for worker in self._workers:
            worker.process.kill()

    def run(
        self,
        jobs: Sequence[Job],
        on_event: Callable[[Job, Any], None],
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
            should_stop: once true, no further job is started and running ones are asked to stop; of one whose worker
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
                        # nothing is started; it may still import, and an import can't be stopped
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
                        self.fill(len(self._workers) + 1)
                        self._next(self._workers[-1], waiting)
                    continue
                worker.heard = True
                if kind == "done":
                    on_done(job, content)
                    self._next(worker, waiting)
                else:
                    on_event(job, content)

    def _next(self, worker: _Worker, waiting: deque[Job]) -> None:
        worker.job = waiting.popleft() if waiting else None
        if worker.job is not None:
            worker.send(("run", worker.job))

    def _bury(self, worker: _Worker, on_death: Callable[[Job, str, str], None], job: Job) -> None:
        reason = worker.death()
        # of one that was never born the nursery knows why
        output = read_end(worker.output) if worker.process.pid else self._nursery.printed()
        self._workers.remove(worker)
        worker.close()
        on_death(job, reason, output)

    def _end(self, patience: float) -> None:
        for worker in self._workers:
            # a closed pipe makes it end
            worker.conn.close()
        for worker in self._workers:
            worker.end(patience)
            self.output += filter(None, [read_end(worker.output)])
            worker.close()
        self._workers.clear()
        self.output += filter(None, [self._nursery.printed()])
        give_back(self._nursery)
        self._shared.close()
