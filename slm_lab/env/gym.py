"""Any gymnasium env, N of them stepped one after the other in this process."""

import zlib
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from loguru import logger
from numpy.typing import NDArray

from slm_lab.env.base import MAX_T, VecEnv
from slm_lab.env.snapshot import ActionLog, Replayed, pack, unpack
from slm_lab.env.spaces import map_actions, map_obs
from slm_lab.lib.errors import LabError
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.types import EnvInfo, Step


class GymVecEnv(VecEnv):
    """N gymnasium envs. Episodes are counted, summed up and cut off here: no wrapper is needed for it.

    The state holds, per env, how the running episode began and its actions so far: at most max_t of them.

    Args:
        name: id, for messages and `info`.
        make: makes env i.
        num_envs: N.
        max_t: steps after which an episode is truncated; None: MAX_T.

    Raises:
        LabError: spaces the lab can't deal with.
    """

    def __init__(
        self, name: str, make: Callable[[int], gym.Env[Any, Any]], num_envs: int, *, max_t: int | None = None
    ) -> None:
        n = num_envs
        self._max_t = max_t or MAX_T
        self._envs = [make(i) for i in range(n)]
        self._episodes = [Replayed(env) for env in self._envs]
        self._steps = [env.step for env in self._envs]
        self._actions = map_actions(self._envs[0].action_space, name)
        self._observe = map_obs(self._envs[0].observation_space, name)
        self._plain = self._observe.first is None
        shape, kind = (n, *self._observe.shape), self._observe.dtype
        self.info = EnvInfo(name, self._observe.shape, kind.name, self._actions.space, n, self._max_t)
        self.obs, self._obs_before = np.zeros(shape, kind), np.zeros(shape, kind)
        self._final_obs = np.zeros(shape, kind)
        self._reward = np.zeros(n, np.float32)
        self._terminated, self._truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self._returns = [0.0] * n
        self._log = ActionLog((n, *self._actions.shape), self._actions.dtype)

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        self._log = ActionLog((self.info.num_envs, *self._actions.shape), self._actions.dtype)
        self._returns = [0.0] * self.info.num_envs
        for i, episode in enumerate(self._episodes):
            self._observe.write(self.obs[i, ...], episode.seed(derive(seed, i)))
        return self.obs

    def step(self, action: NDArray[Any]) -> Step:
        """See VecEnv."""
        action = np.asarray(action, self._actions.dtype)
        log, returns, max_t, plain = self._log, self._returns, self._max_t, self._plain
        reward, terminated, truncated = self._reward, self._terminated, self._truncated
        log.append(action)
        begin, end = log.begin, log.end
        obs, self._obs_before = self._obs_before, self.obs
        self.obs = obs
        terminated.fill(False)
        truncated.fill(False)
        ended = []
        for i, one in enumerate(self._actions.decode(action)):
            seen, gain, is_end, is_cut, _ = self._steps[i](one)
            if plain:
                obs[i] = seen
            else:
                self._observe.write(obs[i, ...], seen)
            gain = float(gain)
            reward[i] = gain
            returns[i] += gain
            if is_end or is_cut or end - begin[i] >= max_t:
                terminated[i] = is_end
                truncated[i] = not is_end
                ended.append(i)
        if ended:
            return self._end_episodes(ended)
        return Step(obs, reward, terminated, truncated, obs, [], [])

    def _end_episodes(self, ended: list[int]) -> Step:
        log = self._log
        self._final_obs[...] = self.obs
        episode_return = [self._returns[i] for i in ended]
        episode_length = [log.end - log.begin[i] for i in ended]
        for i in ended:
            self._returns[i] = 0.0
            log.begin[i] = log.end
            self._observe.write(self.obs[i, ...], self._episodes[i].reset())
        return Step(
            self.obs, self._reward, self._terminated, self._truncated, self._final_obs, episode_return, episode_length
        )

    def state_dict(self) -> State:
        """See VecEnv."""
        n = self.info.num_envs
        return {
            "name": self.info.name,
            "num_envs": n,
            "origin": [episode.origin() for episode in self._episodes],
            "actions": [pack(self._log.actions(i)) for i in range(n)],
            "check": self._checksum(),
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv. Lives the running episodes again, up to where they were."""
        self._check_state(state)
        actions = [unpack(a) for a in state["actions"]]
        self._log.set_actions(actions)
        self._returns = [0.0] * self.info.num_envs
        for i, episode in enumerate(self._episodes):
            seen = episode.restore(state["origin"][i])
            for one in self._actions.decode(actions[i]):
                seen, gain, *_ = self._steps[i](one)
                self._returns[i] += float(gain)
            self._observe.write(self.obs[i, ...], seen)
        if self._checksum() != state["check"]:
            logger.warning(
                f"env: {self.info.name} took another course when its running episodes were repeated: it is not "
                "deterministic, or of another version than before. The run goes on, but not exactly as it would have."
            )

    def _checksum(self) -> int:
        returns = np.array(self._returns, np.float64)
        return zlib.crc32(returns.tobytes(), zlib.crc32(np.ascontiguousarray(self.obs).tobytes()))

    def render(self) -> NDArray[np.uint8] | None:
        """See VecEnv."""
        env = self._envs[0]
        if env.render_mode != "rgb_array":
            return None
        try:
            frame: Any = env.render()
        except gym.error.DependencyNotInstalled as e:
            raise LabError(f"env: can't render {self.info.name}: {e}") from e
        return np.asarray(frame)

    def close(self) -> None:
        """See VecEnv."""
        for env in self._envs:
            env.close()
