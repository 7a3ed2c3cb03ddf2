"""Random numbers for acting, drawn in blocks: one call of the generator serves many steps."""

import torch
from torch import Generator, Tensor

from slm_lab.functional.distributions import Distribution
from slm_lab.functional.exploration import Exploration
from slm_lab.lib.stateful import State
from slm_lab.types import ActionSpace

BLOCK = 128
"""Steps drawn at once."""


class NoiseStream:
    """The noise of successive steps."""

    def __init__(
        self, dist: type[Distribution | Exploration], action: ActionSpace, num_envs: int, generator: Generator
    ) -> None:
        self._dist = dist
        self._action = action
        self._num_envs = num_envs
        self._generator = generator
        self._block = torch.empty(0)
        self._rows: list[Tensor] = []
        """What is left of the block, the next row last."""

    def next(self, n: int | None = None) -> Tensor:
        """[N, ...] for one step; for another batch size n it is sampled separately and the block is left as it is."""
        if n is not None and n != self._num_envs:
            return self._dist.noise((n,), self._action, self._generator)
        if not self._rows:
            self._block = self._dist.noise((BLOCK, self._num_envs), self._action, self._generator)
            self._rows = list(self._block.unbind())[::-1]
        return self._rows.pop()

    def ahead(self, steps: int, *, example: bool = False) -> Tensor:
        """[steps, N, ...] for that many steps; an example has this shape, but leaves the generator unused."""
        if example:
            return self._dist.noise((steps, self._num_envs), self._action, Generator())
        left = len(self._rows)
        if left < steps:
            return torch.stack([self.next() for _ in range(steps)])
        del self._rows[left - steps :]
        begin = len(self._block) - left
        return self._block[begin : begin + steps]

    def state_dict(self) -> State:
        """The rest of the block, the next row last."""
        return {"rows": torch.stack(self._rows) if self._rows else None}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._rows = [] if state["rows"] is None else list(state["rows"].unbind())
        self._block = torch.stack(self._rows[::-1]) if self._rows else torch.empty(0)
