"""Envs with rules: what is not allowed at the moment raises an error, so who learns in them must follow the mask."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Forbidden(Exception):
    """An action was taken that was not allowed."""


class Gates(gym.Env[Any, Any]):
    """Some of the gates are open, others every time; the observation tells nothing of it. Episodes have 12 steps.

    Args:
        way: where the mask is told: info, method or part
        nvec: gates of each of several places; None: four, of one place
        image: the observation is an image
        closed: all gates are closed from this step on
    """

    def __init__(self, way: str = "info", nvec: list[int] | None = None, image: bool = False, closed: int = 99) -> None:
        self.way, self.closed = way, closed
        self.sizes = nvec or [4]
        self.action_space = spaces.Discrete(4) if nvec is None else spaces.MultiDiscrete(nvec)
        plain: Any = spaces.Box(0, 255, (12, 12, 1), np.uint8) if image else spaces.Box(-9.0, 9.0, (3,), np.float32)
        self.plain = plain
        self.observation_space = plain
        if way == "part":
            self.observation_space = spaces.Dict({"seen": plain, "action_mask": spaces.MultiBinary(sum(self.sizes))})
        if way == "method":
            self.action_masks = lambda: np.concatenate(self.open)
        self.t = 0

    def _show(self) -> tuple[Any, dict[str, Any]]:
        self.open = []
        for size in self.sizes:
            part = self.np_random.random(size) < 0.4
            part[self.np_random.integers(size)] = True
            self.open.append(part & (self.t < self.closed))
        mask = np.concatenate(self.open).astype(np.int8)
        obs: Any = self.plain.sample()
        if self.way == "part":
            obs = {"seen": obs, "action_mask": mask}
        return obs, {"action_mask": mask} if self.way == "info" else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._show()

    def step(self, action: Any) -> Any:
        for part, chosen in zip(self.open, np.ravel(action), strict=True):
            if not part[int(chosen)]:
                raise Forbidden(str(action))
        self.t += 1
        ended = self.np_random.random() < 0.05
        obs, info = self._show()
        if ended:
            info = {k: 0 * v for k, v in info.items()}
        return obs, float(np.ravel(action)[0]), ended, self.t >= 12, info


gym.register("Gates-v0", entry_point=Gates)
