"""Small agents that learn action values, and a world of chance for them."""

import copy
from typing import Any

import numpy as np
import pydash
import torch
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.spec.load import load_spec
from slm_lab.types import ActionSpace, Discrete, EnvInfo, Step

PER = {"name": "PrioritizedReplay", "batch_size": 8, "max_size": 200, "alpha": 0.6, "epsilon": 1e-4}
EPSILON = {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 100}
RAW: dict[str, Any] = {
    "name": "tiny",
    "agent": {
        "name": "DQN",
        "algorithm": {"name": "DQN", "gamma": 0.9, "explore_var_spec": EPSILON, "training_frequency": 4},
        "memory": {"name": "Replay", "batch_size": 8, "max_size": 200},
        "net": {"type": "MLPNet", "hid_layers": [16], "optim_spec": {"name": "Adam", "lr": 0.01}},
    },
    "env": {"name": "Fake-v0", "num_envs": 2, "max_frame": 1000},
    "meta": {},
}


def make(name: str = "DQN", action: ActionSpace | None = None, **changes: Any) -> Agent:
    """Keyword arguments change keys of the agent, `__` for the dots; `compile`, `seed` go to the Agent."""
    raw = copy.deepcopy(RAW)
    raw["agent"]["algorithm"]["name"] = name
    if name in ("SARSA", "PQN"):
        raw["agent"]["memory"] = {"name": "OnPolicyBatchReplay"}
    if name == "PQN":
        del raw["agent"]["algorithm"]["training_frequency"]
        raw["agent"]["algorithm"] |= {"time_horizon": 4, "minibatch_size": 3, "training_epoch": 2}
    more = {k: changes.pop(k) for k in ("compile", "seed") if k in changes}
    for key, value in changes.items():
        pydash.set_(raw["agent"], key.replace("__", "."), value)
    info = EnvInfo("Fake-v0", (3,), "float32", action or Discrete(4), 2, None)
    return Agent(load_spec(raw), info, **{"seed": 0, **more})


class World:
    """Observations, rewards and ends at random, from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.obs = self.rng.normal(size=(2, 3)).astype(np.float32)

    def step(self) -> Step:
        final = self.rng.normal(size=(2, 3)).astype(np.float32)
        end = self.rng.random(2) < 0.2
        terminated = end & (self.rng.random(2) < 0.5)
        obs = np.where(end[:, None], self.rng.normal(size=(2, 3)), final).astype(np.float32)
        self.obs = obs
        reward = self.rng.normal(size=2).astype(np.float32)
        return Step(obs, reward, terminated, end & ~terminated, final, [0.0] * int(end.sum()), [1] * int(end.sum()))


def live(agent: Agent, world: World, steps: int, frame: int = 0) -> tuple[list[list[int]], list[dict[str, Tensor]]]:
    actions, stats = [], []
    for _ in range(steps):
        obs = world.obs
        action = agent.act(obs)
        actions.append(action.tolist())
        agent.observe(obs, action, world.step())
        frame += 2
        told = agent.maybe_update(frame)
        if told is not None:
            stats.append(told)
    return actions, stats


def batch(n: int = 6) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    obs, next_obs = torch.randn(2, n, 3, generator=g)
    terminated = torch.tensor([0.0, 1.0] * (n // 2))
    return obs, torch.arange(n) % 4, torch.randn(n, generator=g), next_obs, terminated, torch.ones(n)
