"""Single changes of rewards, each for N envs at once; `wrappers` puts them together."""

import numpy as np

from slm_lab.env.moments import Moments, clip, normalize_by_scale
from slm_lab.lib.stateful import State
from slm_lab.types import Array, Bools


class RewardOp:
    """One change of rewards. By itself it remembers nothing: `apply` says all."""

    def reset(self) -> None:
        """All episodes begin."""

    def step(self, reward: Array, done: Bools) -> Array:
        """From rewards [N] to a new array [N]; done [N] says whose episode ended with them."""
        return self.apply(reward)

    def apply(self, reward: Array) -> Array:
        """From rewards of any time to what they are worth now; learns nothing."""
        raise NotImplementedError

    def state_dict(self) -> State:
        """What it remembers."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Remember that."""


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


class ClipReward(RewardOp):
    """To [low, high]."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = np.array(low, np.float32), np.array(high, np.float32)

    def apply(self, reward: Array) -> Array:
        """See RewardOp."""
        return clip(reward, self.low, self.high)


class ScaleReward(RewardOp):
    """Times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = np.array(factor, np.float32)

    def apply(self, reward: Array) -> Array:
        """See RewardOp."""
        return reward * self.factor


class SignReward(RewardOp):
    """-1, 0 or 1."""

    def apply(self, reward: Array) -> Array:
        """See RewardOp."""
        return np.sign(reward)
