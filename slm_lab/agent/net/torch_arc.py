"""The net whose body the spec lists layer by layer (see `arc`)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.net.arc import ArcBody
from slm_lab.agent.net.base import HeadSize, Net, real
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import register
from slm_lab.spec.model import NetSpec, with_role_keys
from slm_lab.types import PackedShape


@with_role_keys
class TorchArcNetSpec(NetSpec):
    """Keys of TorchArcNet. `hid_layers_activation` decides the gain of init_fn alone: the arc has its own."""

    arc: dict[str, Any] | None = None
    """The body in the TorchArc grammar: modules made of layers of torch.nn, and the graph that connects them."""
    normalize: bool = True
    """Divide uint8 images by 255. Images of reals are taken as they are."""


@register("net")
class TorchArcNet(Net):
    """[B, *O] -> the layers of the arc, flattened -> one [B, width] per head."""

    Spec = TorchArcNetSpec

    def __init__(self, spec: TorchArcNetSpec, obs_shape: tuple[int, ...], heads: Mapping[str, HeadSize]) -> None:
        super().__init__(spec, obs_shape, heads)
        if isinstance(obs_shape, PackedShape) and not obs_shape.flat:
            names = ", ".join(part.name for part in obs_shape.parts)
            raise SpecError([f"agent.net.type: TorchArcNet reads one input, not parts ({names}): use MultiInputNet"])
        if spec.arc is None:
            raise SpecError(["agent.net.arc: missing (or actor_arc and critic_arc)"])
        self.body = ArcBody(spec.arc, obs_shape)
        with torch.no_grad():
            width = self.body(torch.zeros((1, *obs_shape))).shape[-1]
        self.add_heads(width)

    def features(self, obs: Tensor) -> Tensor:
        """[B, *O] -> [B, F]"""
        x = obs.contiguous(memory_format=torch.channels_last) if obs.dim() == 4 else obs
        return self.body(real(x, self.spec.normalize))
