"""What `wrappers` puts together: single changes of observations and rewards, each for N envs at once."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slm_lab.env.snapshot import pack, unpack
from slm_lab.lib.stateful import State
from slm_lab.types import Bools, ObsPart, PackedShape

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

    def apply(self, reward: Array) -> Array:
        """From rewards of any time to what they are worth now; learns nothing."""
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


def normalize(x: Array, mean: Array, var: Array) -> Array:
    """(x - mean) / sqrt(var + EPSILON), as float32.

    Args:
        x: [..., *S]
        mean: [*S]
        var: [*S]

    >>> normalize(np.array([[1000.0, 3.0]]), np.array([900.0, 3.0]), np.array([2500.0, 0.0])).tolist()
    [[2.0, 0.0]]
    """
    made: Array = ((x - mean) / np.sqrt(var + EPSILON)).astype(np.float32)
    return made


def normalize_by_scale(x: Array, var: Array) -> Array:
    """x / sqrt(var + EPSILON), as float32: the mean stays.

    >>> normalize_by_scale(np.array([3.0, -1.0]), np.array(4.0)).tolist()
    [1.5, -0.5]
    """
    made: Array = (x / np.sqrt(var + EPSILON)).astype(np.float32)
    return made


def clip(x: Array, low: Array, high: Array) -> Array:
    """To [low, high]: min and max cost less than np.clip.

    >>> clip(np.array([-7.0, 2.0]), np.array(-5.0), np.array(5.0)).tolist()
    [-5.0, 2.0]
    """
    made: Array = np.minimum(np.maximum(x, low), high)
    return made


class Frames:
    """The last `length` observations as one; an episode begins with its first one repeated.

    Args:
        op: "concat": along the first axis of the observation (of vectors: one long vector; of images: more channels;
            of parts: each by itself); "stack": along a new axis before it, the oldest first.
        length: how many.
        num_envs: N.
        shape: *O of what comes in.
        dtype: of it.
    """

    def __init__(self, op: str, length: int, num_envs: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        joined = op == "concat" and len(shape) > 0
        self._parts: list[slice] = []
        if isinstance(shape, PackedShape):
            self.shape: tuple[int, ...] = PackedShape((length, *shape), shape.parts)
            if joined:
                self._parts = [slice(part.begin, part.end) for part in shape.parts]
                self.shape = _joined(shape, length)
        else:
            self.shape = (length * shape[0], *shape[1:]) if joined else (length, *shape)
        self.dtype = dtype
        self.op, self.length = op, length
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
        if not self._parts:
            return frames.reshape(len(frames), *self.shape)
        # along its first axis a part's numbers lie one after the other
        shown = np.zeros((len(frames), *self.shape), self.dtype)
        end = 0
        for part in self._parts:
            begin, end = end, end + self.length * (part.stop - part.start)
            shown[:, begin:end] = frames[:, :, part].reshape(len(frames), -1)
        return shown

    def state_dict(self) -> State:
        """See ObsOp."""
        return {"frames": pack(self._frames)}

    def load_state_dict(self, state: State) -> None:
        """See ObsOp."""
        self._frames = unpack(state["frames"])


def _joined(shape: PackedShape, length: int) -> PackedShape:
    """Of rows of which each part is `length` ones joined along their first axis."""
    parts, end = [], 0
    for part in shape.parts:
        size = length * (part.end - part.begin)
        joined = (length * part.shape[0], *part.shape[1:])
        parts.append(ObsPart(part.name, joined, part.dtype, end, end + size, part.image))
        end += size
    end += -end % (4 if shape.dtype == "uint8" else 1)
    return PackedShape((end,), tuple(parts))


class _Reals:
    """Where the numbers are that are normalized and clipped: everywhere; of parts that are packed, in the vectors.

    Args:
        shape: *O
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._end: int | None = None
        self.shape: tuple[int, ...] = shape
        """Of them."""
        if isinstance(shape, PackedShape) and not shape.flat:
            # vectors come first
            self._end = max((part.end for part in shape.parts if not part.image), default=0)
            self.shape = (*shape[:-1], self._end // 4 if shape.dtype == "uint8" else self._end)

    def of(self, obs: Array) -> Array:
        """A view of them, [N, *shape]."""
        return obs if self._end is None else obs[..., : self._end].view(np.float32)

    def put(self, obs: Array, values: Array) -> Array:
        """The observations with these values in their place; new arrays."""
        if self._end is None:
            return values
        made = obs.copy()
        self.of(made)[...] = values
        return made


class NormalizeObs:
    """(obs - mean) / sqrt(var + EPSILON), each element by itself; of parts that are packed only vectors.

    The statistics are of what is acted on: each observation counts once, the last of an episode not at all.

    Args:
        shape: *O
        dtype: of observations
        training: whether the statistics learn.
    """

    key = "obs"

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, training: bool) -> None:
        self.reals = _Reals(shape)
        packed = self.reals.shape is not shape
        self.shape, self.dtype = shape, dtype if packed else np.dtype(np.float32)
        self.moments = Moments(self.reals.shape)
        self.training = training

    def reset(self, obs: Array) -> Array:
        """See ObsOp."""
        if self.training:
            self.moments.update(self.reals.of(obs))
        return self.apply(obs)

    def step(self, obs: Array, final_obs: Array, ended: Bools | None) -> tuple[Array, Array]:
        """See ObsOp."""
        shown = self.reset(obs)
        return shown, shown if ended is None else self.apply(final_obs)

    def apply(self, obs: Array) -> Array:
        """Observations [..., *O] under the statistics as they stand, which learn nothing."""
        return self.reals.put(obs, normalize(self.reals.of(obs), self.moments.mean, self.moments.var))

    def state_dict(self) -> State:
        """See ObsOp."""
        return self.moments.state_dict()

    def load_state_dict(self, state: State) -> None:
        """See ObsOp."""
        self.moments.load_state_dict(state)


class ClipObs(Stateless):
    """To [-bound, bound]; of parts that are packed only vectors."""

    def __init__(self, bound: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.reals = _Reals(shape)
        kind: np.dtype[Any] = dtype if self.reals.shape is shape else np.dtype(np.float32)
        # 0-d arrays cost less than numbers
        high = min(bound, np.iinfo(kind).max) if kind.kind in "iu" else bound
        self.low, self.high = np.array(0 if kind.kind == "u" else -high, kind), np.array(high, kind)

    def reset(self, obs: Array) -> Array:
        """See ObsOp."""
        return self.apply(obs)

    def step(self, obs: Array, final_obs: Array, ended: Bools | None) -> tuple[Array, Array]:
        """See ObsOp."""
        shown = self.apply(obs)
        return shown, shown if ended is None else self.apply(final_obs)

    def apply(self, obs: Array) -> Array:
        """Observations [..., *O], clipped."""
        return self.reals.put(obs, clip(self.reals.of(obs), self.low, self.high))


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
        return self.apply(reward)

    def apply(self, reward: Array) -> Array:
        """Rewards under the statistics as they stand, which learn nothing."""
        return normalize_by_scale(reward, self.moments.var)

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

    def step(self, reward: Array, done: Bools) -> Array:
        """See RewardOp."""
        return self.apply(reward)

    def apply(self, reward: Array) -> Array:
        """Of rewards, whenever they were paid."""
        raise NotImplementedError


class ClipReward(_Plain):
    """To [low, high]."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = np.array(low, np.float32), np.array(high, np.float32)

    def apply(self, reward: Array) -> Array:
        """See _Plain."""
        return clip(reward, self.low, self.high)


class ScaleReward(_Plain):
    """Times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = np.array(factor, np.float32)

    def apply(self, reward: Array) -> Array:
        """See _Plain."""
        scaled: Array = reward * self.factor
        return scaled


class SignReward(_Plain):
    """-1, 0 or 1."""

    def apply(self, reward: Array) -> Array:
        """See _Plain."""
        sign: Array = np.sign(reward)
        return sign
