"""Numbers that follow the frame counter: exploration, entropy and clipping coefficients.

Each is a function of (start_val, end_val, start_step, end_step, frame): start_val up to start_step, end_val from
end_step on, between them the curve its name says. Values may rise, fall and reach 0.
"""

import math


def no_decay(start_val: float, end_val: float, start_step: int, end_step: int, frame: int) -> float:
    """Always start_val.

    >>> no_decay(0.5, 0.0, 0, 10, 100)
    0.5
    """
    return start_val


def linear_decay(start_val: float, end_val: float, start_step: int, end_step: int, frame: int) -> float:
    """`start + (end - start) * p`, where p goes from 0 to 1 between start_step and end_step.

    >>> linear_decay(1.0, 0.0, 0, 100, 25), linear_decay(0.0, 1.0, 0, 100, 200)
    (0.75, 1.0)
    """
    p = _progress(start_step, end_step, frame)
    return end_val if p == 1 else start_val + (end_val - start_val) * p


def rate_decay(start_val: float, end_val: float, start_step: int, end_step: int, frame: int) -> float:
    """`end + (start - end) * 0.9^(20 p)`: fast at first; end_val from end_step on.

    >>> round(rate_decay(1.0, 0.0, 0, 100, 50), 4), rate_decay(1.0, 0.0, 0, 100, 100)
    (0.3487, 0.0)
    """
    p = _progress(start_step, end_step, frame)
    return end_val if p == 1 else end_val + (start_val - end_val) * 0.9 ** (20 * p)


def periodic_decay(start_val: float, end_val: float, start_step: int, end_step: int, frame: int) -> float:
    """`end + (start - end) / 2 * (1 + cos(60 p)) * (1 - p)`: a wave of shrinking height, about 9.5 periods.

    >>> periodic_decay(1.0, 0.0, 0, 100, 0), periodic_decay(1.0, 0.0, 0, 100, 100)
    (1.0, 0.0)
    """
    p = _progress(start_step, end_step, frame)
    return end_val + 0.5 * (start_val - end_val) * (1 + math.cos(60 * p)) * (1 - p)


SCHEDULES = {f.__name__: f for f in (no_decay, linear_decay, rate_decay, periodic_decay)}


def at_frame(
    name: str, start_val: float, end_val: float | None, start_step: int, end_step: int | None, frame: int
) -> float:
    """Value of the schedule of that name; without an end it stays at start_val.

    >>> at_frame("linear_decay", 1.0, 0.0, 0, 100, 50), at_frame("no_decay", 1.0, None, 0, None, 50)
    (0.5, 1.0)
    """
    end_val = start_val if end_val is None else end_val
    end_step = start_step + 1 if end_step is None else end_step
    return SCHEDULES[name](start_val, end_val, start_step, end_step, frame)


def _progress(start_step: int, end_step: int, frame: int) -> float:
    if frame <= start_step:
        return 0.0
    if frame >= end_step:
        return 1.0
    return (frame - start_step) / (end_step - start_step)
