"""From what an env shows to the row of numbers that an agent sees: written once, as plain data."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces

from slm_lab.env.parts import ALL, BYTE, REAL, PartMap, Seen, map_part
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note
from slm_lab.lib.suggest import did_you_mean
from slm_lab.types import MASK, Array, ObsPart, PackedShape


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
    if not isinstance(obs, list | tuple) or not obs:
        return False
    if isinstance(obs[0], dict):
        return key in obs[0]
    return isinstance(key, int) and isinstance(obs, list) and isinstance(obs[0], tuple)


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
        parts = [map_part(space, env, "", (), seen)]
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
        parts.append(replace(map_part(part, env, name, path, seen), mask=mask))
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
