"""Vector steps that no env made: every observation is a number of its own, episodes end at random."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from slm_lab.types import ActionSpace, Discrete, EnvInfo, Step


@dataclass
class Owner:
    """What a memory wants of an agent."""

    info: EnvInfo
    seed: int = 0
    training_frequency: int = 1
    training_start_step: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def _owner(
    num_envs: int = 2,
    obs_shape: tuple[int, ...] = (3,),
    obs_dtype: str = "float32",
    action: ActionSpace | None = None,
    **kwargs: Any,
) -> Owner:
    return Owner(EnvInfo("Stream", obs_shape, obs_dtype, action or Discrete(5), num_envs, None), **kwargs)


class Stream:
    """An env whose k-th observation is the number k; it forgets what it is told to do."""

    def __init__(self, info: EnvInfo, seed: int = 0, p_end: float = 0.3) -> None:
        self.info, self.rng, self.p_end = info, np.random.default_rng(seed), p_end
        self.count = 0
        self.obs = self.new()
        self.length = np.zeros(info.num_envs, np.int64)

    def new(self) -> NDArray[Any]:
        shape = (self.info.num_envs, *self.info.obs_shape)
        ids = np.arange(self.count, self.count + self.info.num_envs)
        self.count += self.info.num_envs
        return np.broadcast_to(ids.reshape(-1, *[1] * (len(shape) - 1)), shape).astype(self.info.obs_dtype)

    def step(self) -> tuple[NDArray[Any], NDArray[Any], Step]:
        n = self.info.num_envs
        obs = self.obs
        final_obs = self.new()
        end = self.rng.random(n) < self.p_end
        terminated = end & (self.rng.random(n) < 0.5)
        self.length += 1
        fresh = self.new()
        next_obs = np.where(end.reshape(-1, *[1] * (obs.ndim - 1)), fresh, final_obs)
        reward = self.rng.normal(size=n).astype(np.float32)
        action = self.rng.integers(0, 5, n)
        lengths = self.length[end].tolist()
        self.length[end] = 0
        self.obs = next_obs
        truncated = end & ~terminated
        return obs, action, Step(next_obs, reward, terminated, truncated, final_obs, [1.0] * len(lengths), lengths)


@pytest.fixture(scope="session")
def owner() -> Callable[..., Owner]:
    """Makes what a memory belongs to."""
    return _owner


@pytest.fixture(scope="session")
def stream() -> type[Stream]:
    """Makes what it is filled from."""
    return Stream
