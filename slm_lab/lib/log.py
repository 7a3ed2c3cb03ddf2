"""The text log.

Modules say `from loguru import logger` and log with arguments (`logger.debug("loss {}", x)`), so that a message below
the level is never put together. Who runs them sets up, once per process, where the lines go.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from slm_lab.lib.errors import LabError
from slm_lab.lib.suggest import did_you_mean

if TYPE_CHECKING:
    from loguru import Message, Record

LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
CONSOLE_FORMAT = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
FILE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} {level: <8} {name}:{line} {message}"
file_logger = logger.bind(file_only=True)
"""Logs to files alone: what the console shows in another form."""
_silent = threading.Event()
"""Set: the console gets nothing."""
_noted: set[str] = set()
"""Notes that the console of this process has shown."""
_filed: set[str] = set()
"""Notes that the present log file holds."""


def check_level(level: str) -> str:
    """The level in capitals.

    Raises:
        LabError: there is no such level.
    """
    known = level.upper()
    if known not in LEVELS:
        raise LabError(f"log level: unknown '{level}'{did_you_mean(level, LEVELS)} (known: {', '.join(LEVELS)})")
    return known


def setup(level: str = "INFO", file: Path | None = None, *, console: bool = True) -> None:
    """Send the log of this process to the console, to a file, or both; earlier settings are dropped.

    Args:
        level: least level shown; DEBUG, INFO, WARNING ..., case ignored.
        file: appended to; its folder is made. None: no file.
        console: whether it goes to standard error.
    """
    level = check_level(level)
    logger.remove()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        add_handler(file, level=level, format=FILE_FORMAT)
    if console:
        colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        add_handler(_to_stderr, level=level, format=CONSOLE_FORMAT, filter=_for_console, colorize=colour)


def add_handler(sink: Any, **settings: Any) -> int:
    """As loguru's `add`, but that no traceback has the values of variables: tensors would be formatted."""
    return logger.add(sink, backtrace=False, diagnose=False, **settings)


@contextmanager
def log_file(path: Path, level: str, thread: int | None = None) -> Iterator[None]:
    """A log file, beside where the process logs anyway; of what one thread logs, where one is named."""
    handler = add_handler(path, level=check_level(level), format=FILE_FORMAT, filter=of_thread(thread))
    try:
        yield
    finally:
        logger.remove(handler)


def of_thread(thread: int | None) -> "Callable[[Record], bool]":
    """A filter that takes the messages of one thread; None: of all."""
    return lambda record: thread in (None, record["thread"].id)


def adopt_console() -> None:
    """Take the place of the handler that loguru starts with, if it is still there: it prints what is for files too."""
    with suppress(ValueError):
        logger.remove(0)
        logger.add(_to_stderr, filter=_for_console, colorize=sys.stderr.isatty())


@contextmanager
def silenced() -> Iterator[None]:
    """Nothing goes to the console inside, by `setup` or `adopt_console`; files and the caller's handlers get it all."""
    before = _silent.is_set()
    _silent.set()
    try:
        yield
    finally:
        if not before:
            _silent.clear()


def note(text: str, level: str = "INFO") -> None:
    """Log a text: once on the console of a process, and once in each file between `renew_notes`."""
    if text not in _filed:
        (file_logger if text in _noted else logger).log(level, "{}", text)
        _noted.add(text)
        _filed.add(text)


def renew_notes() -> None:
    """A new log file begins: it gets the notes again that the console has shown before."""
    _filed.clear()


def _for_console(record: "Record") -> bool:
    return "file_only" not in record["extra"]


def _to_stderr(message: "Message") -> None:
    # looked up at each line: a live display and pytest put their own stream there
    if not _silent.is_set():
        sys.stderr.write(message)
