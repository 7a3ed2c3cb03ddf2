"""A process that imports the lab once, and forks workers that have it: the sessions of a trial share one import.

torch alone takes seconds to import. The nursery does nothing but import: no thread is started and no kernel called
before a fork. Like `pool` it needs the standard library alone, so it is started before its parent has loaded torch, and
both import side by side.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from slm_lab.experiment.trial.nursery import main; main(int(sys.argv[2]))"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Numeric threads of each worker, until a session decides for itself."""
_NUMBER = struct.Struct("=i")
"""What a nursery writes of each worker, into a pipe of its own: the process id, and once it has ended its exit code.
The worker holds that pipe open, too: its end is the end of the worker even where the nursery has died."""
_FDS = 64
"""Files that one worker can be given."""
_TICK = 1.0
"""Seconds after which a nursery looks for ended workers that no signal told it of."""
_OUTPUT_KEPT = 1_000_000
"""Bytes of a process's output that are passed on."""


def read_end(output: IO[bytes], begin: int = 0) -> str:
    """The end of what a process printed into a file, from byte `begin` on; it may print on meanwhile."""
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), _OUTPUT_KEPT, max(begin, size - _OUTPUT_KEPT)).decode(errors="replace")


class Child:
    """A worker as a pipe tells of it to the nursery's parent; used like `subprocess.Popen`, by several threads too."""

    def __init__(self, nursery: subprocess.Popen[bytes], told: IO[bytes]) -> None:
        self._nursery = nursery
        self._told = told
        self._lock = threading.Lock()
        self._numbers: list[int] = []
        self._ended = False

    @property
    def pid(self) -> int | None:
        """Process id; None as long as the nursery imports, and where no worker was born."""
        self._listen(0.0, 1)
        return self._numbers[0] if self._numbers else None

    def wait(self, timeout: float | None = None) -> int | None:
        """Exit code, negative where a signal ended it; that of the nursery where no worker was born.

        Returns:
            None where the nursery died before it could tell.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        if not self._listen(timeout, 2):
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        if not self._numbers:
            return self._nursery.wait(timeout)
        return self._numbers[1] if len(self._numbers) > 1 else None

    def kill(self) -> None:
        """End it on the spot; one that is not born yet with its nursery, and whoever waits there too."""
        if self._listen(0.0, 2):
            return
        if (pid := self.pid) is None:
            self._nursery.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Hear no more of it."""
        self._told.close()

    def _listen(self, timeout: float | None, count: int) -> bool:
        """Whether that many numbers have arrived, or no more will."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while len(self._numbers) < count and not self._ended:
                left = None if end is None else max(0.0, end - time.monotonic())
                if not wait([self._told.fileno()], left):
                    return False
                content = self._told.read(_NUMBER.size)
                self._numbers += _NUMBER.unpack(content) if content else ()
                self._ended = not content
            return True


class Nursery:
    """The parent's side: begins the process, and begins another where that one has died."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  closed with the nursery
        self._heard = 0
        with theirs, _sigint_blocked():
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(theirs.fileno())],
                env={**os.environ, **_ONE_THREAD},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )

    def fork(self, conn: int, output: int, keep: Sequence[int]) -> Child:
        """Have a worker forked, as soon as the imports are over.

        It has this process's folder, environment, `sys.path` and cores as they are now; priority, limits and umask are
        those of the nursery's beginning.

        Args:
            conn: file descriptor of the worker's pipe.
            output: of the file that it prints into.
            keep: of open files that it keeps open, under the same numbers.
        """
        if self.process.poll() is not None:
            self.close()
            self._begin()
        told, tell = os.pipe()
        with tempfile.TemporaryFile("w+") as order:
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
            json.dump([str(Path.cwd()), sys.path, {**os.environ, **_ONE_THREAD}, list(keep), cores], order)
            order.flush()
            # a nursery that died meanwhile is noticed where its workers are waited for
            with suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._socket, [b"f"], [order.fileno(), conn, output, tell, *keep])
        os.close(tell)
        return Child(self.process, os.fdopen(told, "rb", buffering=0))

    def printed(self) -> str:
        """The end of what it has printed since `forget`."""
        return read_end(self._output, self._heard)

    def forget(self) -> None:
        """What was printed so far is of the past."""
        self._heard = os.fstat(self._output.fileno()).st_size

    def close(self) -> None:
        """End the process, which has nothing to save; its workers continue."""
        self.process.kill()
        self.process.wait()
        self._socket.close()
        self._output.close()


_IDLE: list[Nursery] = []
"""At most one, which waits for the next trial."""
_TAKING = threading.Lock()


def start_ahead() -> None:
    """Begin a nursery that `take` gives out, before this process imports torch itself; one at a time."""
    with _TAKING:
        if not _IDLE:
            _IDLE.append(Nursery())


def take() -> Nursery:
    """The nursery that waits, or one that begins now."""
    with _TAKING:
        return _IDLE.pop() if _IDLE else Nursery()


def give_back(nursery: Nursery) -> None:
    """Have it wait for the next trial of this process, which then imports nothing."""
    with _TAKING:
        if not _IDLE and nursery.process.poll() is None:
            nursery.forget()
            _IDLE.append(nursery)
            return
    nursery.close()


@atexit.register
def _close_idle() -> None:
    while _IDLE:
        _IDLE.pop().close()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """A child started inside has SIGINT blocked until it lifts that itself, and so have its forks.

    So no Ctrl-C can hit it while it starts up. One for this process waits until the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main(fd: int) -> None:
    """Import, then fork until the socket, a file descriptor, is closed."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asked = socket.socket(fileno=fd)
    died, wake = os.pipe()
    os.set_blocking(wake, False)
    if sys.platform == "linux":
        # elsewhere libraries do not survive a fork: there each worker imports for itself
        gc.disable()
        import slm_lab.experiment.trial.contain  # noqa: F401

        # what is imported stays as it is: no collection moves it, so workers share its memory
        gc.freeze()
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    tells: dict[int, int] = {}
    while True:
        ready = wait([asked, died], _TICK)
        if died in ready:
            os.read(died, 4096)
        _tell_deaths(tells)
        if asked in ready:
            # one order is one byte and its files
            message, fds, _, _ = socket.recv_fds(asked, 1, _FDS)
            if not message:
                break
            _fork(fds, tells, [fd, died, wake])
    os._exit(0)


def _fork(fds: list[int], tells: dict[int, int], own: list[int]) -> None:
    tell = fds[3]
    pid = os.fork()
    if pid == 0:
        _work(fds, [*own, *tells.values()])
    tells[pid] = tell
    with suppress(OSError):
        os.write(tell, _NUMBER.pack(pid))
    for fd in fds:
        if fd != tell:
            os.close(fd)


def _work(fds: list[int], foreign: list[int]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in foreign:
            os.close(fd)
        order, *given = fds
        with os.fdopen(order, encoding="utf-8") as file:
            file.seek(0)
            folder, sys.path[:], environment, numbers, cores = json.load(file)
        # folders that were not there when this process began
        importlib.invalidate_caches()
        os.chdir(folder)
        if cores:
            os.sched_setaffinity(0, cores)
        os.environ.clear()
        os.environ.update(environment)
        # above all numbers that files are to have; that of `tell` stays open as long as the worker lives
        above = max([*numbers, *given]) + 1
        conn, output, _tell, *kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in given]
        for fd in given:
            os.close(fd)
        for fd, number in [(output, 1), (output, 2), *zip(kept, numbers, strict=True)]:
            os.dup2(fd, number, inheritable=number <= 2)
        for fd in (output, *kept):
            os.close(fd)
        from slm_lab.experiment.trial.worker import main as work

        work(conn)
    except BaseException:  # noqa: BLE001  whatever it is, a worker must not continue as a nursery
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def _tell_deaths(tells: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            tell = tells.pop(found[0])
            with suppress(OSError):
                os.write(tell, _NUMBER.pack(os.waitstatus_to_exitcode(found[1])))
            os.close(tell)
