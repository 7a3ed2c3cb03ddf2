"""Base of all memories: preallocated arrays, one vectorized write per step."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from slm_lab.lib.stateful import State
from slm_lab.spec.model import MemorySpec
from slm_lab.types import ActionSpace, Continuous, Discrete, EnvInfo, Mixed, MultiDiscrete, Played, Step


class Owner(Protocol):
    """What a memory reads of its agent."""

    info: EnvInfo
    seed: int
    device: torch.device

    @property
    def training_frequency(self) -> int:
        """How much is gathered between two trainings, in units of the memory."""
        ...

    @property
    def training_start_step(self) -> int:
        """The first training comes once a replay memory has seen more transitions than this."""
        ...


class Memory(ABC):
    """Base of all memories: `Memory(memory_spec, agent)`."""

    Spec: ClassVar[type[MemorySpec]]
    on_policy: ClassVar[bool]
    """Whether it forgets what it handed over."""
    fixed_size: ClassVar[bool]
    """Whether every batch has the same shape, so that an update can be compiled."""

    def __init__(self, memory_spec: Any, agent: Owner) -> None:
        self.spec = memory_spec
        self.info = agent.info

    @abstractmethod
    def add(self, obs: NDArray[Any], action: NDArray[Any], step: Step) -> None:
        """Store one vector step.

        Args:
            obs: [N, *O] acted on
            action: [N, *A]
            step: what came of it
        """

    def extend(self, played: Played) -> None:
        """Store several vector steps, at most `room` of them."""
        for obs, action, step in zip(played.obs, played.action, played.steps(), strict=False):
            self.add(obs, action, step)

    @property
    def room(self) -> int:
        """Vector steps, at least 1, before which it is not time to learn."""
        return 1

    @abstractmethod
    def ready(self) -> bool:
        """Whether `sample` has a batch to give, and it is time for it."""

    @abstractmethod
    def sample(self) -> Any:
        """A Rollout or a Transition."""

    @abstractmethod
    def state_dict(self) -> State:
        """Everything stored."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""


def action_array(shape: tuple[int, ...], action: ActionSpace) -> NDArray[Any]:
    """Zeros [*shape, *A] to store actions in.

    >>> action_array((3,), Continuous(2, (0.0, 0.0), (1.0, 1.0))).shape
    (3, 2)
    """
    if isinstance(action, Discrete):
        return np.zeros(shape, np.int64)
    if isinstance(action, Continuous):
        return np.zeros((*shape, action.dim), np.float32)
    if isinstance(action, Mixed):
        return np.zeros((*shape, sum(action.widths)), np.float32)
    return np.zeros((*shape, len(action.nvec) if isinstance(action, MultiDiscrete) else action.n), np.int64)
