"""A gymnasium env whose returns are known beforehand: what a search of it must find can be worked out by hand."""

import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

EPISODE = 10
"""Steps of an episode; its return is `EPISODE * quality`."""


class Ladder(gym.Env[Any, Any]):
    """Every step is worth `quality`.

    Args:
        quality: reward of a step.
        crash: raise after 300 steps.
        slow: folder; while it holds a file named as `quality`, steps after the 150th take the seconds that it says. Who
            stops a search in the midst of a trial has the time to, on the slowest machine.
    """

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, quality: float = 1.0, crash: bool = False, slow: str = "") -> None:
        self._quality, self._crash = quality, crash
        self._slow = Path(slow, f"{quality:g}") if slow else None
        self._t = self._total = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        self._total += 1
        if self._crash and self._total > 300:
            raise RuntimeError("the ladder broke")
        if self._slow is not None and self._total > 150 and self._slow.exists():
            time.sleep(float(self._slow.read_text()))
        return np.zeros(1, np.float32), self._quality, False, self._t >= EPISODE, {}


gym.register("Ladder-v0", Ladder)
