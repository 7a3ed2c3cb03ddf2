"""The multilayer perceptron: linear layers with an activation between, then one linear layer a head."""

from typing import ClassVar

from torch import Tensor, nn

from slm_lab.agent.net.base import Net, real
from slm_lab.agent.net.init import activation, init_weights
from slm_lab.agent.net.precision import full_precision
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count, NetSpec, with_role_keys


@with_role_keys
class MLPNetSpec(NetSpec):
    """Keys of MLPNet."""

    hid_layers: list[Count]
    """Widths of the hidden layers, [64, 64] say."""
    layer_norm: bool = False
    """LayerNorm behind each hidden linear layer, before its activation."""


@register("net")
class MLPNet(Net):
    """[B, *O] (flattened; uint8 divided by 255) -> hidden layers -> one [B, width] a head.

    Hook for subclasses: `head`.
    """

    Spec = MLPNetSpec
    head: ClassVar[type[nn.Module]] = nn.Linear
    """Makes a head from the number of features and its width."""

    def __init__(self, spec: MLPNetSpec, obs_shape: tuple[int, ...], heads: dict[str, int]) -> None:
        super().__init__(spec, obs_shape, heads)
        width = 1
        for size in obs_shape:
            width *= size
        layers: list[nn.Module] = [nn.Flatten()] if len(obs_shape) > 1 else []
        for hidden in spec.hid_layers:
            layers.append(nn.Linear(width, hidden))
            if spec.layer_norm:
                layers.append(nn.LayerNorm(hidden))
            layers.append(activation(spec.hid_layers_activation))
            width = hidden
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: type(self).head(width, size) for name, size in heads.items()})
        if spec.init_fn:
            init_weights(self, spec.init_fn, spec.hid_layers_activation)
        if spec.init_std is not None:
            for layer in self.heads.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.orthogonal_(layer.weight, gain=spec.init_std)
                    nn.init.zeros_(layer.bias)
        self.out = activation(spec.out_layer_activation) if spec.out_layer_activation else None

    def features(self, obs: Tensor) -> Tensor:
        """[B, *O] -> [B, F]"""
        out: Tensor = self.body(real(obs))
        return out

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        """[B, *O] -> one [B, width] a head"""
        return full_precision(self._outputs, self.features(obs))

    def _outputs(self, features: Tensor) -> tuple[Tensor, ...]:
        outs = (head(features) for head in self.heads.values())
        return tuple(self.out(y) for y in outs) if self.out is not None else tuple(outs)
