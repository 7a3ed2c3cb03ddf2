"""Try again what failed for a reason that passes."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FIRST, LONGEST = 1.0, 30.0
"""Seconds of the first wait, and of the longest: each is twice the one before."""


def retry(
    attempt: Callable[[], T],
    passes: Callable[[Exception], bool],
    *,
    patience: float,
    told: Callable[[Exception, float], None],
) -> T:
    """The result of `attempt`, called again with growing waits while its error is one that passes.

    Args:
        attempt: may be called several times.
        passes: whether an error may be gone the next time.
        patience: seconds; no attempt begins later than that after the first.
        told: called with the error and the seconds until the next attempt.

    Raises:
        Exception: the last one of `attempt`.
    """
    end = time.monotonic() + patience
    wait = FIRST
    while True:
        try:
            return attempt()
        except Exception as e:
            # many clients that failed at one moment must not come back at one moment
            pause = wait * random.uniform(0.75, 1.25)
            if not passes(e) or time.monotonic() + pause > end:
                raise
            told(e, pause)
        time.sleep(pause)
        wait = min(2 * wait, LONGEST)
