"""Single changes of observations and rewards, each for N envs at once; `wrappers` puts them together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from slm_lab.env.moments import Moments, clip, normalize, normalize_by_scale
from slm_lab.env.snapshot import pack, unpack
from slm_lab.lib.stateful import State
from slm_lab.types import Array, Bools, PackedShape


class Op:
    """One change. By itself it remembers nothing: `apply` says all."""

    def state_dict(self) -> State:
        """What it remembers."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Remember that."""


class ObsOp(Op):
    """One change of observations. Arrays it gives are its own and not written to again."""

    shape: tuple[int, ...]
    """*O of what it gives."""
    dtype: np.dtype[Any]

    def reset(self, obs: Array) -> Array:
        """All episodes begin, with obs [N, *O]."""
        return self.apply(obs)

    def step(self, obs: Array, final_obs: Array, ended: Bools | None) -> tuple[Array, Array]:
        """See `Step` for obs and final_obs; ended [N] says whose episode ended, None: no one's, and both are one."""
        shown = self.reset(obs)
        return shown, shown if ended is None else self.apply(final_obs)

    def apply(self, obs: Array) -> Array:
        """Observations [..., *O] as they are changed now; learns nothing."""
        raise NotImplementedError


class Frames(ObsOp):
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
        # along its first axis a part's numbers follow one another
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
        parts.append(replace(part, shape=joined, begin=end, end=end + size))
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
        if isinstance(shape, PackedShape) and (not shape.flat or shape.mask is not None):
            # vectors come first, a mask after them
            self._end = max((part.end for part in shape.parts if not part.image and not part.mask), default=0)
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


class NormalizeObs(ObsOp):
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

    def apply(self, obs: Array) -> Array:
        """See ObsOp; the statistics stay as they are."""
        return self.reals.put(obs, normalize(self.reals.of(obs), self.moments.mean, self.moments.var))

    def state_dict(self) -> State:
        """See ObsOp."""
        return self.moments.state_dict()

    def load_state_dict(self, state: State) -> None:
        """See ObsOp."""
        self.moments.load_state_dict(state)


class ClipObs(ObsOp):
    """To [-bound, bound]; of parts that are packed only vectors."""

    def __init__(self, bound: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.reals = _Reals(shape)
        kind: np.dtype[Any] = dtype if self.reals.shape is shape else np.dtype(np.float32)
        # 0-d arrays cost less than numbers
        high = min(bound, np.iinfo(kind).max) if kind.kind in "iu" else bound
        self.low, self.high = np.array(0 if kind.kind == "u" else -high, kind), np.array(high, kind)

    def apply(self, obs: Array) -> Array:
        """See ObsOp."""
        return self.reals.put(obs, clip(self.reals.of(obs), self.low, self.high))


class RewardOp(Op):
    """One change of rewards."""

    def reset(self) -> None:
        """All episodes begin."""

    def step(self, reward: Array, done: Bools) -> Array:
        """From rewards [N] to a new array [N]; done [N] says whose episode ended with them."""
        return self.apply(reward)

    def apply(self, reward: Array) -> Array:
        """From rewards of any time to what they are worth now; learns nothing."""
        raise NotImplementedError


class NormalizeReward(RewardOp):
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
        """See RewardOp; the statistics stay as they are."""
        return normalize_by_scale(reward, self.moments.var)

    def state_dict(self) -> State:
        """See RewardOp."""
        return {**self.moments.state_dict(), "ret": self._ret.tolist()}

    def load_state_dict(self, state: State) -> None:
        """See RewardOp."""
        self.moments.load_state_dict(state)
        self._ret[...] = state["ret"]


class MapReward(RewardOp):
    """A function of each reward by itself."""

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self._function = function

    def apply(self, reward: Array) -> Array:
        """See RewardOp."""
        return self._function(reward)
