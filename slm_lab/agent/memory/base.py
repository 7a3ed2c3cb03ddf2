"""What every memory is: preallocated arrays, one vectorized write a step."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from slm_lab.lib.stateful import State
from slm_lab.spec.model import MemorySpec
from slm_lab.types import EnvInfo, Step


class Owner(Protocol):
    """What a memory wants to know of the agent it belongs to."""

    info: EnvInfo
    seed: int

    @property
    def training_frequency(self) -> int:
        """How much an on-policy memory gathers before it is handed over."""
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
        """Become what `state_dict` said."""
