"""Seeds: one number decides a run; every source of chance gets its own stream from it."""

import random

import numpy as np


def derive(*parts: int) -> int:
    """A 31-bit seed from integers, well mixed (`numpy.random.SeedSequence`): near inputs give unrelated streams.

    >>> derive(0, 0) == derive(0, 0), derive(0, 1) == derive(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


def episode_seed(seed: int, env: int, episode: int) -> int:
    """The seed of one episode of one env, so that it is the same whatever happened in the episodes before it.

    Args:
        seed: of all envs together.
        env: index of the env.
        episode: episodes that it has begun since it got that seed.
    """
    return derive(seed, env, episode)


def session_seed(random_seed: int | None, trial: int, session: int) -> int:
    """The seed of a session: from `meta.random_seed` (or 0), trial and session index; never from the clock."""
    return derive(0 if random_seed is None else random_seed, trial, session)


def seed_everything(seed: int) -> None:
    """Seed the global streams of python, numpy and torch."""
    import torch  # the seeds themselves need none of it

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
