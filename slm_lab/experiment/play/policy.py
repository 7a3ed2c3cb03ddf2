"""A trained agent that acts on what its env shows, for those who use the lab as a library."""

from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from slm_lab.env.make import make_single
from slm_lab.experiment.play.enjoy import SavedPolicy
from slm_lab.experiment.play.measure import Evaluation, measure


class Policy:
    """A trained agent that acts."""

    def __init__(self, saved: SavedPolicy, device: str = "cpu") -> None:
        self._saved, self._device = saved, device
        with closing(saved.env()) as env:
            self.info = env.info
            """Of the env: shapes, action space."""
            self._translator = env.translator()
            self._agent = saved.agent(env, device)
        self.spec = saved.spec
        """What it was trained with."""
        self.frame = saved.frame
        """Frames it had learned from."""

    def act(self, obs: Any, explore: bool = False) -> Any:
        """Choose actions.

        Recurrent nets and stacked frames remember from call to call: say `reset` where an episode ends.

        Args:
            obs: what the env itself shows, as its `reset` and `step` give it: of one env; or of several, as a list or
                as gymnasium's vector envs show it, each part [N, ...]. Of Atari games what ALE's vector env shows.
                If the spec has `env.wrappers` or `env.action_mask`, what the env shows with them: see `make_env`.
            explore: draw from the policy, as at the end of training; False: its likeliest action.

        Returns:
            What the env takes, in its own numbers and bounds: one action, or [N, ...]; of tuples and dicts a list of N.

        Raises:
            ValueError: it is no observation of the env.
        """
        try:
            seen, alone = self._translator.observe(obs)
        except ValueError as e:
            if isinstance(obs, tuple) and len(obs) == 2 and isinstance(obs[1], dict):
                raise ValueError("act takes an observation (got a pair with a dict, as `reset` gives them)") from None
            around = [f"env.{key}" for key in ("wrappers", "action_mask") if getattr(self.spec.env, key)]
            if not around:
                raise
            why = f"the policy was trained with {' and '.join(around)}; make_env() of the policy gives such an env"
            raise ValueError(f"{e} ({why})") from None
        return self._translator.act(self._agent.act(seen, explore), alone=alone)

    def make_env(self, render: str | None = None) -> Any:
        """A gymnasium env that shows what `act` takes: with the wrappers and the action mask of the spec.

        Raises:
            LabError: it can't be made; an Atari game, which ALE's vector env alone shows as in training.
        """
        return make_single(self.spec.env, render=render)

    def reset(self, ended: ArrayLike | None = None) -> None:
        """Forget what is remembered of earlier steps where an episode ended ([N] bool; None: everywhere)."""
        where = None if ended is None else np.asarray(ended, np.bool_)
        self._agent.forget(where)
        self._translator.forget(where)

    def evaluate(
        self, episodes: int = 10, *, num_envs: int = 16, seed: int = 0, stochastic: bool = False
    ) -> Evaluation:
        """Play episodes in the env it was trained in; gives their undiscounted returns, and more (see `evaluate`)."""
        return Evaluation([measure(self._saved, episodes, num_envs, seed, stochastic, self._device)])
