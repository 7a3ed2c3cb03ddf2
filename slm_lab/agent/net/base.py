"""What every net is: a body and named heads. A net owns no optimizer, no loss and no device."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from slm_lab.spec.model import NetSpec


class Net(nn.Module, ABC):
    """A body of features and one linear head per name.

    Args:
        spec: the net's own Spec, as one role sees it (`NetSpec.for_role`)
        obs_shape: *O
        heads: name -> width, in the order of the outputs
    """

    Spec: ClassVar[type[NetSpec]]
    recurrent: ClassVar[bool] = False
    """Whether it has a memory: only algorithms that learn from whole sequences can use it (`Algorithm.recurrent`)."""

    def __init__(self, spec: Any, obs_shape: tuple[int, ...], heads: dict[str, int]) -> None:
        super().__init__()
        self.spec = spec
        self.obs_shape = obs_shape
        self.head_sizes = dict(heads)
        self.state_size = 0
        """Numbers in the hidden state of one env; 0: no memory."""

    @abstractmethod
    def features(self, obs: Tensor) -> Tensor:
        """[B, *O] -> [B, F]"""

    @abstractmethod
    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        """[B, *O] -> one [B, width] a head"""
