"""Ctrl-C, SIGTERM, a closed terminal: the first asks everything to save and stop, a second stops at once."""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequest(threading.Event):
    """While entered, a first SIGINT, SIGTERM or SIGHUP only sets it and a second one raises KeyboardInterrupt.

    A first one that comes upon the compiler at work ends it as well (CompileInterrupted): it may last minutes.

    Outside the main thread, where Python can't handle signals, it is a flag that nobody raises.
    """

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[int, Any] = {}
        self.number: int | None = None
        """Of the first signal."""

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            # None: it was set by something other than Python, and can't be put back
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_set():
            raise KeyboardInterrupt(signal.Signals(number).name)
        self.number = number
        self.set()
        if (compiler := sys.modules.get("slm_lab.lib.compile")) is not None:
            compiler.interrupt_compiler(frame)
