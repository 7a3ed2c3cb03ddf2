"""What `wrappers` puts together: single changes of observations and rewards, each for N envs at once."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slm_lab.env.snapshot import pack, unpack
from slm_lab.lib.stateful import State
from slm_lab.types import Bools

EPSILON = 1e-8
"""Added to a variance before it divides."""

Array = NDArray[Any]


class ObsOp(Protocol):
    """One change of observations. Arrays it gives are its own and not written to again."""

    shape: tuple[int, ...]
    """*O of what it gives."""
    dtype: np.dtype[Any]

    def reset(self, obs: Array) -> Array:
        """All episodes begin, with obs [N, *O]."""
        ...

    def step(self, obs: Array, final_obs: Array, ended: Bools | None) -> tuple[Array, Array]:
        """See `Step` for obs and final_obs; ended [N] says whose episode ended, None: no one's, and both are one."""
        ...

    def state_dict(self) -> State:
        """What it remembers."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Remember that."""
        ...


class RewardOp(Protocol):
    """One change of rewards."""

    def reset(self) -> None:
        """All episodes begin."""
        ...

    def step(self, reward: Array, done: Bools) -> Array:
        """From rewards [N] to a new array [N]; done [N] says whose episode ended with them."""
        ...

    def state_dict(self) -> State:
        """What it remembers."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Remember that."""
        ...


class Stateless:
    """Of an op that remembers nothing."""

    def state_dict(self) -> State:
        """Nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to do."""


class Moments:
    """Running mean and variance of each element, in float64.

    Batches are merged as in Chan, Golub, LeVeque 1983: of counts m and n with means a and b and sums of squared
    deviations A and B, the union has sum A + B + (b - a)^2 m n / (m + n).

    Args:
        shape: of one sample.

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


class Frames:
    """The last `length` observations as one; an episode begins with its first one repeated.

    Args:
        op: "concat": along the first axis of the observation (of vectors: one long vector; of images: more channels);
            "stack": along a new axis before it, the oldest first.
        length: how many.
        num_envs: N.
        shape: *O of what comes in.
        dtype: of it.
    """

    def __init__(self, op: str, length: int, num_envs: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        joined = op == "concat" and len(shape) > 0
        self.shape = (length * shape[0], *shape[1:]) if joined else (length, *shape)
        self.dtype = dtype
        self._frames = np.zeros((num_envs, length, *shape), dtype)

    def reset(self, obs: Array) -> Array:
        """See ObsOp."""
        self._frames = np.repeat(obs[:, None], self._frames.shape[1], axis=1)
        return self._show(self._frames)

    def step(self, obs: Array, final_obs: Array, ended: Bools | None) -> tuple[Array, Array]:
        """See ObsOp."""
        frames = np.concatenate([self._frames[:, 1:], final_obs[:, None]], axis=1)
        if ended is None:
            self._frames = frames
            shown = self._show(frames)
            return shown, shown
        self._frames = frames.copy()
        self._frames[ended] = obs[ended][:, None]
        return self._show(self._frames), self._show(frames)

    def _show(self, frames: Array) -> Array:
        return frames.reshape(len(frames), *self.shape)

    def state_dict(self) -> State:
        """See ObsOp."""
        return {"frames": pack(self._frames)}

    def load_state_dict(self, state: State) -> None:
        """See ObsOp."""
        self._frames = unpack(state["frames"])


class NormalizeObs:
    """(obs - mean) / sqrt(var + EPSILON), each element by itself.

    The statistics are of what is acted on: each observation counts once, the last of an episode not at all.

    Args:
        shape: *O
        training: whether the statistics learn.
    """

    key = "obs"

    def __init__(self, shape: tuple[int, ...], *, training: bool) -> None:
        self.shape, self.dtype = shape, np.dtype(np.float32)
        self.moments = Moments(shape)
        self._training = training

    def reset(self, obs: Array) -> Array:
        """See ObsOp."""
        if self._training:
            self.moments.update(obs)
        return self._normalize(obs)

    def step(self, obs: Array, final_obs: Array, ended: Bools | None) -> tuple[Array, Array]:
        """See ObsOp."""
        shown = self.reset(obs)
        return shown, shown if ended is None else self._normalize(final_obs)

    def _normalize(self, obs: Array) -> Array:
        return ((obs - self.moments.mean) / np.sqrt(self.moments.var + EPSILON)).astype(np.float32)

    def state_dict(self) -> State:
        """See ObsOp."""
        return self.moments.state_dict()

    def load_state_dict(self, state: State) -> None:
        """See ObsOp."""
        self.moments.load_state_dict(state)


class ClipObs(Stateless):
    """To [-bound, bound]."""

    def __init__(self, bound: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        # min and max cost less than np.clip; 0-d arrays less than numbers
        high = min(bound, np.iinfo(dtype).max) if dtype.kind in "iu" else bound
        self._low, self._high = np.array(0 if dtype.kind == "u" else -high, dtype), np.array(high, dtype)

    def reset(self, obs: Array) -> Array:
        """See ObsOp."""
        clipped: Array = np.minimum(np.maximum(obs, self._low), self._high)
        return clipped

    def step(self, obs: Array, final_obs: Array, ended: Bools | None) -> tuple[Array, Array]:
        """See ObsOp."""
        shown = self.reset(obs)
        return shown, shown if ended is None else self.reset(final_obs)


class NormalizeReward:
    """reward / sqrt(var + EPSILON), var of the discounted return ret = gamma * ret + reward of each env so far.

    The mean stays: a shift of the rewards would change what is best in episodes of different lengths.

    Args:
        num_envs: N
        gamma: discount per step.
        training: whether the statistics learn.
    """

    key = "reward"

    def __init__(self, num_envs: int, gamma: float, *, training: bool) -> None:
        self.moments = Moments(())
        self._gamma, self._training = gamma, training
        self._ret = np.zeros(num_envs)

    def reset(self) -> None:
        """See RewardOp."""
        self._ret.fill(0)

    def step(self, reward: Array, done: Bools) -> Array:
        """See RewardOp."""
        if self._training:
            self._ret *= self._gamma
            self._ret += reward
            self.moments.update(self._ret)
            self._ret[done] = 0
        return (reward / np.sqrt(self.moments.var + EPSILON)).astype(np.float32)

    def state_dict(self) -> State:
        """See RewardOp."""
        return {**self.moments.state_dict(), "ret": self._ret.tolist()}

    def load_state_dict(self, state: State) -> None:
        """See RewardOp."""
        self.moments.load_state_dict(state)
        self._ret[...] = state["ret"]


class _Plain(Stateless):
    """A function of the reward alone."""

    def reset(self) -> None:
        """See RewardOp."""


class ClipReward(_Plain):
    """To [low, high]."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = np.array(low, np.float32), np.array(high, np.float32)

    def step(self, reward: Array, done: Bools) -> Array:
        """See RewardOp."""
        clipped: Array = np.minimum(np.maximum(reward, self._low), self._high)
        return clipped


class ScaleReward(_Plain):
    """Times a factor."""

    def __init__(self, factor: float) -> None:
        self._factor = np.array(factor, np.float32)

    def step(self, reward: Array, done: Bools) -> Array:
        """See RewardOp."""
        scaled: Array = reward * self._factor
        return scaled


class SignReward(_Plain):
    """-1, 0 or 1."""

    def step(self, reward: Array, done: Bools) -> Array:
        """See RewardOp."""
        sign: Array = np.sign(reward)
        return sign
