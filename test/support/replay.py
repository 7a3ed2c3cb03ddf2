"""Small agents that learn from a replay memory, and a world for them; for tests of SAC and its relatives."""

import copy
from typing import Any

import numpy as np
import pydash
import pytest
import torch
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.spec.load import load_spec
from slm_lab.types import ActionSpace, Continuous, Discrete, EnvInfo, Step

DISCRETE = Discrete(3)
BOX = Continuous(2, (-1.0, -1.0), (1.0, 1.0))
BOTH = pytest.mark.parametrize("action", [DISCRETE, BOX], ids=["discrete", "continuous"])

RAW: dict[str, Any] = {
    "name": "tiny",
    "agent": {
        "name": "SAC",
        "algorithm": {"name": "SoftActorCritic", "gamma": 0.9, "training_frequency": 2, "training_start_step": 20},
        "memory": {"name": "Replay", "batch_size": 8, "max_size": 200},
        "net": {
            "type": "MLPNet",
            "hid_layers": [16],
            "optim_spec": {"name": "Adam", "lr": 0.01},
            "update_type": "polyak",
            "polyak_coef": 0.1,
        },
    },
    "env": {"name": "Fake-v0", "num_envs": 2, "max_frame": 1000},
    "meta": {},
}


def make(
    action: ActionSpace, obs_shape: tuple[int, ...] = (4,), *, seed: int = 0, compile: bool = False, **changes: Any
) -> Agent:
    """Keyword arguments change keys of the agent, `__` for the dots."""
    raw = copy.deepcopy(RAW)
    for key, value in changes.items():
        pydash.set_(raw["agent"], key.replace("__", "."), value)
    info = EnvInfo("Fake-v0", obs_shape, "float32" if len(obs_shape) == 1 else "uint8", action, 2, None)
    return Agent(load_spec(raw), info, seed=seed, compile=compile)


class World:
    """Random observations, rewards and ends: enough to learn something of."""

    def __init__(self, info: EnvInfo) -> None:
        self.info, self.rng, self.frame = info, np.random.default_rng(0), 0
        self.obs = self._obs()

    def _obs(self) -> Any:
        x = self.rng.normal(size=(self.info.num_envs, *self.info.obs_shape))
        return (x * 50 + 128).clip(0, 255).astype(np.uint8) if self.info.obs_dtype == "uint8" else x.astype(np.float32)

    def live(self, agent: Agent, steps: int) -> list[dict[str, Tensor]]:
        """What the updates reported."""
        stats = []
        for _ in range(steps):
            action = agent.act(self.obs)
            final_obs = self._obs()
            end = self.rng.random(2) < 0.1
            obs = np.where(end.reshape(2, *[1] * (final_obs.ndim - 1)), self._obs(), final_obs)
            terminated = end & (self.rng.random(2) < 0.5)
            reward = self.rng.normal(size=2).astype(np.float32)
            ends = [0.0] * int(end.sum())
            step = Step(obs, reward, terminated, end & ~terminated, final_obs, ends, [1] * len(ends))
            agent.observe(self.obs, action, step)
            self.obs = obs
            self.frame += 2
            report = agent.maybe_update(self.frame)
            if report is not None:
                stats.append(report)
        return stats


def batch(agent: Agent, b: int = 5) -> list[Tensor]:
    """obs, action, reward, next_obs, terminated, weight"""
    torch.manual_seed(1)
    action = torch.randint(3, (b,)) if isinstance(agent.info.action, Discrete) else torch.rand(b, 2) * 2 - 1
    end = (torch.arange(b) % 2).float()
    return [torch.randn(b, 4), action, torch.randn(b), torch.randn(b, 4), end, torch.ones(b)]
