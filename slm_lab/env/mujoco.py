"""gymnasium's MuJoCo tasks, N at a time, with the numbers of its envs stepped one by one.

Its envs are made and reset as they are; their physics runs in threads, and what an agent sees of it is worked out for
all of them at once.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from loguru import logger
from numpy.typing import NDArray

from slm_lab.env.actions import map_actions
from slm_lab.env.base import VecEnv
from slm_lab.env.mujoco_tasks import TASKS, Task
from slm_lab.env.observations import map_obs
from slm_lab.env.rows import picture
from slm_lab.env.snapshot import pack, unpack
from slm_lab.env.threads import Threads
from slm_lab.lib.cores import available_cores
from slm_lab.lib.errors import LabError
from slm_lab.lib.seeding import EpisodeSeeds
from slm_lab.lib.stateful import State
from slm_lab.types import EnvInfo, Step

WORTH = 100e-6
"""Seconds of physics in a vector step from which waking threads up pays."""
PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION
"""All of mjData that decides the next steps, the solver's warm start among it."""


class MujocoVec(VecEnv):
    """N envs of one of gymnasium's MuJoCo tasks.

    Args:
        entry_point: what registers the env; a key of `TASKS`.
        make: makes env i.
        threads: for the physics, at most; None: one a core.
    """

    def __init__(
        self,
        name: str,
        entry_point: str,
        make: Callable[[int], gym.Env[Any, Any]],
        num_envs: int,
        *,
        max_t: int,
        threads: int | None = None,
    ) -> None:
        n = num_envs
        self._envs: list[Any] = [make(i).unwrapped for i in range(n)]
        first = self._envs[0]
        self._task: Task = TASKS[entry_point](first)
        self.actions = map_actions(first.action_space, name)
        self.observations = map_obs(first.observation_space, name)
        self._max_t = max_t
        shape = tuple(first.observation_space.shape)
        self.info = EnvInfo(name, shape, "float32", self.actions.space, n, self._max_t)
        self.obs, self._obs_before = np.zeros((n, *shape), np.float32), np.zeros((n, *shape), np.float32)
        self._final_obs = np.zeros((n, *shape), np.float32)
        self._reward, self._returns = np.zeros(n, np.float32), np.zeros(n)
        self._seeds, self._episodes = EpisodeSeeds(0, n), [0] * n
        """Of all envs, and how many episodes each has started."""
        self._t, self._start = 0, [0] * n
        self._deadline = self._max_t
        # the envs' models are alike: one stays in the processor's cache
        self._model, self._skip, self._dt = first.model, first.frame_skip, first.dt
        self._datas = [env.data for env in self._envs]
        self._controls = [data.ctrl for data in self._datas]
        names = ("qpos", "qvel", *self._task.needs)
        self.fields = {f: np.zeros((n, *getattr(first.data, f).shape)) for f in names}
        """What was read of mjData after the last step, [N, ...] each."""
        self.fields["ctrl"] = np.zeros((n, self._model.nu))
        views = [[getattr(data, f) for f in names] for data in self._datas]
        self._gather = [[(self.fields[f][i], v) for f, v in zip(names, views[i], strict=True)] for i in range(n)]
        self._place = np.zeros(n)
        workers = min(n, threads or available_cores())
        self._threads = Threads(workers if workers > 1 and n * self._measure() > WORTH else 1)

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        n = self.info.num_envs
        self._seeds, self._episodes = EpisodeSeeds(seed, n), [0] * n
        for i in range(n):
            self._begin(i)
        self._returns.fill(0)
        self._t, self._start = 0, [0] * n
        self._deadline = self._max_t
        self._place = self._task.place(self.fields)
        return self.obs

    def _begin(self, i: int) -> None:
        """The next episode of env i."""
        self.obs[i] = self._envs[i].reset(seed=self._seeds.of(i, self._episodes[i]))[0]
        self._episodes[i] += 1
        self._collect(i)

    def step(self, action: NDArray[Any]) -> Step:
        """See VecEnv."""
        task, fields = self._task, self.fields
        action = self.actions.decode(np.asarray(action, np.float32))
        fields["ctrl"][...] = action
        self._threads.each(self._advance, self.info.num_envs)
        self._t += 1
        place = task.place(fields)
        ok = task.healthy(fields)
        obs, self._obs_before = self._obs_before, self.obs
        self.obs = obs
        np.concatenate(task.obs(fields), axis=1, out=obs, casting="same_kind")
        gain = task.reward(fields, (place - self._place) / self._dt, action, ok)
        self._place = place
        self._returns += gain
        self._reward[...] = gain
        terminated = task.terminated(ok)
        if self._envs[0].render_mode == "human":
            self._envs[0].render()
        if self._t >= self._deadline or terminated.any():
            return self._end_episodes(terminated)
        return Step(obs, self._reward, terminated, np.zeros_like(terminated), obs, [], [])

    def _advance(self, i: int) -> None:
        """The physics of env i."""
        data = self._datas[i]
        self._controls[i][...] = self.fields["ctrl"][i]
        mujoco.mj_step(self._model, data, self._skip)
        if self._task.forces:
            mujoco.mj_rnePostConstraint(self._model, data)
        for row, view in self._gather[i]:
            row[...] = view

    def _collect(self, i: int) -> None:
        for row, view in self._gather[i]:
            row[...] = view

    def _end_episodes(self, terminated: NDArray[np.bool_]) -> Step:
        late = self._t - np.array(self._start) >= self._max_t
        truncated = late & ~terminated
        self._final_obs[...] = self.obs
        returns, lengths = [], []
        for i in np.flatnonzero(terminated | late).tolist():
            returns.append(float(self._returns[i]))
            lengths.append(self._t - self._start[i])
            self._returns[i] = 0
            self._start[i] = self._t
            self._begin(i)
        self._place = self._task.place(self.fields)
        self._deadline = min(self._start) + self._max_t
        return Step(self.obs, self._reward, terminated, truncated, self._final_obs, returns, lengths)

    def _measure(self) -> float:
        """Seconds that the physics of one step takes, roughly."""
        data = mujoco.MjData(self._model)
        mujoco.mj_step(self._model, data, self._skip)
        start = time.perf_counter()
        mujoco.mj_step(self._model, data, self._skip)
        return time.perf_counter() - start

    def state_dict(self) -> State:
        """See VecEnv."""
        physics = np.zeros((self.info.num_envs, mujoco.mj_stateSize(self._model, PHYSICS)))
        for row, data in zip(physics, self._datas, strict=True):
            mujoco.mj_getState(self._model, data, row, PHYSICS)
        return {
            **self._identity(),
            "physics": pack(physics),
            # where a task looks at fields that follow from the state before the last one, they can't be computed again
            "place": self._place.tolist(),
            "obs": pack(self.obs),
            "age": [self._t - start for start in self._start],
            "returns": self._returns.tolist(),
            "seed": self._seeds.seed,
            "episodes": list(self._episodes),
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv."""
        self._check_state(state)
        physics = unpack(state["physics"])
        if physics.shape[1] != mujoco.mj_stateSize(self._model, PHYSICS):
            raise LabError(f"env: the saved state of {self.info.name} is of another version of MuJoCo")
        for i, (row, data) in enumerate(zip(physics, self._datas, strict=True)):
            mujoco.mj_setState(self._model, data, row, PHYSICS)
            # for pictures; it touches what was just set
            mujoco.mj_forward(self._model, data)
            mujoco.mj_setState(self._model, data, row, PHYSICS)
            self._collect(i)
        self._seeds, self._episodes = EpisodeSeeds(state["seed"], self.info.num_envs), list(state["episodes"])
        self._place = np.array(state["place"])
        self.obs[...] = unpack(state["obs"])
        self._returns[...] = state["returns"]
        self._t, self._start = 0, [-age for age in state["age"]]
        self._deadline = min(self._start) + self._max_t

    def render(self) -> NDArray[np.uint8] | None:
        """See VecEnv."""
        if self._envs[0].render_mode != "rgb_array":
            return None
        return picture(self.info.name, self._envs[0].render)

    def close(self) -> None:
        """See VecEnv."""
        self._threads.close()
        for env in self._envs:
            env.close()


@contextmanager
def warnings_to_log() -> Iterator[None]:
    """Inside, MuJoCo's warnings become lines of the log at level debug.

    gymnasium's models bring some about; MuJoCo would write them to stderr and to a file in the working folder.
    """
    if not hasattr(mujoco, "set_mju_user_warning"):
        yield
        return
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_tell)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


@functools.cache
def _tell(text: str) -> None:
    logger.debug("MuJoCo: {}", text)
