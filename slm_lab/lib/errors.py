"""The errors a user can cause. The CLI prints their message without a traceback and exits with 2."""

import os
import sysconfig
import traceback
from pathlib import Path


class LabError(Exception):
    """Something the user can mend: the message says where, what was got and what is known."""


class SpecError(LabError):
    """A spec that can't be used.

    Args:
        faults: one line each, beginning with the key path (`agent.algorithm.gamma: ...`); all of them at once.
        source: where the spec came from (`file.json: spec_name`), printed above the faults.
    """

    def __init__(self, faults: list[str], source: str = "") -> None:
        self.faults = list(faults)
        self.source = source
        head = [source] if source else []
        super().__init__("\n".join([*head, *("  " + f for f in self.faults)]))


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing.

    >>> one_line(ValueError("two   words")), one_line(KeyError())
    ('two words', 'KeyError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    r"""The first line of what an error says; its kind where it says nothing.

    >>> first_line(ValueError("one\ntwo")), first_line(KeyError())
    ('one', 'KeyError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def place(error: BaseException) -> str:
    """Where code of a user raised it: file, line, function; "" where none of it is on the way to the error."""
    libraries = [path for name, path in sysconfig.get_paths().items() if name.endswith("lib")]
    others = tuple(f"{path}{os.sep}" for path in (Path(__file__).resolve().parents[1], *libraries))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *others)):
            function = "" if frame.name == "<module>" else f", in {frame.name}"
            return f"{frame.filename}, line {frame.lineno}{function}"
    return ""
