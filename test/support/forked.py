"""Python code in a process of its own that need not import the lab: it is forked from one that has."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from functools import cache
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from unittest.mock import patch

from slm_lab.experiment.trial import nursery
from slm_lab.experiment.trial.nursery import Child, Nursery

# in place of a worker that waits for sessions: one that does as `python -c` does
_WORK = """
import atexit, os, signal, sys, traceback, types
from multiprocessing.connection import Connection

def main(fd):
    with Connection(fd) as conn:
        code, sys.argv = conn.recv()
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sys.stdout.reconfigure(line_buffering=True)
    status = 0
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        status = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    os._exit(status)

sys.modules["slm_lab.experiment.trial.worker"] = types.SimpleNamespace(main=main)
"""


@cache
def _imported() -> Nursery:
    with patch.object(nursery, "_START", _WORK + nursery._START.replace("; ", "\n")):
        return Nursery()


class Forked:
    """Such a process, leader of a session of its own; used like `subprocess.Popen`.

    Args:
        code: as for `python -c`
        args: behind it
        env: beside the environment of this process
        path: folders that come before those of `sys.path`
        output: takes all that is printed
    """

    def __init__(
        self, code: str, args: Sequence[str], *, env: Mapping[str, str], path: Sequence[str], output: IO[str]
    ) -> None:
        self.returncode: int | None = None
        conn, theirs = Pipe()
        with conn, theirs:
            with patch.dict(os.environ, env), patch.object(sys, "path", [*path, *sys.path]):
                self._child: Child = _imported().fork(theirs.fileno(), output.fileno(), [])
            conn.send((code, ["-c", *args]))
        while (pid := self._child.pid) is None:
            assert self.poll() is None, _imported().printed()
        self.pid = pid

    def poll(self) -> int | None:
        """Exit code; None: it runs."""
        try:
            return self.wait(0.05)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int | None:
        """Exit code."""
        self.returncode = self._child.wait(timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To it alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def end(self) -> None:
        """End it on the spot, where it has not ended."""
        self.send_signal(signal.SIGKILL)
        self.wait()
        self._child.close()


def run_forked(code: str, folder: Path) -> str:
    """What the code prints, run in a folder from which it can import; as `support.pages.run_python`, but sooner."""
    with TemporaryFile("w+") as output, chdir(folder):
        process = Forked(code, [], env={}, path=[str(folder)], output=output)
        status = process.wait()
        process.end()
        output.seek(0)
        printed = output.read()
    assert status == 0, printed
    return printed
