"""Any gymnasium env, N of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from slm_lab.env.base import VecEnv
from slm_lab.env.rows import LocalRows
from slm_lab.env.snapshot import ActionLog, checksum, pack, unpack
from slm_lab.lib.log import note
from slm_lab.lib.seeding import EpisodeSeeds
from slm_lab.lib.stateful import State
from slm_lab.types import EnvInfo, Step

if TYPE_CHECKING:
    from slm_lab.env.workers import SharedRows


class GymVecEnv(VecEnv):
    """N gymnasium envs. Episodes are counted, summed up and cut off here: no wrapper is needed for it.

    The state holds, per env, the number of the running episode and its actions so far: at most max_t of them.

    Raises:
        LabError: spaces the lab can't deal with.
    """

    def __init__(self, name: str, rows: "LocalRows | SharedRows", num_envs: int, *, max_t: int) -> None:
        n = num_envs
        self._max_t = max_t
        self._rows = rows
        self.actions, self.observations = rows.actions, rows.observations
        shape, kind = (n, *self.observations.shape), self.observations.dtype
        self.info = EnvInfo(name, self.observations.shape, kind.name, self.actions.space, n, self._max_t)
        self.obs, self._obs_before = np.zeros(shape, kind), np.zeros(shape, kind)
        self._final_obs = np.zeros(shape, kind)
        self._gain, self._reward, self._returns = np.zeros(n), np.zeros(n, np.float32), np.zeros(n)
        self._terminated, self._truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self._log = ActionLog((n, *self.actions.shape), self.actions.dtype)
        self._seeds, self._episodes = EpisodeSeeds(0, n), [0] * n
        """Of all envs, and how many episodes each has started."""

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        n = self.info.num_envs
        self._log = ActionLog((n, *self.actions.shape), self.actions.dtype)
        self._returns.fill(0)
        self._seeds, self._episodes = EpisodeSeeds(seed, n), [0] * n
        self._begin(list(range(n)))
        return self.obs

    def _begin(self, which: list[int]) -> None:
        """The next episode of some envs."""
        for i in which:
            self._episodes[i] += 1
        self._rows.begin(which, self._running_seeds(which), self.obs)

    def _running_seeds(self, which: Sequence[int]) -> list[int]:
        """Of the running episodes."""
        return [self._seeds.of(i, self._episodes[i] - 1) for i in which]

    def step(self, action: NDArray[Any]) -> Step:
        """See VecEnv."""
        action = np.asarray(action, self.actions.dtype)
        log, terminated, truncated = self._log, self._terminated, self._truncated
        log.append(action)
        obs, self._obs_before = self._obs_before, self.obs
        self.obs = obs
        self._rows.step(action, obs, self._gain, terminated, truncated)
        self._returns += self._gain
        self._reward[...] = self._gain
        # looking into the bytes costs a twentieth of any()
        if 1 in terminated.tobytes() or 1 in truncated.tobytes() or log.end - min(log.begin) >= self._max_t:
            return self._end_episodes()
        return Step(obs, self._reward, terminated, truncated, obs, [], [])

    def _end_episodes(self) -> Step:
        log, terminated, truncated = self._log, self._terminated, self._truncated
        if (terminated & truncated).any():
            note(f"env: {self.info.name} reported one step as terminated and truncated: it counts as terminated")
        for i, begin in enumerate(log.begin):
            if log.end - begin >= self._max_t:
                truncated[i] = True
        ended = np.flatnonzero(terminated | truncated).tolist()
        truncated &= ~terminated
        self._final_obs[...] = self.obs
        episode_return = [float(self._returns[i]) for i in ended]
        episode_length = [log.end - log.begin[i] for i in ended]
        self._returns[ended] = 0
        for i in ended:
            log.begin[i] = log.end
        self._begin(ended)
        return Step(self.obs, self._reward, terminated, truncated, self._final_obs, episode_return, episode_length)

    def state_dict(self) -> State:
        """See VecEnv."""
        return {
            **self._identity(),
            "seed": self._seeds.seed,
            "episodes": list(self._episodes),
            "actions": [pack(self._log.actions(i)) for i in range(self.info.num_envs)],
            "check": checksum(self._returns, self.obs),
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv. Repeats the running episodes up to where they were."""
        self._check_state(state)
        actions = [unpack(a) for a in state["actions"]]
        self._log.set_actions(actions)
        self._seeds, self._episodes = EpisodeSeeds(state["seed"], self.info.num_envs), list(state["episodes"])
        seeds = self._running_seeds(range(self.info.num_envs))
        self._returns[...] = self._rows.restore(seeds, actions, self.obs)
        if checksum(self._returns, self.obs) != state["check"]:
            logger.warning(
                f"env: {self.info.name} can't be resumed exactly: its running episodes took another course when they "
                "were repeated from the same seeds with the same actions. It keeps state over resets, draws random "
                "numbers from elsewhere, or is of another version than before. The run continues from where they led."
            )

    def render(self) -> NDArray[np.uint8] | None:
        """See VecEnv."""
        return self._rows.render()

    def close(self) -> None:
        """See VecEnv."""
        self._rows.close()
