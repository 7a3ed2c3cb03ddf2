"""From what an env shows to the row of numbers that an agent sees: written once, as plain data."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note
from slm_lab.lib.suggest import did_you_mean
from slm_lab.types import MASK, ObsPart, PackedShape

Array = NDArray[Any]
REAL, BYTE = np.dtype(np.float32), np.dtype(np.uint8)
LEAST_SIDE = 8
"""Height and width from which on a part that might be a table of numbers is an image."""


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


@dataclass(frozen=True, eq=False)
class ObsMap:
    """How an env's observations reach the agent."""

    shape: tuple[int, ...]
    """*O; a PackedShape where there are several parts."""
    dtype: np.dtype[Any]
    parts: tuple[PartMap, ...]
    """In their order in the row."""

    @property
    def plain(self) -> bool:
        """Whether observations are arrays that are taken as they are."""
        return not isinstance(self.shape, PackedShape) and not self.parts[0].path and self.parts[0].plain

    def write(self, row: Array, obs: Any) -> None:
        """Put one observation into its row [*O], or several, part by part [K, ...], into [K, *O]."""
        for part, view in zip(self.parts, self.views(row), strict=True):
            part.write(view, _get(obs, part.path))

    def views(self, row: Array) -> list[Array]:
        """What a row [..., *O] holds, part by part [..., *shape]; no copies."""
        if not isinstance(self.shape, PackedShape):
            return [row]
        return take_apart(row, self.shape)

    def rows(self, obs: Any) -> tuple[Array, bool]:
        """What one env shows, or several, from outside: checked.

        Args:
            obs: an observation of the env's own space; or several, as a list of them, or as gymnasium's vector envs
                show them, each part [N, ...].

        Returns:
            [N, *O], and whether it was one alone.

        Raises:
            ValueError: it is not of the space.
        """
        if self.parts[0].path and _are_several(obs, self.parts[0].path[0]):
            return np.concatenate([self.rows(one)[0] for one in obs]), False
        values = [self._checked(part, obs) for part in self.parts]
        lead = {v.shape[: v.ndim - len(part.raw_shape)] for v, part in zip(values, self.parts, strict=True)}
        if len(lead) > 1:
            raise ValueError(f"obs: its parts are of different numbers of envs: {sorted(lead)}")
        [batch] = lead
        made = np.zeros((*batch, *self.shape), self.dtype)
        for part, view, value in zip(self.parts, self.views(made), values, strict=True):
            part.write(view, value)
        return (made, False) if batch else (made[None], True)

    def _checked(self, part: PartMap, obs: Any) -> Array:
        where = f"obs.{part.name}" if part.name else "obs"
        try:
            made = np.asarray(_get(obs, part.path))
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{where}: missing; the parts are {', '.join(p.name for p in self.parts)}") from None
        if made.dtype.kind not in "biuf":
            raise ValueError(f"{where}: must be numbers (got {made.dtype})")
        raw, shape = part.raw_shape, made.shape
        if shape != raw and not (len(shape) == len(raw) + 1 and shape[1:] == raw):
            raise ValueError(f"{where}: shape {shape}, must be {raw} or (N, ...) of it")
        if part.nvec is not None:
            assert part.start is not None
            flat = made.reshape(*shape[: len(shape) - len(raw)], -1)
            odd = (flat < part.start) | (flat >= part.start + part.nvec) | (flat != np.floor(flat))
            if odd.any():
                raise ValueError(f"{where}: {flat[odd][0]} is none of its values")
            made = made.astype(np.int64)
        return made


def take_apart(row: Array, shape: PackedShape) -> list[Array]:
    """Views of the parts [..., *shape] of rows [..., P]."""
    views = []
    for part in shape.parts:
        view = row[..., part.begin : part.end]
        if row.dtype != part.dtype:
            view = view.view(part.dtype)
        views.append(view.reshape(*row.shape[:-1], *part.shape))
    return views


def _get(obs: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        obs = obs[key]
    return obs


def _are_several(obs: Any, key: str | int) -> bool:
    """Whether this is a list of observations that have this key, and not one of them."""
    if isinstance(key, str):
        return isinstance(obs, list | tuple) and len(obs) > 0 and isinstance(obs[0], dict)
    return isinstance(obs, list) and len(obs) > 0 and isinstance(obs[0], tuple)


class Seen(NamedTuple):
    """What a spec says of the observations that an agent is to see."""

    keys: tuple[str, ...] | None = None
    """Parts that are picked; None: all that a net can read."""
    image_axes: Literal["HWC", "CHW"] | None = None
    """Order of the axes of images; None: recognized."""
    mask: bool = False
    """Whether the part `action_mask` says which actions are allowed; else it is a part like any other."""


ALL = Seen()


def map_obs(space: spaces.Space[Any], env: str, seen: Seen = ALL) -> ObsMap:
    """The observation space as the lab sees it: images stay uint8, all other numbers become float32.

    Images whose channels come last are turned to have them first, as convolutions want it. Integers that stand for one
    of several things become one-hot. What is put together from parts is packed, see PackedShape; of a single part
    the observation is that part.

    Raises:
        LabError: a kind of space that no net here can read, or `seen` does not fit it.
    """
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        if seen.keys is not None:
            raise LabError(f"env.obs_keys: observations of {env} have no parts: {space}")
        parts = [_map_part(space, env, "", (), seen)]
    else:
        parts = _picked(space, env, seen)
    if seen.image_axes is not None and not any(len(part.raw_shape) == 3 for part in parts):
        raise LabError(f"env.image_axes: {env} shows no images: {space}")
    if len(parts) > 1 or parts[0].mask:
        return _pack(parts, env)
    [part] = parts
    return ObsMap(part.shape, part.dtype, (part,))


def _picked(space: spaces.Space[Any], env: str, seen: Seen) -> list[PartMap]:
    """The parts of a Dict or Tuple that are to be seen, in their order."""
    leaves = [(".".join(map(str, path)), path, part) for path, part in _leaves(space)]
    known = list(dict.fromkeys(name for name, _, _ in leaves))
    unknown = [key for key in seen.keys or () if not any(_within(name, key) for name in known)]
    if unknown:
        faults = ", ".join(f"'{key}'{did_you_mean(key, known)}" for key in unknown)
        raise LabError(f"env.obs_keys: observations of {env} have no part {faults} (known: {', '.join(known)})")
    parts, texts = [], []
    for name, path, part in leaves:
        mask = seen.mask and path == (MASK,)
        if seen.keys is not None and not mask and not any(_within(name, key) for key in seen.keys):
            continue
        if seen.keys is None and _is_text(part):
            texts.append(name)
            continue
        parts.append(replace(_map_part(part, env, name, path, seen), mask=mask))
    twice = [name for name, count in Counter(part.name for part in parts).items() if count > 1]
    if twice:
        advice = "pick others in env.obs_keys, or rename them in a wrapper (env.wrappers)"
        raise LabError(f"env.name: observations of {env} have several parts named '{twice[0]}': {advice}")
    if not parts:
        raise LabError(f"env.name: {env} shows nothing that a net can read: {space}")
    if texts:
        note(f"env: {', '.join(texts)} of {env} left out of the observations: no net here reads text")
    return parts


def _leaves(space: spaces.Space[Any], path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """All parts that have no parts themselves, with the keys that lead to them."""
    if isinstance(space, spaces.Dict):
        inner: list[tuple[str | int, Any]] = list(space.items())
    elif isinstance(space, spaces.Tuple):
        inner = list(enumerate(space))
    else:
        return [(path, space)]
    return [leaf for key, part in inner for leaf in _leaves(part, (*path, key))]


def _within(name: str, key: str) -> bool:
    """Whether a key picks the part of this name, by itself or with others."""
    return name == key or name.startswith(f"{key}.")


def _is_text(space: spaces.Space[Any]) -> bool:
    # packages have classes of their own, MiniGrid's mission say
    return isinstance(space, spaces.Text) or (space.dtype is not None and np.dtype(space.dtype).kind in "US")


def _map_part(space: spaces.Space[Any], env: str, name: str, path: tuple[str | int, ...], seen: Seen) -> PartMap:
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
        # bytes of a part are an image if they lie in a plane
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
        + ("" if known else "; their shape does not tell: say env.image_axes, HWC or CHW")
    )
    return (2, 0, 1) if last else None


def _pack(parts: list[PartMap], env: str) -> ObsMap:
    """Parts as one row: vectors, the last of them the mask, images of reals, images of bytes."""
    parts = sorted(parts, key=lambda part: (part.image, part.dtype == BYTE, part.mask))
    bytewise = any(part.dtype == BYTE for part in parts)
    places, end = [], 0
    for part in parts:
        size = int(np.prod(part.shape)) * (part.dtype.itemsize if bytewise else 1)
        places.append(ObsPart(part.name, part.shape, part.dtype.name, end, end + size, part.image, part.mask))
        end += size
    # reals can only be read where rows begin at multiples of their size
    end += -end % (REAL.itemsize if bytewise else 1)
    shape = PackedShape((end,), tuple(places))
    names = ", ".join(part.name for part in parts)
    if shape.flat:
        note(f"env: observations of {env} are flattened to {end} numbers ({names})")
    else:
        shown = ", ".join(f"{part.name} {list(part.shape)}" for part in parts)
        note(f"env: observations of {env} keep their parts: {shown}")
    return ObsMap(shape, BYTE if bytewise else REAL, tuple(parts))
