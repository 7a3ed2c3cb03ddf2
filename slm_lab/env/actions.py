"""From the agent's actions to the env's: written once, as plain data that can be computed elsewhere too."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from slm_lab.lib.errors import LabError
from slm_lab.types import ActionSpace, Array, Continuous, Discrete, Mixed, MultiBinary, MultiDiscrete


@dataclass(frozen=True, eq=False)
class ActionMap:
    """How the agent's actions reach an env. `decode` is the map; the other fields are all that it knows.

    Integers: `action + start`. Reals: `clip(action * scale + middle, low, high)`, rounded where the env takes integers.
    """

    space: ActionSpace
    """As the agent knows it."""
    shape: tuple[int, ...]
    """*A, of the agent's actions."""
    dtype: np.dtype[Any]
    """Of the agent's actions."""
    env_shape: tuple[int, ...]
    """Of one action of the env."""
    env_dtype: np.dtype[Any]
    start: Array | None = None
    """*A: the env's number for the agent's 0."""
    low: Array | None = None
    """*A"""
    high: Array | None = None
    """*A"""
    scale: Array | None = None
    """*A: half the distance of the bounds; 1 where one of them is infinite. None: 1 everywhere, and middle is 0."""
    middle: Array | None = None
    """*A: halfway between the bounds; 0 where one of them is infinite."""
    wide: bool = False
    """Whether the bounds come near to the greatest number that there is."""

    def decode(self, action: Array) -> Any:
        """From the agent's actions [K, *A] to a new array [K, ...] whose entries the env takes."""
        if self.low is not None:
            made: Any = action if self.scale is None else self._rescaled(action)
            # clipped after the scaling: rounding could lead out of the bounds. min and max are a third of np.clip's
            # cost, and take infinite bounds
            assert self.high is not None
            made = np.minimum(np.maximum(made, self.low), self.high)
            if self.env_dtype.kind in "iu":
                made = np.rint(made)
        else:
            # a new array: an env may keep its action
            assert self.start is not None
            made = action + self.start
        if made.dtype != self.env_dtype:
            made = made.astype(self.env_dtype)
        return made if self.shape == self.env_shape else made.reshape(len(made), *self.env_shape)

    def each(self, action: Array) -> Any:
        """From the agent's actions [K, *A] to K actions, each as its env takes it: of a Box without axes an array."""
        made = self.decode(action)
        return made if self.env_shape or self.low is None else [np.asarray(one) for one in made]

    @property
    def paths(self) -> list[tuple[str | int, ...]]:
        """Where in an action of the env each part is: keys of dicts, places in tuples."""
        return [()]

    def _rescaled(self, action: Array) -> Any:
        if not self.wide:
            return action * self.scale + self.middle
        with np.errstate(over="ignore"):  # actions above 1 may lead past the greatest number: they are clipped
            return action * self.scale + self.middle


@dataclass(frozen=True, eq=False)
class MixedMap(ActionMap):
    """How actions that are made of parts reach an env that takes a tuple or a dict of them, nested or not."""

    parts: tuple[ActionMap, ...] = ()
    """Of each part, in the order of the agent's numbers."""
    tree: Any = ()
    """What the env takes, with the numbers of the parts in their places."""

    def decode(self, action: Array) -> list[Any]:
        """From the agent's actions [K, *A] to K actions of the env."""
        assert isinstance(self.space, Mixed)
        ends = np.cumsum(self.space.widths)[:-1]
        columns = []
        for part, numbers in zip(self.parts, np.split(action, ends, -1), strict=True):
            own = numbers.astype(part.dtype)
            columns.append(part.each(own[:, 0] if part.shape == () else own))
        return [_build(self.tree, [column[k] for column in columns]) for k in range(len(action))]

    @property
    def paths(self) -> list[tuple[str | int, ...]]:
        """See ActionMap."""
        return _paths(self.tree)


def _paths(tree: Any) -> list[tuple[str | int, ...]]:
    """Of the numbers of parts in a tree, whose order is theirs.

    >>> _paths({"a": 0, "b": (1, 2)})
    [('a',), ('b', 0), ('b', 1)]
    """
    if not isinstance(tree, dict | tuple):
        return [()]
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [(key, *rest) for key, one in inner for rest in _paths(one)]


def _build(tree: Any, parts: list[Any]) -> Any:
    if isinstance(tree, dict):
        return {key: _build(one, parts) for key, one in tree.items()}
    return tuple(_build(one, parts) for one in tree) if isinstance(tree, tuple) else parts[tree]


def map_actions(space: spaces.Space[Any], env: str) -> ActionMap:
    """The action space as the lab sees it. Spaces of several axes are flattened for the agent, tuples and dicts too.

    Raises:
        LabError: a kind of space that no algorithm here can act in.
    """
    if not isinstance(space, spaces.Tuple | spaces.Dict):
        return _map_part(space, env)
    parts: list[ActionMap] = []
    tree = _collect(space, env, parts)
    if not parts:
        raise LabError(f"env.name: {env} takes actions without a part ({space}): there is nothing to choose")
    mixed = Mixed(tuple(part.space for part in parts if not isinstance(part.space, Mixed)))
    shape, reals, anything = (sum(mixed.widths),), np.dtype(np.float32), np.dtype(object)
    return MixedMap(mixed, shape, reals, (), anything, parts=tuple(parts), tree=tree)


def _collect(space: spaces.Space[Any], env: str, parts: list[ActionMap]) -> Any:
    """Append the parts of a space; gives it with their numbers in their places."""
    if isinstance(space, spaces.Tuple):
        return tuple(_collect(one, env, parts) for one in space.spaces)
    if isinstance(space, spaces.Dict):
        return {key: _collect(one, env, parts) for key, one in space.spaces.items()}
    parts.append(_map_part(space, env))
    return len(parts) - 1


def _map_part(space: spaces.Space[Any], env: str) -> ActionMap:
    """The map of a space that is no tuple and no dict."""
    integers = np.dtype(np.int64)
    match space:
        case spaces.Discrete():
            start = np.asarray(space.start, np.int64)
            return ActionMap(Discrete(int(space.n)), (), integers, (), integers, start=start)
        case spaces.MultiDiscrete():
            nvec = tuple(int(n) for n in np.ravel(space.nvec))
            start = np.ravel(space.start).astype(np.int64)
            kind = np.dtype(space.dtype)
            return ActionMap(MultiDiscrete(nvec), (len(nvec),), integers, tuple(space.shape), kind, start=start)
        case spaces.MultiBinary():
            n, kind = int(np.prod(space.shape)), np.dtype(space.dtype)
            return ActionMap(MultiBinary(n), (n,), integers, tuple(space.shape), kind, start=np.zeros(n, np.int64))
        case spaces.Box() if 0 not in space.shape and np.dtype(space.dtype).kind in "fiu":
            return _map_box(space)
    raise LabError(
        f"env.name: {env} takes actions from {space}, which no algorithm can choose "
        "(known: Discrete, MultiDiscrete, MultiBinary, Box of reals or integers, and Tuple and Dict of these)"
    )


def _map_box(space: spaces.Box) -> ActionMap:
    """From [-1, 1] to the bounds; a place with an infinite bound is passed on as it is."""
    kind = np.dtype(space.dtype)
    low, high = _inner(np.ravel(space.low)), _inner(np.ravel(space.high))
    finite = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore", over="ignore"):
        # halved first: the distance of the bounds may be above the greatest number
        scale = np.where(finite, high / 2 - low / 2, 1).astype(low.dtype)
        middle = np.where(finite, high / 2 + low / 2, 0).astype(low.dtype)
    plain = bool((scale == 1).all() and (middle == 0).all())
    return ActionMap(
        Continuous(low.size, tuple(low.tolist()), tuple(high.tolist())),
        (low.size,),
        np.dtype(np.float32),
        tuple(space.shape),
        kind,
        low=low,
        high=high,
        scale=None if plain else scale,
        middle=None if plain else middle,
        wide=bool((scale > np.finfo(scale.dtype).max / 1e4).any()),
    )


def _inner(bounds: Array) -> Array:
    """Bounds as reals to compute with. Those of integers are float64, and none is outside of the integers' range.

    >>> _inner(np.array([2**63 - 1])).astype(np.int64).item() <= 2**63 - 1
    True
    """
    if bounds.dtype.kind == "f":
        return bounds
    real = bounds.astype(np.float64)
    # 2^63 - 1 is no float64: the next one above it is no int64
    outside = [int(r) > int(b) for r, b in zip(real, bounds, strict=True)]
    return np.where(outside, np.nextafter(real, 0), real)
