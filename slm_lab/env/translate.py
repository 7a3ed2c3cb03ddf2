"""Observations and actions of an env that is stepped elsewhere, through the same maps that the lab's own envs use."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slm_lab.env.actions import ActionMap
from slm_lab.env.observations import ObsMap
from slm_lab.env.ops import ObsOp
from slm_lab.types import Array


class Translator:
    """Between an env's own observations and actions and those of an agent that learned in envs of its kind.

    What is done to observations is all here, as plain data: `observations`, then `ops` in their order; of actions
    `actions`. Statistics do not change.

    Args:
        name: of the env, for messages.
        observations: what the env shows, as numbers.
        actions: the agent's, as the env's.
        ops: further steps, as training has them; they belong to the translator.
    """

    def __init__(self, name: str, observations: ObsMap, actions: ActionMap, ops: Sequence[ObsOp] = ()) -> None:
        self.name, self.observations, self.actions, self.ops = name, observations, actions, list(ops)
        self._ended: NDArray[np.bool_] | None = None
        """[N], whose next observation begins an episode; None: everyone's."""

    def observe(self, obs: Any) -> tuple[Array, bool]:
        """From what an env shows to what the agent sees.

        Where frames are stacked it keeps earlier ones: see `forget`. A new number of envs starts afresh.

        Args:
            obs: see `ObsMap.rows`.

        Returns:
            [N, *O], and whether it was one observation alone.

        Raises:
            ValueError: it is not of the env's space.
        """
        rows, alone = self.observations.rows(obs)
        ended = self._ended
        if ended is None or len(ended) != len(rows):
            for op in self.ops:
                rows = op.reset(rows)
        else:
            for op in self.ops:
                rows, _ = op.step(rows, rows, ended if ended.any() else None)
        self._ended = np.zeros(len(rows), np.bool_)
        return rows, alone

    def forget(self, ended: NDArray[np.bool_] | None = None) -> None:
        """Forget earlier frames where an episode ended, [N]; None: everywhere."""
        self._ended = None if ended is None or self._ended is None else self._ended | ended

    def act(self, action: Array, *, alone: bool) -> Any:
        """From the agent's actions [N, *A] to the env's own, in its bounds and numbers; of one env alone without N.

        Where the env takes tuples or dicts, it is one of them, or a list of N.
        """
        made = self.actions.decode(action)
        if isinstance(made, list):
            return made[0] if alone else made
        return np.array(made[0] if alone else made)
