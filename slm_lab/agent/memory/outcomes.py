"""Outcomes of the steps in a replay memory: rewards, ends of episodes, and last observations."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from slm_lab.agent.memory.obs_store import Index, Pool
from slm_lab.lib.stateful import State
from slm_lab.types import Floats, Normalizer, Step

CUT = -2
"""End of a truncated episode whose successor is the next row's observation nevertheless."""


class Outcome(NamedTuple):
    """Outcomes of B places, over n steps each."""

    reward: Floats
    """[B] discounted sum"""
    last: Index
    """[B] places of the last steps"""
    terminated: Floats
    """[B] 1 - (discount of the bootstrap) / gamma: 0 or 1 where n is 1"""
    apart: Index
    """[A] rows of the batch whose successor is not in the ring"""
    final: NDArray[Any] | None
    """[A, *O] those successors; None: there are none"""


class Outcomes:
    """A reward and an end for each place of a ring [R, N], and the true successors that the ring does not hold.

    An end is 0 while the episode continues: the successor is the next row's observation. Otherwise the episode ended
    there. Bit 0 says whether it terminated. The bits above are 0 where the next row holds the successor after all, else
    1 + its number in the pool. Where an episode was truncated and the next row holds the successor, the end is CUT.

    Args:
        rows: R
        num_envs: N
        shape: *O
        dtype: of an observation
    """

    def __init__(self, rows: int, num_envs: int, shape: tuple[int, ...], dtype: str) -> None:
        self.reward = np.zeros((rows, num_envs), np.float32)
        self.end = np.zeros((rows, num_envs), np.int32)
        self.pool = Pool(shape, dtype)

    def clear(self, rows: int | Index) -> None:
        """Clear the ends of a row, or of several, that are overwritten."""
        end = self.end[rows]
        kept = end[end > 1]
        if len(kept):
            self.pool.drop((kept >> 1).astype(np.int64) - 1)
        self.end[rows] = 0

    def close(self, row: int, step: Step) -> None:
        """Store in a row which episodes the step ended."""
        end = self.end[row]
        end += step.terminated
        self._keep(end, step.final_obs, step.obs)
        end[(end == 0) & step.truncated] = CUT

    def cut(self, row: int, successor: NDArray[Any], obs: NDArray[Any]) -> None:
        """End all episodes after a row: the env was reset from outside.

        Args:
            row: the last one before
            successor: [N, *O] what the next row holds
            obs: [N, *O] what it will hold instead
        """
        end = self.end[row]
        self._keep(end, successor, obs, only=end < 2)
        end[end == 0] = CUT

    def _keep(self, end: NDArray[np.int32], successor: NDArray[Any], obs: NDArray[Any], only: Any = True) -> None:
        """Keep true successors where they differ from the observation of the next row."""
        differs = (successor != obs).reshape(len(obs), -1).any(1) & only
        places = np.flatnonzero(differs)
        if len(places):
            end[places] = (end[places] & 1) + 2 * (self.pool.put(successor[places]) + 1)

    def look_up(self, index: Index, steps: int, gamma: float, newest: int, normalizer: Normalizer | None) -> Outcome:
        """Outcomes of these places.

        Args:
            index: [B] places `row * N + env`
            steps: n, rewards that are summed up; fewer where the episode ends or the ring holds no more
            gamma: discount per step
            newest: the last row that was written
            normalizer: of the rewards; None: they are taken as they are
        """
        last, reward = index, self._rewards(index, normalizer)
        discount = None
        if steps > 1:
            last, discount = index.copy(), np.ones(len(index), np.float32)
            rows, n = self.reward.shape
            for _ in range(steps - 1):
                on = (self.end.take(last) == 0) & (last // n != newest)
                if not on.any():
                    break
                last[on] = (last[on] + n) % (rows * n)
                discount[on] *= gamma
                reward[on] += discount[on] * self._rewards(last[on], normalizer)
        end = self.end.take(last)
        apart = (end > 1).nonzero()[0]
        final = self.pool.take((end[apart] >> 1).astype(np.int64) - 1) if len(apart) else None
        terminated = (end & 1).astype(np.float32)
        if discount is not None:
            terminated = 1 - discount * (1 - terminated)
        return Outcome(reward, last, terminated, apart, final)

    def _rewards(self, index: Index, normalizer: Normalizer | None) -> Floats:
        reward = self.reward.take(index)
        return reward if normalizer is None else normalizer.normalize_reward(reward)

    def state_dict(self, rows: int) -> State:
        """The first rows, and the pool."""
        arrays = {"reward": self.reward, "end": self.end}
        return {**{k: torch.from_numpy(v[:rows].copy()) for k, v in arrays.items()}, "final": self.pool.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        rows = len(state["end"])
        self.reward[:rows] = state["reward"].numpy()
        self.end[:rows] = state["end"].numpy()
        self.pool.load_state_dict(state["final"])
