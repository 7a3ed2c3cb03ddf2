"""Tensor envs on a device, by the thousand: none of them waits for Python.

Where `tensor.TensorVec` draws the noise of each episode on the host, from gymnasium's seeds, these compute it where
they run, from (seed, env, episode).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.env.device import DeviceVec, Moved
from slm_lab.env.tensor import TensorEnv, decoded, maps_of, stepped
from slm_lab.functional.counters import uniform
from slm_lab.lib.stateful import State
from slm_lab.types import EnvInfo

EPISODE, STEP = 0, 1
"""Distinguishes the noise of episodes from that of steps."""


class CountedVec(DeviceVec):
    """N tensor envs on one device.

    Args:
        env: the problem; its methods put new tensors on the device of their arguments
        device: torch name
    """

    capturable = True

    def __init__(self, name: str, env: TensorEnv, num_envs: int, *, max_t: int, device: str) -> None:
        n, self.env, self._max_t = num_envs, env, max_t
        self.actions, self.observations = maps_of(env, name)
        self.info = EnvInfo(name, env.obs_shape, "float32", env.action, n, self._max_t)
        self._index = torch.arange(n, device=device)[:, None]
        self._seed = torch.zeros((), dtype=torch.int64, device=device)
        self._t = torch.zeros((), dtype=torch.int64, device=device)
        self._episode = torch.zeros((n, 1), dtype=torch.int64, device=device)
        self._age = torch.zeros(n, dtype=torch.int64, device=device)
        self._ret = torch.zeros(n, dtype=torch.float64, device=device)
        self._state = self._fresh().clone()
        self.seen = torch.zeros((n, *env.obs_shape), device=device)
        self.obs = np.zeros((n, *env.obs_shape), np.float32)

    def _noise(self, kind: int, count: Tensor, size: int) -> Tensor:
        """[N, size] in [0, 1)"""
        kinds = torch.full_like(self._index, kind)
        return uniform(self._seed, kinds, self._index, count, torch.arange(size, device=self._index.device))

    def _fresh(self) -> Tensor:
        """[N, ...] states in which the episodes of these numbers begin."""
        return self.env.init(self._noise(EPISODE, self._episode, self.env.init_noise))

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        self._seed.fill_(seed)
        for tensor in (self._t, self._episode, self._age, self._ret):
            tensor.zero_()
        self._state.copy_(self._fresh())
        self.seen.copy_(self.env.observe(self._state))
        self.obs = self.seen.cpu().numpy().copy()
        return self.obs

    def advance(self, action: Tensor) -> Moved:
        """See DeviceVec."""
        noise = self._noise(STEP, self._t, self.env.step_noise)
        self._episode.add_(1)
        fresh = self._fresh()
        action = decoded(self.env.action, action.to(self.seen.device))
        done, *made = stepped(self.env, self._max_t, (self._state, self._age, self._ret), fresh, action, noise)
        # those that continue are still in the episode before
        self._episode.sub_((~done).long()[:, None])
        self._t.add_(1)
        moved = Moved(*made)
        self.seen.copy_(moved.obs)
        return moved

    def state_dict(self) -> State:
        """See VecEnv; as that of TensorVec, so that a run can be resumed there."""
        return {
            **self._identity(),
            "seed": int(self._seed.item()),
            "t": int(self._t.item()),
            "episodes": (self._episode[:, 0] + 1).tolist(),
            "held": [x.tolist() for x in (self._state, self._age, self._ret)],
            "obs": self.seen.tolist(),
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv."""
        self._check_state(state)
        self._seed.fill_(state["seed"])
        self._t.fill_(state["t"])
        self._episode.copy_(torch.tensor(state["episodes"])[:, None] - 1)
        for tensor, values in zip((self._state, self._age, self._ret), state["held"], strict=True):
            tensor.copy_(torch.tensor(values, dtype=tensor.dtype))
        self.obs = np.array(state["obs"], np.float32).reshape(self.obs.shape)
        self.seen.copy_(torch.from_numpy(self.obs))
