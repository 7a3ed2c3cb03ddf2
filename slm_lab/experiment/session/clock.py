"""Frames decide what is due; seconds decide nothing that training could notice."""

from slm_lab.spec.model import MetaSpec


def next_multiple(frame: int, every: int) -> int:
    """The first multiple of `every` beyond `frame`.

    >>> next_multiple(0, 100), next_multiple(99, 100), next_multiple(100, 100)
    (100, 100, 200)
    """
    return (frame // every + 1) * every


def crossed(before: int, frame: int, total: int, count: int) -> bool:
    """Whether one of `count` equal parts of `total` ended after `before` and not after `frame`.

    >>> crossed(0, 40, 100, 2), crossed(40, 50, 100, 2), crossed(0, 100, 100, 0)
    (False, True, False)
    """
    return frame * count // total > before * count // total


def eval_every(meta: MetaSpec) -> int | None:
    """Frames between evaluations; None: there are none."""
    return meta.eval_frequency if meta.rigorous_eval else None
