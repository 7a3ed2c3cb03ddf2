"""The multilayer perceptron: linear layers with an activation between, then one linear layer per head."""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from slm_lab.agent.net.base import HeadSize, Net, linear_layer, real
from slm_lab.agent.net.normalization import BatchNorm
from slm_lab.agent.net.parts import front, linear_layers
from slm_lab.lib.registry import register
from slm_lab.spec.basics import NUMBER
from slm_lab.spec.model import Count, NetSpec, NonNegative, with_role_keys


@with_role_keys
class MLPNetSpec(NetSpec):
    """Keys of MLPNet."""

    hid_layers: list[Count]
    """Widths of the hidden layers, [64, 64] say."""
    layer_norm: bool = False
    """LayerNorm after each hidden linear layer, before its activation."""
    batch_norm: bool = False
    """Batch normalization there, in place of LayerNorm. Updates are not compiled then."""
    dropout: Annotated[float, Field(ge=0, le=0.9), NUMBER] = 0.0
    """Share of the units of each hidden layer that an update drops, before they are normalized. For critics of replayed
    experience (`critic_dropout`); a policy and its ratios would see different nets."""
    noisy_std: NonNegative | None = None
    """sigma_0 of factorised noise in every linear layer, which explores in place of epsilon: 0.5 is usual. None: no
    noise. For the DQN family."""


@register("net")
class MLPNet(Net):
    """[B, *O] (flattened; uint8 divided by 255) -> hidden layers -> one [B, width] per head.

    Images among the parts of an observation go through convolutions first.
    """

    Spec = MLPNetSpec

    def __init__(self, spec: MLPNetSpec, obs_shape: tuple[int, ...], heads: Mapping[str, HeadSize]) -> None:
        super().__init__(spec, obs_shape, heads)
        self.front = front(obs_shape, "MLPNet", spec.hid_layers_activation)
        width = math.prod(obs_shape) if self.front is None else self.front.width
        layers: list[nn.Module] = [nn.Flatten()] if len(obs_shape) > 1 else []
        norm = BatchNorm if spec.batch_norm else nn.LayerNorm if spec.layer_norm else None
        linear, name = linear_layer(spec.noisy_std), spec.hid_layers_activation
        layers += linear_layers(width, spec.hid_layers, name, linear=linear, norm=norm, dropout=spec.dropout)
        self.body = nn.Sequential(*layers)
        self.add_heads([width, *spec.hid_layers][-1])

    def features(self, obs: Tensor) -> Tensor:
        """[B, *O] -> [B, F]"""
        return self.body(real(obs) if self.front is None else self.front(obs))
