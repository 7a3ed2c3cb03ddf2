"""How the state of envs is saved that can't tell it: random numbers, and the actions since the episode began.

A simulator's inner state is out of reach in general. What it can do is live the episode again: the generator is put
back to where it stood before the reset, and the actions are repeated.
"""

import base64
import zlib
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from slm_lab.lib.errors import LabError
from slm_lab.lib.seeding import derive
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


def rng_state(rng: np.random.Generator) -> State:
    """Where a generator stands. Some bit generators keep arrays: those are packed."""
    return _map_arrays(rng.bit_generator.state)


def rng_from(state: State) -> np.random.Generator:
    """A generator that stands there."""
    bit_generator = getattr(np.random, state["bit_generator"])()
    bit_generator.state = _unmap_arrays(state)
    return np.random.Generator(bit_generator)


def _map_arrays(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": pack(value)}
    if isinstance(value, dict):
        return {k: _map_arrays(v) for k, v in value.items()}
    return value if isinstance(value, str) else int(value)


def _unmap_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return unpack(value["array"]) if "array" in value else {k: _unmap_arrays(v) for k, v in value.items()}
    return value


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
        """Become what `actions` of each env said."""
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


class Replayed:
    """One gymnasium env that can be brought to any point of its running episode by living it again.

    Args:
        env: the env, with its wrappers.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = env
        base = env.unwrapped
        spaces = [env.action_space, env.observation_space, base.action_space, base.observation_space]
        self._spaces = list({id(s): s for s in spaces}.values())
        self._keeps_world = any(
            c.__module__.startswith("gymnasium.envs.box2d.") and c.__name__ in ("BipedalWalker", "CarRacing")
            for c in type(base).__mro__
        )
        self._seed: int | None = None
        self._env_rng: Any = None
        self._space_rngs: list[Any] = []

    def seed(self, seed: int) -> Any:
        """Begin an episode from a seed; its spaces get seeds derived from it. Returns its first observation."""
        for k, space in enumerate(self._spaces):
            space.seed(derive(seed, k))
        return self._begin(seed)

    def reset(self) -> Any:
        """Begin the next episode with the env's own random numbers. Returns its first observation."""
        return self._begin(None)

    def origin(self) -> State:
        """How the running episode began: from which seed, or else with the env's generator where; and the spaces'."""
        rng = None if self._env_rng is None else _map_arrays(self._env_rng)
        return {"seed": self._seed, "env": rng, "spaces": [_map_arrays(s) for s in self._space_rngs]}

    def restore(self, origin: State) -> Any:
        """Begin the episode again that began this way. Returns its first observation."""
        for space, state in zip(self._spaces, origin["spaces"], strict=True):
            _put(space.np_random, state)
        if origin["env"] is not None and not _put(self.env.unwrapped.np_random, origin["env"]):
            self.env.unwrapped.np_random = rng_from(origin["env"])
        return self._begin(origin["seed"])

    def _begin(self, seed: int | None) -> Any:
        self._seed = seed
        self._env_rng = self.env.unwrapped.np_random.bit_generator.state if seed is None else None
        self._space_rngs = [space.np_random.bit_generator.state for space in self._spaces]
        if self._keeps_world:
            self._renew_world()
        begun: Any = self.env.reset(seed=seed)
        if not isinstance(begun, tuple) or len(begun) != 2:
            raise LabError(
                f"env: reset of {type(self.env.unwrapped).__name__} must give (observation, info), as gymnasium asks "
                f"(got {type(begun).__name__}): is it made for an older gym?"
            )
        return begun[0]

    def _renew_world(self) -> None:
        # these two keep their Box2D world from one episode to the next, and its memory of the bodies that were in it
        # moves the last bits of the physics: without a new one an episode could not be lived again
        base: Any = self.env.unwrapped
        base._destroy()
        base.world = type(base.world)(gravity=base.world.gravity)


def _put(rng: np.random.Generator, state: State) -> bool:
    """Move a generator to a state; False if it is of another kind."""
    if type(rng.bit_generator).__name__ != state["bit_generator"]:
        return False
    rng.bit_generator.state = _unmap_arrays(state)
    return True
