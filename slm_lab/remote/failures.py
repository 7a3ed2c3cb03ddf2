"""A failed request: trying it again, and what it means in words, without token and signed addresses."""

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from slm_lab.remote.account import Account

T = TypeVar("T")
FIRST, LONGEST = 1.0, 30.0
"""Seconds of the first wait, and of the longest: each is twice the one before."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be gone the next time."""
_REFUSED, _FORBIDDEN = 401, 403


class DamagedError(Exception):
    """What came is not what was announced."""


def retry(attempt: Callable[[], T], *, patience: float, told: Callable[[Exception, float], None]) -> T:
    """The result of `attempt`, called again with growing waits while its error is one that passes; then it is raised.

    No attempt begins later than `patience` seconds after the first. `told` is called with the error and the seconds
    until the next attempt.
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


def status(error: BaseException) -> int | None:
    """The HTTP status of an error."""
    for e in _chain(error):
        code = getattr(getattr(e, "response", None), "status_code", None)
        if isinstance(code, int):
            return code
    return None


def known(error: Exception) -> bool:
    """Whether the hub, the way there or the disk is to blame, and not the program."""
    theirs = type(error).__module__.partition(".")[0].startswith(("huggingface_hub", "httpx", "httpcore"))
    return theirs or isinstance(error, DamagedError | OSError | ValueError | RuntimeError)


def passes(error: Exception) -> bool:
    """Whether the same request may succeed the next time."""
    code = status(error)
    if code is not None:
        return code in _PASSING
    return bool(_names(error) & {"TransportError", "DamagedError"}) or "Consistency check failed" in str(error)


def reason(error: Exception, account: Account) -> str:
    """What went wrong, in words that say what to do."""
    code, names = status(error), _names(error)
    if "RepositoryNotFoundError" in names or (code == _REFUSED and not account.token):
        private = "" if account.token else "; a private one needs HF_TOKEN"
        return f"no dataset repository {account.repo} at {account.endpoint} that can be read (HF_REPO){private}"
    if code == _REFUSED:
        return f"{account.endpoint} refuses the token (401): is HF_TOKEN right, and not expired?"
    if code == _FORBIDDEN:
        return f"the token may not write to {account.repo} (403): it needs write permission (HF_TOKEN, HF_REPO)"
    if code is not None:
        said = getattr(error, "server_message", None)
        return account.hide(f"{account.endpoint} answered {code}{f': {said}' if said else ''}")
    return _broken(error, names, account)


def _broken(error: Exception, names: set[str], account: Account) -> str:
    table = {
        "TimeoutException": f"{account.endpoint}: no answer within {account.timeout:g} s",
        "ConnectError": f"{account.endpoint} can't be reached",
        "ProxyError": f"{account.endpoint} can't be reached: the proxy refuses",
        "TransportError": f"the connection to {account.endpoint} broke off",
        "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set: nothing may be asked of the hub",
    }
    told = next((text for name, text in table.items() if name in names), None)
    said = [" ".join(str(e).split()) or type(e).__name__ for e in _chain(error)]
    return told or without_queries(account.hide(": ".join(dict.fromkeys(said))))


def without_queries(text: str) -> str:
    """The text with what follows a `?` in its addresses left out: it holds signatures.

    >>> without_queries("PUT https://storage.org/a?sig=1 failed")
    'PUT https://storage.org/a failed'
    """
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", text)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes."""
    found: list[BaseException] = []
    while error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__ or error
    return found


def _names(error: BaseException) -> set[str]:
    """Names of the classes of an error and its causes: the libraries raise those of theirs."""
    return {cls.__name__ for e in _chain(error) for cls in type(e).__mro__}
