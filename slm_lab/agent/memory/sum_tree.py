"""A sum tree: draws places in proportion to their weights, a batch at a time and without a loop over the batch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from slm_lab.lib.stateful import State

Index = NDArray[np.int64]
Weights = NDArray[np.float64]

WIDTH = 16
"""Children of a node: five levels for a million leaves, where a binary tree has twenty."""
LEAST = 1e-12
"""Least priority: a memory all of whose errors are 0 can still be drawn from."""
NO_PRIORITIES: State = {"priority": None, "highest": 1.0}
"""What is saved where there is nothing to draw from yet, or no priority counts."""


class SumTree:
    """Weights at the leaves, at each node the sum of its children; changing and drawing take O(log size) each.

    Args:
        size: leaves, all 0
    """

    def __init__(self, size: int) -> None:
        self.levels: list[Weights] = []
        """From the leaves up to the root's children: [G, WIDTH] each."""
        groups = size
        while groups > 1 or not self.levels:
            groups = -(-groups // WIDTH)
            self.levels.append(np.zeros((groups, WIDTH)))
        self.size = size

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self.levels[-1][0].cumsum()[-1])

    @property
    def leaves(self) -> Weights:
        """[size] all weights; to be read."""
        return self.levels[0].reshape(-1)[: self.size]

    def update(self, index: Index, weight: Weights | float) -> None:
        """Set the weights of K leaves.

        Args:
            index: [K]; of a leaf that is named twice the last weight counts
            weight: [K] or one for all, not negative
        """
        self.levels[0].reshape(-1)[index] = weight
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            index = index // WIDTH
            # cumsum, as in `find`: both then round alike
            above.reshape(-1)[index] = below.take(index, 0).cumsum(1)[:, -1]

    def find(self, mass: Weights) -> Index:
        """Leaves at which the running sum of weights passes `mass`.

        Args:
            mass: [B], each in [0, total)

        Returns:
            [B]; never a leaf of weight 0
        """
        index = np.zeros(len(mass), np.int64)
        row = np.arange(len(mass))
        mass = np.minimum(mass, np.nextafter(self.total, 0))
        for level in reversed(self.levels):
            sums = level.take(index, 0).cumsum(1)
            child = (sums <= mass[:, None]).sum(1)
            start = np.where(child > 0, sums[row, child - 1], 0.0)
            # rounding must not lead beyond the child that was chosen
            index = index * WIDTH + child
            mass = np.minimum(mass - start, np.nextafter(level.reshape(-1).take(index), 0))
        return index

    def load(self, leaves: Weights) -> None:
        """Set the first leaves, all others to 0."""
        for level in self.levels:
            level.fill(0)
        self.levels[0].reshape(-1)[: len(leaves)] = leaves
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            above.reshape(-1)[: len(below)] = below.cumsum(1)[:, -1]


class Priorities(SumTree):
    """Weights `(|error| + epsilon)^alpha`; a new place has the highest weight given so far, so that it is seen soon.

    Args:
        size: places
        alpha: how much errors count
        epsilon: added to each of them
    """

    def __init__(self, size: int, alpha: float, epsilon: float) -> None:
        super().__init__(size)
        self._alpha, self._epsilon = alpha, epsilon
        self.highest = 1.0

    def tell(self, index: Tensor, error: Tensor) -> None:
        """Set the weights of places [B] int64 from errors [B]."""
        size = np.abs(error.detach().cpu().numpy().astype(np.float64))
        priority = np.maximum((size + self._epsilon) ** self._alpha, LEAST)
        self.update(index.cpu().numpy(), priority)
        self.highest = max(self.highest, float(priority.max()))

    def draw(self, count: int, generator: Generator) -> Index:
        """Places [B], one from each of B equal strata of the mass."""
        u = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
        return self.find((np.arange(count) + u) * (self.total / count))

    def state_dict(self) -> State:
        """Weights, and the highest so far."""
        return {"priority": torch.from_numpy(self.leaves.copy()), "highest": self.highest}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self.load(state["priority"].numpy())
        self.highest = float(state["highest"])
