"""Action masks: which actions an env allows at the moment, as a part of what its agent sees."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note
from slm_lab.types import MASK, Bools

METHOD = "action_masks"
"""An env's method that gives its mask, where its infos have none."""


class MaskedObs(gym.Wrapper[Any, Any, Any, Any]):
    """Observations with the mask of allowed actions as their part `action_mask`.

    The mask is the env's `info["action_mask"]`, else what its method `action_masks()` gives, else the part
    `action_mask` of its observation: 1 for each action that is allowed, of MultiDiscrete actions place after place.

    Raises:
        LabError: there can't be a mask for these actions.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._name, self._t = name, 0
        self._allowed = np.zeros(0, np.bool_)
        space = env.action_space
        if isinstance(space, spaces.Discrete):
            self._sizes = [int(space.n)]
        elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            self._sizes = [int(n) for n in space.nvec]
        else:
            raise LabError(f"env.action_mask: masks are for Discrete and MultiDiscrete actions ({name} has {space})")
        seen = env.observation_space
        parts = dict(seen.items()) if isinstance(seen, spaces.Dict) else {"observation": seen}
        self._keeps_parts = isinstance(seen, spaces.Dict)
        parts[MASK] = spaces.Box(0.0, 1.0, (sum(self._sizes),), np.float32)
        self.observation_space = spaces.Dict(parts)

    def reset(self, **kwargs: Any) -> Any:
        """See gymnasium."""
        obs, info = self.env.reset(**kwargs)
        self._t = 0
        return self._with_mask(obs, info, ended=False), info

    def step(self, action: Any) -> Any:
        """See gymnasium."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._t += 1
        return self._with_mask(obs, info, ended=bool(terminated)), reward, terminated, truncated, info

    def sample(self) -> Any:
        """An action that is allowed now, at random."""
        parts = [np.ascontiguousarray(part, np.int8) for part in self._split(self._allowed)]
        return self.action_space.sample(parts[0] if isinstance(self.action_space, spaces.Discrete) else tuple(parts))

    def _split(self, mask: Bools) -> list[Bools]:
        """Of each place."""
        return np.split(mask, np.cumsum(self._sizes)[:-1])

    def _with_mask(self, obs: Any, info: dict[str, Any], *, ended: bool) -> Any:
        parts = dict(obs) if self._keeps_parts else {"observation": obs}
        allowed = self._mask(parts, info)
        # after the end nothing is chosen: the mask there does not matter
        if ended:
            allowed = np.ones_like(allowed)
        if not all(part.any() for part in self._split(allowed)):
            raise LabError(f"env.action_mask: {self._name} allows no action at all at step {self._t} of an episode")
        self._allowed = allowed
        parts[MASK] = allowed.astype(np.float32)
        return parts

    def _mask(self, parts: dict[str, Any], info: dict[str, Any]) -> Bools:
        if MASK in info:
            mask = info[MASK]
        elif self.env.has_wrapper_attr(METHOD):
            mask = self.env.get_wrapper_attr(METHOD)()
        elif MASK in parts:
            mask = parts[MASK]
        else:
            raise LabError(f"env.action_mask: {self._name} offers no mask: neither info['{MASK}'] nor {METHOD}()")
        flat = np.concatenate([np.ravel(part) for part in mask]) if isinstance(mask, list | tuple) else np.ravel(mask)
        if flat.size != sum(self._sizes):
            raise LabError(
                f"env.action_mask: a mask of {self._name} must have {sum(self._sizes)} entries (got {flat.size})"
            )
        return flat.astype(np.bool_)


def tell_of_mask(env: gym.Env[Any, Any], obs: Any, info: dict[str, Any]) -> None:
    """Say once that an env offers a mask which is not used."""
    if MASK in info or (isinstance(obs, dict) and MASK in obs) or env.has_wrapper_attr(METHOD):
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        note(f"env: {name} says which actions are allowed; env.action_mask true uses it")
