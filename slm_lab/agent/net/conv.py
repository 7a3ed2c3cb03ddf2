"""The convolutional net for images. The layout of Mnih et al. 2015 (Nature 518) is usual for 84 x 84 pixels:

`"conv_hid_layers": [[32, 8, 4, 0, 1], [64, 4, 2, 0, 1], [64, 3, 1, 0, 1]], "fc_hid_layers": [512]`
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slm_lab.agent.net.base import HeadSize, Net, linear_layer
from slm_lab.agent.net.init import activation
from slm_lab.agent.net.normalization import BatchNorm
from slm_lab.agent.net.parts import flat_size, linear_layers
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count, Natural, NetSpec, NonNegative, with_role_keys
from slm_lab.types import PackedShape


@with_role_keys
class ConvNetSpec(NetSpec):
    """Keys of ConvNet."""

    conv_hid_layers: list[tuple[Count, Count, Count, Natural, Count]]
    """[out channels, kernel, stride, padding, dilation] of each convolution."""
    fc_hid_layers: tuple[Count, ...] = ()
    """Widths of the linear layers after them, for example [512]."""
    normalize: bool = True
    """Divide uint8 images by 255. Images of reals are taken as they are."""
    layer_norm: bool = False
    """LayerNorm before each activation: over channels, rows and columns of an image, with a scale and a shift for each
    channel; over the outputs of a linear layer."""
    batch_norm: bool = False
    """Batch normalization after the activation of each convolution but the first, in place of LayerNorm. Updates are
    not compiled then."""
    noisy_std: NonNegative | None = None
    """sigma_0 of factorised noise in every linear layer, which explores in place of epsilon: 0.5 is usual. None: no
    noise. For the DQN family."""


@register("net")
class ConvNet(Net):
    """[B, C, H, W] -> convolutions -> linear layers -> one [B, width] per head. Images [H, W] have one channel."""

    Spec = ConvNetSpec

    def __init__(self, spec: ConvNetSpec, obs_shape: tuple[int, ...], heads: Mapping[str, HeadSize]) -> None:
        super().__init__(spec, obs_shape, heads)
        if isinstance(obs_shape, PackedShape):
            names = ", ".join(part.name for part in obs_shape.parts)
            raise SpecError([f"agent.net.type: ConvNet reads one image, not parts ({names}): use MultiInputNet"])
        self._is_plane = len(obs_shape) == 2
        if self._is_plane:
            obs_shape = (1, *obs_shape)
        if len(obs_shape) != 3:
            known = "[channels, height, width] or [height, width]"
            raise SpecError([f"agent.net.type: ConvNet reads images {known} (got {list(obs_shape)})"])
        channels = obs_shape[0]
        layers: list[nn.Module] = []
        for i, (out, kernel, stride, padding, dilation) in enumerate(spec.conv_hid_layers):
            layers.append(nn.Conv2d(channels, out, kernel, stride, padding, dilation))
            if spec.layer_norm and not spec.batch_norm:
                layers.append(nn.GroupNorm(1, out))
            layers.append(activation(spec.hid_layers_activation))
            if spec.batch_norm and i > 0:
                layers.append(BatchNorm(out))
            channels = out
        width = flat_size(nn.Sequential(*layers), obs_shape, "agent.net.conv_hid_layers")
        norm = nn.LayerNorm if spec.layer_norm and not spec.batch_norm else None
        linear, name = linear_layer(spec.noisy_std), spec.hid_layers_activation
        layers += [nn.Flatten(), *linear_layers(width, spec.fc_hid_layers, name, linear=linear, norm=norm)]
        self.body = nn.Sequential(*layers)
        self.add_heads([width, *spec.fc_hid_layers][-1])

    def features(self, obs: Tensor) -> Tensor:
        """[B, C, H, W] or [B, H, W], uint8 or real -> [B, F]"""
        if self._is_plane:
            obs = obs.unsqueeze(1)
        # channels innermost in memory: convolutions on a CPU take two thirds of the time, and bytes are quickly moved
        x = obs.contiguous(memory_format=torch.channels_last)
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        if self.spec.normalize and obs.dtype == torch.uint8:
            x = x.div_(255)  # a copy of the bytes, ours to change: fresh memory for another takes longer than to divide
        return self.body(x)
