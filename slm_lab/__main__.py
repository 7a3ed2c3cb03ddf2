"""The `slm-lab` script, and `python -m slm_lab`."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line.

    A Ctrl-C before a command begins its work ends the process at once: the libraries that are being imported then would
    make a traceback of it, or an error of their own.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored: a job in the background
        signal.signal(signal.SIGINT, _leave)
    from slm_lab.cli.app import main as run

    run()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
