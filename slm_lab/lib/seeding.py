"""Seeds: one number decides a run; every source of randomness gets its own stream from it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.random import mtrand
from numpy.typing import NDArray

BLOCK = 128
"""Seeds that are worked out at a time."""


def derive(*parts: int) -> int:
    """A 31-bit seed from integers, well mixed (`numpy.random.SeedSequence`): near inputs give unrelated streams.

    >>> derive(0, 0) == derive(0, 0), derive(0, 1) == derive(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


def episode_seed(seed: int, env: int, episode: int) -> int:
    """The seed of one episode of one env, so that it is the same whatever happened in the episodes before it."""
    return derive(seed, env, episode)


def episode_seeds(seed: int, env: int, first: int, count: int) -> list[int]:
    """`episode_seed` of `count` episodes from `first` on, in a fraction of the time.

    The mixing function of `numpy.random.SeedSequence` (M. O'Neill's seed_seq), on arrays: its pool of four words takes
    in the three numbers and a zero, stirs them, and gives its first word.

    >>> episode_seeds(7, 1, 5, 2) == [episode_seed(7, 1, 5), episode_seed(7, 1, 6)]
    True
    """
    if max(seed, env, first + count) >= 2**32:
        return [episode_seed(seed, env, first + k) for k in range(count)]
    pool = [np.full(count, word, np.uint32) for word in (seed, env, 0, 0)]
    pool[2] += np.arange(first, first + count, dtype=np.uint32)
    constants = _constants(0x43B0D7E5, 0x931E8875)

    def hashed(word: NDArray[np.uint32]) -> NDArray[np.uint32]:
        before, after = next(constants)
        word = (word ^ before) * after
        return word ^ (word >> np.uint32(16))

    pool = [hashed(word) for word in pool]
    for source in range(4):
        for target in range(4):
            if source != target:
                mixed = pool[target] * np.uint32(0xCA01F9DD) - hashed(pool[source]) * np.uint32(0x4973F715)
                pool[target] = mixed ^ (mixed >> 16)
    constants = _constants(0x8B51F9DD, 0x58F38DED)
    return [int(word) for word in hashed(pool[0]) >> 1]


def _constants(value: int, factor: int) -> Iterator[tuple[np.uint32, np.uint32]]:
    while True:
        before, value = value, value * factor % 2**32
        yield np.uint32(before), np.uint32(value)


class EpisodeSeeds:
    """The seeds of the episodes of N envs."""

    def __init__(self, seed: int, num_envs: int) -> None:
        self.seed = seed
        self._blocks: list[tuple[int, list[int]]] = [(0, [])] * num_envs

    def of(self, env: int, episode: int) -> int:
        """`episode_seed` of an episode of an env."""
        first, seeds = self._blocks[env]
        place = episode - first
        if not 0 <= place < len(seeds):
            # the first one alone: an env may never reach a second
            seeds = episode_seeds(self.seed, env, episode, BLOCK) if episode else [episode_seed(self.seed, env, 0)]
            place, self._blocks[env] = 0, (episode, seeds)
        return seeds[place]


@contextmanager
def own_streams(seed: int) -> Iterator[None]:
    """Inside, the global streams of python and numpy start from a seed; afterwards they continue where they were.

    >>> before = random.getstate()
    >>> with own_streams(3):
    ...     one = random.random()
    >>> with own_streams(3):
    ...     one == random.random()
    True
    >>> random.getstate() == before
    True
    """
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


class Streams:
    """The global streams of python, numpy and torch (CPU) as one of several tasks in a process sees them."""

    def __init__(self) -> None:
        import torch

        self._python = random.getstate()
        # to put another generator in its place takes no time, to copy a state does
        self._numpy: np.random.BitGenerator = np.random.MT19937(0)
        self._torch, self._get, self._set = torch.get_rng_state(), torch.get_rng_state, torch.set_rng_state

    def enter(self) -> None:
        """Go on with them."""
        random.setstate(self._python)
        mtrand.set_bit_generator(self._numpy)
        self._set(self._torch)

    def leave(self) -> None:
        """Keep them until the next `enter`."""
        self._python, self._numpy, self._torch = random.getstate(), mtrand.get_bit_generator(), self._get()


def seed_everything(seed: int) -> None:
    """Seed the global streams of python, numpy and torch."""
    import torch  # the seeds themselves need none of it

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
