"""Did-you-mean: the known name nearest to a wrong one."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like `name` (case ignored), or None where nothing is near.

    >>> nearest("clip_val_loss", ["clip_vloss", "gamma"])
    'clip_vloss'
    """
    by_lower = {k.lower(): k for k in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` or the empty string; to be put after a message."""
    near = nearest(name, known)
    return f", did you mean '{near}'?" if near else ""
