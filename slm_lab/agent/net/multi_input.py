"""The net for observations of several parts: images stay images, vectors vectors.

`"net": {"type": "MultiInputNet", "parts": {"screen": {"conv_hid_layers": [[16, 3, 1, 0, 1]]}}}`
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from slm_lab.agent.net.base import HeadSize, Net
from slm_lab.agent.net.parts import Convolutions, PartsBody, PartSpec, linear_layers, note_flattened
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count, NetSpec, with_role_keys
from slm_lab.types import ObsPart, PackedShape


@with_role_keys
class MultiInputNetSpec(NetSpec):
    """Keys of MultiInputNet, which `type: auto` means too: every one of them may be left out."""

    hid_layers: tuple[Count, ...] = (64, 64)
    """Widths of the linear layers that vectors go through, all together."""
    conv_hid_layers: Convolutions | None = None
    """[out channels, kernel, stride, padding, dilation] of the convolutions of each image; None: by its size."""
    fc_hid_layers: tuple[Count, ...] | None = None
    """Widths of the linear layers after the convolutions; None: [128]."""
    joint_hid_layers: tuple[Count, ...] = (128,)
    """Widths of the linear layers after all parts, if there are several."""
    normalize: bool = True
    """Divide uint8 images by 255; false for small numbers that only say what is where, MiniGrid's say."""
    parts: dict[str, PartSpec] = Field(default_factory=dict)
    """What single parts go through in place of that, by name."""


@register("net", "auto")
class MultiInputNet(Net):
    """[B, *O] -> a convolutional body for each image, linear layers for the rest -> joint layers -> the heads.

    Of an observation that is no more than a vector, or an image, it is an MLP, or a convolutional net.
    """

    Spec = MultiInputNetSpec

    def __init__(self, spec: Any, obs_shape: tuple[int, ...], heads: Mapping[str, HeadSize]) -> None:
        super().__init__(spec, obs_shape, heads)
        self.alone = not isinstance(obs_shape, PackedShape)
        if isinstance(obs_shape, PackedShape):
            if len(obs_shape) > 1:
                raise SpecError(['env.frame_op: MultiInputNet reads parts joined, not stacked: use "concat"'])
            shape = obs_shape
        else:
            if spec.parts:
                raise SpecError(["agent.net.parts: observations of this env have no parts"])
            if len(obs_shape) == 2:
                note_flattened(obs_shape, "MultiInputNet")
            shape = PackedShape(obs_shape, (ObsPart("obs", tuple(obs_shape), "float32", 0, 0, len(obs_shape) == 3),))
        image = PartSpec(conv_hid_layers=spec.conv_hid_layers, fc_hid_layers=spec.fc_hid_layers)
        name = spec.hid_layers_activation
        self.parts_body = PartsBody(
            shape, name, rest=spec.hid_layers, image=image, parts=spec.parts, normalize=spec.normalize
        )
        joint = () if len(shape.parts) == 1 else spec.joint_hid_layers
        self.joint = nn.Sequential(*linear_layers(self.parts_body.width, joint, name))
        self.add_heads(joint[-1] if joint else self.parts_body.width)

    def features(self, obs: Tensor) -> Tensor:
        """[B, *O] -> [B, F]"""
        return self.joint(self.parts_body.read([obs]) if self.alone else self.parts_body(obs))
