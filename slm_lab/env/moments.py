"""Running statistics, and what is computed with them: functions of arrays, for whoever normalizes."""

import numpy as np

from slm_lab.env.snapshot import pack, unpack
from slm_lab.lib.stateful import State
from slm_lab.types import Array

EPSILON = 1e-8
"""Added to a variance before it divides."""


def normalize(x: Array, mean: Array, var: Array) -> Array:
    """(x - mean) / sqrt(var + EPSILON), as float32.

    Args:
        x: [..., *S]
        mean: [*S]
        var: [*S]

    >>> normalize(np.array([[1000.0, 3.0]]), np.array([900.0, 3.0]), np.array([2500.0, 0.0])).tolist()
    [[2.0, 0.0]]
    """
    return ((x - mean) / np.sqrt(var + EPSILON)).astype(np.float32)


def normalize_by_scale(x: Array, var: Array) -> Array:
    """x / sqrt(var + EPSILON), as float32: the mean stays.

    >>> normalize_by_scale(np.array([3.0, -1.0]), np.array(4.0)).tolist()
    [1.5, -0.5]
    """
    return (x / np.sqrt(var + EPSILON)).astype(np.float32)


def clip(x: Array, low: Array, high: Array) -> Array:
    """To [low, high]: min and max cost less than np.clip.

    >>> clip(np.array([-7.0, 2.0]), np.array(-5.0), np.array(5.0)).tolist()
    [-5.0, 2.0]
    """
    return np.minimum(np.maximum(x, low), high)


class Moments:
    """Running mean and variance of each element, in float64.

    Batches are merged as in Chan, Golub, LeVeque 1983: of counts m and n with means a and b and sums of squared
    deviations A and B, the union has sum A + B + (b - a)^2 m n / (m + n).

    >>> moments = Moments(())
    >>> moments.update(np.array([1.0, 2.0]))
    >>> moments.update(np.array([6.0]))
    >>> moments.count, float(moments.mean), round(float(moments.var), 6)
    (3, 3.0, 4.666667)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = np.zeros(shape)
        self.var = np.ones(shape)
        """Of the population; ones as long as there is no sample."""

    def update(self, batch: Array) -> None:
        """Take in samples [B, *shape]."""
        n, m = len(batch), self.count
        batch = batch.astype(np.float64)
        mean = np.add.reduce(batch, 0) / n
        batch -= mean
        var = np.add.reduce(np.square(batch, batch), 0) / n
        share = n / (m + n)
        delta = mean - self.mean
        self.count = m + n
        self.mean = self.mean + delta * share
        if m:
            # a new array each time: the old one may be in a saved state
            self.var = self.var * (1 - share) + var * share + np.square(delta) * (share * (1 - share))
        else:
            self.var = var

    def state_dict(self) -> State:
        """Count, mean and variance."""
        return {"count": self.count, "mean": pack(self.mean), "var": pack(self.var)}

    def load_state_dict(self, state: State) -> None:
        """Become them."""
        self.count, self.mean, self.var = state["count"], unpack(state["mean"]), unpack(state["var"])
