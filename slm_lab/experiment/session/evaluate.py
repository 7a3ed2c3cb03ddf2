"""Evaluation: greedy episodes on envs of their own. Training does not notice it, to the bit."""

from collections.abc import Callable

import numpy as np

from slm_lab.agent.agent import Agent
from slm_lab.env.base import VecEnv
from slm_lab.env.make import make_env
from slm_lab.experiment.session.checkpoint import get_rng, set_rng
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.spec.model import EnvSpec


def play(
    agent: Agent,
    env: VecEnv,
    episodes: int,
    seed: int,
    on_step: Callable[[VecEnv], None] | None = None,
    *,
    explore: bool = False,
) -> tuple[list[float], list[int]]:
    """Play episodes from the beginning; gives their undiscounted returns, and lengths in steps, env by env.

    Every env plays its share of the episodes; taking those that end first would favour short ones. The env is reset
    with the seed; the agent is not changed. With `explore` its actions are drawn, else they are the likeliest.
    `on_step` is called before each step; to film, say.
    """
    n = env.info.num_envs
    left = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    found: list[list[tuple[float, int]]] = [[] for _ in range(n)]
    obs = env.reset(seed)
    with agent.apart(n):
        while left.any():
            if on_step is not None:
                on_step(env)
            step = env.step(agent.act(obs, explore))
            obs = step.obs
            if step.episode_return:
                agent.forget(step.terminated | step.truncated)
                ended = np.flatnonzero(step.terminated | step.truncated)
                for i, ret, length in zip(ended, step.episode_return, step.episode_length, strict=True):
                    if left[i]:
                        left[i] -= 1
                        found[i].append((ret, length))
    flat = [pair for pairs in found for pair in pairs]
    return [ret for ret, _ in flat], [length for _, length in flat]


class Evaluator:
    """Evaluations of one session. Each begins from a seed of its own, so nothing has to be saved between them.

    Args:
        spec: of the envs that the session learns in
        episodes: of each evaluation
        seed: what those of the evaluations are derived from
        threads: most threads or processes to step the envs with; None: one per core
    """

    def __init__(self, spec: EnvSpec, episodes: int, seed: int, threads: int | None = None) -> None:
        self.episodes = episodes
        self._seed = seed
        self._env = make_env(spec, num_envs=min(episodes, spec.num_envs), training=False, threads=threads)

    def __call__(self, agent: Agent, frame: int, normalizer: State | None = None) -> tuple[list[float], list[int]]:
        """Play at a frame of the training; gives returns and lengths of the episodes.

        Each frame has evaluations of its own. Agent and running statistics do not change, and the global random
        streams are put back, whatever the env draws.
        """
        rng = get_rng()
        try:
            if normalizer:
                self._env.load_normalizer_state(normalizer)
            return play(agent, self._env, self.episodes, derive(self._seed, frame))
        finally:
            set_rng(rng)

    def close(self) -> None:
        """Close the envs."""
        self._env.close()
