"""Base of all nets: a body and named heads. A net owns no optimizer, no loss and no device."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from slm_lab.agent.net.init import activation, init_output, init_weights
from slm_lab.agent.net.masked import HeadMask
from slm_lab.agent.net.noisy import NoisyLinear
from slm_lab.agent.net.precision import full_precision
from slm_lab.spec.model import NetSpec

Linear = Callable[[int, int], nn.Module]
"""Makes a linear layer from the numbers of its inputs and outputs."""
HeadSize = int | tuple[int, int]
"""Width of a head; or (n, K): K numbers for each of n actions, side by side in n * K outputs."""


def linear_layer(noisy_std: float | None) -> Linear:
    """Makes linear layers, noisy ones where their initial standard deviation is given."""
    return nn.Linear if noisy_std is None else partial(NoisyLinear, std=noisy_std)


def linear_head(linear: Linear, width: int, n: int, each: int = 1) -> nn.Module:
    """A head that is one linear layer: [B, F] -> [B, n * K]."""
    return linear(width, n * each)


def real(obs: Tensor, normalize: bool = True) -> Tensor:
    """Observations as reals: uint8 (pixels, bytes) from 0 to 1 if they are normalized, other numbers as they are.

    >>> real(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    if obs.is_floating_point():
        return obs
    x = obs.to(torch.get_default_dtype())
    return x.div_(255) if normalize and obs.dtype == torch.uint8 else x


class Net(nn.Module, ABC):
    """A body of features and one linear head per name.

    Args:
        spec: the net's own Spec, with the keys of its role (`NetSpec.for_role`)
        obs_shape: *O
        heads: name -> width, in the order of the outputs
    """

    head: ClassVar[Callable[..., nn.Module]] = staticmethod(linear_head)
    """Makes a head from: a maker of linear layers, the number of features, the size of the head."""

    Spec: ClassVar[type[NetSpec]]
    recurrent: ClassVar[bool] = False
    """Whether it is recurrent: only algorithms that learn from whole sequences can use it (`Algorithm.recurrent`)."""

    def __init__(self, spec: Any, obs_shape: tuple[int, ...], heads: Mapping[str, HeadSize]) -> None:
        super().__init__()
        self.spec = spec
        self.obs_shape = obs_shape
        self.head_sizes = dict(heads)
        self.state_size = 0
        """Size of the hidden state of one env; 0: not recurrent."""
        self._mask = HeadMask.of(obs_shape, heads)

    def add_heads(self, width: int, *, body_is_initialized: bool = False) -> None:
        """Make the heads, for features [B, F] of that width, and initialize the whole net. Call it last.

        Args:
            width: F
            body_is_initialized: initialize the heads alone
        """
        linear = linear_layer(getattr(self.spec, "noisy_std", None))
        sizes = {name: size if isinstance(size, tuple) else (size,) for name, size in self.head_sizes.items()}
        self.heads = nn.ModuleDict({name: self.head(linear, width, *size) for name, size in sizes.items()})
        activation_name = self.spec.out_layer_activation
        self.out = activation(activation_name) if activation_name else None
        if self.spec.init_fn:
            init_weights(
                self.heads if body_is_initialized else self, self.spec.init_fn, self.spec.hid_layers_activation
            )
        init_output(self.heads, self.spec.init_std)

    @abstractmethod
    def features(self, obs: Tensor) -> Tensor:
        """[B, *O] -> [B, F]"""

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        """[B, *O] -> one [B, width] per head"""
        return self.masked(full_precision(self._outputs, self.features(obs)), obs)

    def masked(self, outs: tuple[Tensor, ...], obs: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the heads for [B, *O], without the actions that the env does not allow"""
        return outs if self._mask is None else self._mask.apply(outs, obs)

    def _outputs(self, features: Tensor) -> tuple[Tensor, ...]:
        outs = (head(features) for head in self.heads.values())
        return tuple(self.out(y) for y in outs) if self.out is not None else tuple(outs)
