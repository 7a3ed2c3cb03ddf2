"""Between gymnasium's spaces and the lab's: what an agent sees of them, and how its actions become the env's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note
from slm_lab.types import ActionSpace, Continuous, Discrete, MultiBinary, MultiDiscrete


@dataclass(frozen=True)
class ActionMap:
    """How the agent's actions reach an env."""

    space: ActionSpace
    """As the agent knows it."""
    shape: tuple[int, ...]
    """*A"""
    dtype: np.dtype[Any]
    """Of the agent's actions."""
    decode: Callable[[NDArray[Any]], NDArray[Any]]
    """From the agent's actions [K, *A] to a new array [K, ...] whose entries the env takes."""


@dataclass(frozen=True)
class ObsMap:
    """How an env's observations reach the agent."""

    shape: tuple[int, ...]
    """*O"""
    dtype: np.dtype[Any]
    convert: Callable[[NDArray[Any], Any], None] | None = None
    """Puts an observation into its row [*O]; None: they are arrays, taken as they are."""

    def write(self, row: NDArray[Any], obs: Any) -> None:
        """Put one observation into its row [*O]."""
        if self.convert is None:
            row[...] = obs
        else:
            self.convert(row, obs)


def map_actions(space: spaces.Space[Any], env: str) -> ActionMap:
    """The action space as the lab sees it.

    Raises:
        LabError: a kind of space that no algorithm here can act in.
    """
    integers = np.dtype(np.int64)
    match space:
        case spaces.Discrete():
            start = int(space.start)
            # a number of its own for each env: adding also makes a new array
            return ActionMap(Discrete(int(space.n)), (), integers, lambda a: a + start)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            first, kind = np.asarray(space.start), space.dtype
            nvec = tuple(int(n) for n in space.nvec)
            return ActionMap(MultiDiscrete(nvec), (len(nvec),), integers, lambda a: (a + first).astype(kind))
        case spaces.MultiBinary() if len(space.shape) == 1:
            kind, n = space.dtype, int(space.shape[0])
            return ActionMap(MultiBinary(n), (n,), integers, lambda a: a.astype(kind))
        case spaces.Box() if len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
            low, high = tuple(map(float, space.low)), tuple(map(float, space.high))
            described = Continuous(int(space.shape[0]), low, high)
            return ActionMap(described, space.shape, np.dtype(np.float32), _rescale(space))
    raise LabError(
        f"env.name: {env} takes actions from {space}, which no algorithm can choose "
        "(known: Discrete; Box of reals in one dimension; MultiDiscrete and MultiBinary in one dimension)"
    )


def _rescale(space: spaces.Box) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """From [-1, 1] to the bounds; a place with an infinite bound is passed on as it is."""
    low, high = space.low, space.high
    finite = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.where(finite, high / 2 - low / 2, 1).astype(space.dtype)
        middle = np.where(finite, high / 2 + low / 2, 0).astype(space.dtype)

    if (scale == 1).all() and (middle == 0).all():
        # min and max are a third of np.clip's cost, and take infinite bounds
        return lambda a: np.minimum(np.maximum(a, low), high)
    # clipped behind the scaling: rounding could lead out of the bounds
    return lambda a: np.minimum(np.maximum(a * scale + middle, low), high)


def map_obs(space: spaces.Space[Any], env: str) -> ObsMap:
    """The observation space as the lab sees it: images stay uint8, all other numbers become float32.

    Images whose colours come last, [height, width, 1, 3 or 4], are turned to have them first, as convolutions want it.
    Integers that stand for one of several things become one-hot; what is put together from parts is flattened.

    Raises:
        LabError: a kind of space that no net here can read.
    """
    real = np.dtype(np.float32)
    match space:
        case spaces.Box():
            return _map_box(space, env)
        case spaces.MultiBinary():
            return ObsMap(tuple(space.shape), real)
        case spaces.Discrete():
            return ObsMap((int(space.n),), real, _one_hot(np.array([space.n]), np.array([space.start])))
        case spaces.MultiDiscrete():
            nvec, start = np.ravel(space.nvec), np.ravel(space.start)
            return ObsMap((int(nvec.sum()),), real, _one_hot(nvec, start))
        case spaces.Dict() | spaces.Tuple() if space.is_np_flattenable:
            flat: Any = spaces.utils.flatten_space(space)
            parts = ", ".join(space.keys()) if isinstance(space, spaces.Dict) else f"{len(space)} parts"
            note(f"env: observations of {env} are flattened to {flat.shape[0]} numbers ({parts})")
            return ObsMap(tuple(flat.shape), real, lambda row, obs: _assign(row, spaces.utils.flatten(space, obs)))
    raise LabError(
        f"env.name: {env} gives observations from {space}, which no net can read "
        "(known: Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these)"
    )


def _map_box(space: spaces.Box, env: str) -> ObsMap:
    if 0 in space.shape:
        raise LabError(f"env.name: {env} gives observations without a single number: {space}")
    kind = np.dtype(np.uint8 if space.dtype == np.uint8 else np.float32)
    if not space.shape:  # a number alone is a vector of one
        return ObsMap((1,), kind, _assign)
    if _colours_come_last(space.shape):
        height, width, channels = space.shape
        note(f"env: images of {env} are turned to [{channels}, {height}, {width}]: channels first")
        return ObsMap((channels, height, width), kind, _turn)
    return ObsMap(tuple(space.shape), kind)


def _colours_come_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) > 4


def _turn(row: NDArray[Any], obs: Any) -> None:
    row[...] = np.moveaxis(obs, -1, 0)


def _one_hot(nvec: NDArray[Any], start: NDArray[Any]) -> Callable[[NDArray[Any], Any], None]:
    """One 1 in each run of nvec[k] places; start[k] is the least integer there."""
    first = np.cumsum(nvec) - nvec - start

    def convert(row: NDArray[Any], obs: Any) -> None:
        row.fill(0)
        row[first + np.ravel(obs)] = 1

    return convert


def _assign(row: NDArray[Any], values: Any) -> None:
    row[...] = values
