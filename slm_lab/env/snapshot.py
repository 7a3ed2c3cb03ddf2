"""How envs are saved that do not expose their state: by the seed of the episode and its actions so far.

A simulator's inner state is out of reach in general. What it can do is repeat the episode: it begins again from the
same seed, and takes the same actions.
"""

import base64
import zlib
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from slm_lab.env.masks import MaskedObs, tell_of_mask
from slm_lab.lib.errors import LabError
from slm_lab.lib.stateful import State


def pack(array: NDArray[np.generic]) -> State:
    """An array as strings and numbers, compressed.

    >>> unpack(pack(np.array([[1, 2]], np.int8)))
    array([[1, 2]], dtype=int8)
    """
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def unpack(state: State) -> NDArray[Any]:
    """The array that was packed."""
    data = zlib.decompress(base64.b64decode(state["data"]))
    return np.frombuffer(data, np.dtype(state["dtype"])).reshape(state["shape"]).copy()


def checksum(returns: NDArray[np.float64], obs: NDArray[np.generic]) -> int:
    """Of running episodes: returns so far and last observations; what an env hides from both may still differ."""
    return zlib.crc32(returns.tobytes(), zlib.crc32(np.ascontiguousarray(obs).tobytes()))


class ActionLog:
    """The actions of N envs since each one's episode began.

    Holds no more than the longest running episode needs: rows that no env needs are dropped when room runs out.

    Args:
        shape: [N, *A] of one vector step.
        dtype: of the actions.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._rows = np.empty((256, *shape), dtype)
        self.end = 0
        """Rows written."""
        self.begin = [0] * shape[0]
        """For each env the row of its episode's first action; `end - begin[i]` is the age of the episode."""

    def append(self, action: NDArray[np.generic]) -> None:
        """Write down the actions [N, *A] of one vector step."""
        if self.end == len(self._rows):
            self._make_room()
        self._rows[self.end] = action
        self.end += 1

    def actions(self, i: int) -> NDArray[Any]:
        """[age, *A] of env i's running episode; a view."""
        return self._rows[self.begin[i] : self.end, i]

    def set_actions(self, actions: list[NDArray[Any]]) -> None:
        """Restore the actions that `actions` of each env returned."""
        self.end = max(len(a) for a in actions)
        self.begin = [self.end - len(a) for a in actions]
        if self.end > len(self._rows):
            self._rows = np.empty((2 * self.end, *self._rows.shape[1:]), self._rows.dtype)
        for i, a in enumerate(actions):
            self._rows[self.begin[i] : self.end, i] = a

    def _make_room(self) -> None:
        oldest = min(self.begin)
        kept = self._rows[oldest:].copy()
        if 2 * len(kept) > len(self._rows):
            self._rows = np.empty((2 * len(self._rows), *self._rows.shape[1:]), self._rows.dtype)
        self._rows[: len(kept)] = kept
        self.end = len(kept)
        self.begin = [b - oldest for b in self.begin]


class Seeded:
    """One gymnasium env of which every episode begins from a seed: the same seed and actions, the same episode."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = env
        base = env.unwrapped
        spaces = [env.action_space, env.observation_space, base.action_space, base.observation_space]
        self._spaces = list({id(s): s for s in spaces}.values())
        self._keeps_world = any(
            c.__module__.startswith("gymnasium.envs.box2d.") and c.__name__ in ("BipedalWalker", "CarRacing")
            for c in type(base).__mro__
        )
        self._may_ignore_seeds = getattr(type(base), "np_random", None) is gym.Env.np_random

    def begin(self, seed: int) -> Any:
        """Begin an episode: the env gets the seed, its spaces those after it. Returns its first observation."""
        for k, space in enumerate(self._spaces, 1):
            space.seed(seed + k)
        if self._keeps_world:
            self._renew_world()
        base, generator = self.env.unwrapped, None
        if self._may_ignore_seeds:
            # an env that seeds itself replaces it
            base.np_random = generator = seeding.np_random(seed)[0]
        try:
            begun: Any = self.env.reset(seed=seed)
        except TypeError as e:
            if "'seed'" not in str(e):
                raise
            raise LabError(
                f"env: reset of {type(self.env.unwrapped).__name__} must take a seed, as gymnasium asks ({e}): is it "
                "made for an older gym?"
            ) from e
        if not isinstance(begun, tuple) or len(begun) != 2:
            raise LabError(
                f"env: reset of {type(self.env.unwrapped).__name__} must give (observation, info), as gymnasium asks "
                f"(got {type(begun).__name__}): is it made for an older gym?"
            )
        self._may_ignore_seeds = generator is not None and base.np_random is generator
        if not isinstance(self.env, MaskedObs):
            tell_of_mask(self.env, *begun)
        return begun[0]

    def _renew_world(self) -> None:
        # these two keep their Box2D world from one episode to the next, and its memory of the bodies that were in it
        # moves the last bits of the physics: without a new one an episode could not be repeated
        base: Any = self.env.unwrapped
        base._destroy()
        base.world = type(base.world)(gravity=base.world.gravity)
