"""One part of an observation, or all of it: which numbers of the env reach the agent, and in which shape."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium import spaces

from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note
from slm_lab.types import LEAST_SIDE, Array

REAL, BYTE = np.dtype(np.float32), np.dtype(np.uint8)


@dataclass(frozen=True, eq=False)
class PartMap:
    """One part of an observation, or all of it: how its numbers reach the agent."""

    name: str
    """Its key, `outer.inner` where they are nested; empty where it is the whole observation."""
    path: tuple[str | int, ...]
    """Keys that lead to it."""
    raw_shape: tuple[int, ...]
    """As the env shows it."""
    shape: tuple[int, ...]
    """As the agent sees it."""
    dtype: np.dtype[Any]
    """As the agent sees it: uint8 (from 0 to 255) or float32."""
    axes: tuple[int, ...] | None = None
    """Order of the env's axes in which its numbers are taken; None: as they are."""
    nvec: Array | None = None
    """Integers: how many values each has; it becomes one-hot."""
    start: Array | None = None
    """Integers: the least value of each."""
    low: Array | None = None
    """Bytes with other bounds than 0 and 255 become `(x - low) / width`, from 0 to 1. None: they stay what they are."""
    width: Array | None = None
    image: bool = False
    """Whether `shape` is [channels, height, width]."""
    mask: bool = False
    """Whether it says which actions are allowed."""
    first: Array | None = field(init=False, default=None)
    """Integers: where the run of each begins."""

    def __post_init__(self) -> None:
        """Work out `first`."""
        if self.nvec is not None:
            object.__setattr__(self, "first", np.cumsum(self.nvec) - self.nvec)

    @property
    def plain(self) -> bool:
        """Whether the numbers are taken as they are."""
        return self.axes is None and self.first is None and self.low is None and self.shape == self.raw_shape

    def write(self, out: Array, values: Any) -> None:
        """Put observations [..., *raw_shape] where they belong, out [..., *shape]."""
        if self.nvec is not None and self.start is not None:
            number = np.asarray(values).reshape(*out.shape[:-1], -1)
            index = np.subtract(number, self.start, dtype=np.int64)
            # negative ones are great as unsigned; looking into the bytes costs a twentieth of any()
            odd = index.view(np.uint64) >= self.nvec.view(np.uint64)
            if 1 in odd.tobytes():
                raise self._outside(number, odd)
            out.fill(0)
            places = index + self.first
            if out.ndim == 1:
                out[places] = 1
            else:
                np.put_along_axis(out, places, 1, -1)
            return
        if self.low is not None:
            values = (np.asarray(values) - self.low) / self.width
        if self.axes is not None:
            values = self.turn(np.asarray(values))
        out[...] = values if self.shape == self.raw_shape else np.reshape(values, out.shape)

    def _outside(self, number: Array, odd: Array) -> LabError:
        """What is wrong with integers [..., K] of which some are not in the space."""
        assert self.nvec is not None
        assert self.start is not None
        place = int(np.argwhere(odd)[0, -1])
        low, high = self.start[place], self.start[place] + self.nvec[place] - 1
        where = f" in place {place}" if len(self.nvec) > 1 else ""
        what = f"part '{self.name}' of an observation" if self.name else "an observation"
        return LabError(f"env: {what} is outside its space: {number[odd][0]}{where}, must be from {low} to {high}")

    def turn(self, values: Array) -> Array:
        """The axes of [..., *raw_shape] in their order."""
        assert self.axes is not None
        lead = values.ndim - len(self.axes)
        return values.transpose(*range(lead), *(lead + axis for axis in self.axes))


class Seen(NamedTuple):
    """What a spec says of the observations that an agent is to see."""

    keys: tuple[str, ...] | None = None
    """Parts that are picked; None: all that a net can read."""
    image_axes: Literal["HWC", "CHW"] | None = None
    """Order of the axes of images; None: recognized."""
    mask: bool = False
    """Whether the part `action_mask` says which actions are allowed; else it is a part like any other."""


ALL = Seen()


def map_part(space: spaces.Space[Any], env: str, name: str, path: tuple[str | int, ...], seen: Seen) -> PartMap:
    """A part of the observation, or all of it."""
    match space:
        case spaces.Box() if 0 not in space.shape:
            return _map_box(space, env, name, path, seen)
        case spaces.MultiBinary():
            shape = tuple(space.shape)
            return PartMap(name, path, shape, (int(np.prod(shape)),) if name else shape, REAL)
        case spaces.Discrete():
            return _one_hot(name, path, (), np.array([space.n]), np.array([space.start]))
        case spaces.MultiDiscrete():
            return _one_hot(name, path, tuple(space.shape), np.ravel(space.nvec), np.ravel(space.start))
    if isinstance(space, spaces.Box):
        raise LabError(f"env.name: {env} gives observations without a single number: {space}{_part_of(name)}")
    known = "known: Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
    advice = "; name the parts to be seen in env.obs_keys" if name and seen.keys is None else ""
    where = "env.name" if seen.keys is None else "env.obs_keys"
    what = f"{env} gives observations from {space}{_part_of(name)}"
    raise LabError(f"{where}: {what}, which no net can read ({known}){advice}")


def _part_of(name: str) -> str:
    return f" as its part '{name}'" if name else ""


def _one_hot(name: str, path: tuple[str | int, ...], shape: tuple[int, ...], nvec: Array, start: Array) -> PartMap:
    """One 1 in each run of nvec[k] places; start[k] is the least integer there."""
    return PartMap(
        name, path, shape, (int(nvec.sum()),), REAL, nvec=nvec.astype(np.int64), start=start.astype(np.int64)
    )


def _map_box(space: spaces.Box, env: str, name: str, path: tuple[str | int, ...], seen: Seen) -> PartMap:
    raw = tuple(space.shape)
    axes, image = None, False
    if len(raw) == 3 and (not name or seen.image_axes is not None or _looks_like_image(space)):
        axes, image = _image_axes(raw, env, name, seen.image_axes), True
    shape = raw if axes is None else tuple(raw[axis] for axis in axes)
    if name and len(raw) == 2 and space.dtype == np.uint8 and min(raw) >= LEAST_SIDE:
        # bytes of a part are an image if they form a plane
        shape, image = (1, *raw), True
    elif name and not image:
        shape = (int(np.prod(raw)),)
    low = width = None
    dtype = BYTE if space.dtype == np.uint8 else REAL
    if dtype == BYTE and not ((space.low == 0).all() and (space.high == 255).all() and (image or not name)):
        dtype = REAL
        low, width = space.low.astype(np.float32), np.maximum(space.high.astype(np.float32) - space.low, 1)
        if (low == low.flat[0]).all() and (width == width.flat[0]).all():
            low, width = np.array(low.flat[0]), np.array(width.flat[0])
    return PartMap(name, path, raw, shape or (1,), dtype, axes=axes, low=low, width=width, image=image)


def _looks_like_image(space: spaces.Box) -> bool:
    """Whether a part of three axes is an image: integers are, reals only where they are no small table."""
    return space.dtype.kind != "f" or sorted(space.shape)[1] >= LEAST_SIDE


def _image_axes(shape: tuple[int, ...], env: str, name: str, told: str | None) -> tuple[int, ...] | None:
    """How three axes are to be turned to [channels, height, width]; None: they are in that order.

    The channels are the axis that is smaller than both others, if that is the first or the last one.
    """
    a, b, c = shape
    last = told == "HWC" or (told is None and c < min(a, b))
    known = told is not None or last or a < min(b, c)
    channels, height, width = (c, a, b) if last else (a, b, c)
    note(
        f"env: images of {env}{f' ({name})' if name else ''} are read as {channels} channels of {height} x {width}"
        + ("" if known else "; the shape does not decide: set env.image_axes, HWC or CHW")
    )
    return (2, 0, 1) if last else None
