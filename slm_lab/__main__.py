"""The `slm-lab` script, and `python -m slm_lab`."""

import atexit
import gc
import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line.

    A Ctrl-C before a command begins its work ends the process at once: the libraries that are being imported then would
    make a traceback of it, or an error of their own.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored: a job in the background
        signal.signal(signal.SIGINT, _leave)
    _open_streams()
    end = _End()
    # what is registered first is called last: whatever else ends with the process has ended then
    atexit.register(end)
    from slm_lab.cli.app import main as run

    try:
        run()
    except SystemExit as e:
        end.code = e.code
        raise


class _End:
    """Ends the process at once: to take torch and its libraries apart would take a second and change nothing.

    Not after an uncaught exception, and not where a GPU was used: its driver and its profilers end in their own order.
    """

    def __init__(self) -> None:
        self.code: object = None

    def __call__(self) -> None:
        # what is frozen when the interpreter ends, nanobind's libraries report as leaked
        gc.unfreeze()
        if not isinstance(self.code, int) or "torch" not in sys.modules or sys.modules["torch"].cuda.is_initialized():
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            return
        os._exit(self.code)


def _open_streams() -> None:
    """What is printed goes nowhere where a stream was closed, and never fails over a letter the terminal lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  to the end of the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(number: int, frame: FrameType | None) -> None:
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
