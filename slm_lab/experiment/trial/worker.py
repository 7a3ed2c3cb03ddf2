"""The child's side of `pool`: takes sessions from a pipe, one after another, and runs them.

A closed pipe means that the parent is gone: the session at work saves its checkpoint and stops, and the process ends.
"""

import faulthandler
import gc
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any


def main(fd: int) -> None:
    """Work until the pipe, a file descriptor, is closed."""
    term, stop = threading.Event(), threading.Event()
    # Ctrl-C, and the terminal's end, go to every process of it; the parent decides what becomes of them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def interrupt(number: int, frame: FrameType | None) -> None:
        if (compiler := sys.modules.get("slm_lab.lib.compile")) is not None:
            compiler.interrupt_compiler(frame)

    def handle(number: int, frame: FrameType | None) -> None:
        term.set()
        interrupt(number, frame)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGUSR1, interrupt)
    faulthandler.enable()
    conn = Connection(fd)
    inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(conn, inbox, stop), daemon=True).start()

    # what is imported stays: no collection need look through it, now or later
    gc.disable()
    from slm_lab.experiment.trial.contain import from_job, run_together  # heavy: the pipe is served meanwhile

    gc.freeze()
    gc.enable()
    sending = threading.Lock()

    def should_stop() -> bool:
        return stop.is_set() or term.is_set()

    def send(kind: str, content: Any) -> None:
        with sending, suppress(OSError):
            conn.send((kind, content))

    while (job := inbox.get()) is not None:
        run_together(from_job(job), report=lambda session, event: send("event", (session, event)), stop=should_stop)
        send("done", None)
    # what a session left in cycles may have something to clean up; then out: to take down torch would last seconds
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _listen(conn: Connection, inbox: "queue.SimpleQueue[dict[str, Any] | None]", stop: threading.Event) -> None:
    while True:
        try:
            kind, content = conn.recv()
        except (EOFError, OSError):
            break
        if kind == "stop":
            stop.set()
            # to the main thread: it may have to be called away from the compiler
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            # none is sent before the one that was asked to stop has ended
            stop.clear()
            inbox.put(content)
    inbox.put(None)
    # stops the session at work
    os.kill(os.getpid(), signal.SIGTERM)
