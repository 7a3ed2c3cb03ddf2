"""Observations made of parts: an image goes through convolutions, a vector through linear layers or none, side by side.

`types.PackedShape` says where the parts are in the row that an observation is.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from slm_lab.agent.net.base import real
from slm_lab.agent.net.dropout import Dropout
from slm_lab.agent.net.init import activation
from slm_lab.lib.errors import SpecError
from slm_lab.lib.log import note
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.model import Count, Natural, SpecModel
from slm_lab.types import LEAST_SIDE, ObsPart, PackedShape

Convolutions = list[tuple[Count, Count, Count, Natural, Count]]
NATURE: Convolutions = [(32, 8, 4, 0, 1), (64, 4, 2, 0, 1), (64, 3, 1, 0, 1)]
"""Of Mnih et al. 2015, for sides of 36 and more: [out channels, kernel, stride, padding, dilation] each."""
SMALL: Convolutions = [(16, 3, 1, 1, 1), (32, 3, 2, 1, 1)]
"""For smaller images."""
HALVING = (64, 3, 2, 1, 1)
"""Added after NATURE as long as an output has more than MOST places per side."""
MOST = 11
IMAGE_WIDTHS = (128,)
"""Default linear layers after convolutions."""


class PartSpec(SpecModel):
    """What one part goes through; `hid_layers` for a vector, or an image that is flattened."""

    hid_layers: tuple[Count, ...] | None = None
    """Widths of linear layers; []: its numbers as they are."""
    conv_hid_layers: Convolutions | None = None
    """[out channels, kernel, stride, padding, dilation] of each convolution."""
    fc_hid_layers: tuple[Count, ...] | None = None
    """Widths of the linear layers after the convolutions."""

    @model_validator(mode="after")
    def _one_kind(self) -> "PartSpec":
        if self.hid_layers is not None and (self.conv_hid_layers is not None or self.fc_hid_layers is not None):
            why = "hid_layers are of a vector, conv_hid_layers and fc_hid_layers of an image: use one kind or the other"
            raise PydanticCustomError("kinds", "{why}", {"why": why, "key": "hid_layers"})
        return self


def usual_convolutions(height: int, width: int) -> Convolutions:
    """Convolutions for an image of this size.

    >>> len(usual_convolutions(84, 84)), len(usual_convolutions(7, 7)), len(usual_convolutions(240, 320))
    (3, 2, 5)
    """
    if min(height, width) < 36:
        return SMALL
    layers, side = list(NATURE), max(height, width)
    for _, kernel, stride, padding, _ in layers:
        side = (side + 2 * padding - kernel) // stride + 1
    while side > MOST:
        layers.append(HALVING)
        side = (side - 1) // 2 + 1
    return layers


class Image(nn.Module):
    """[B, C, H, W] -> convolutions -> linear layers -> [B, F]

    Args:
        shape: [C, H, W]
        convolutions: [out channels, kernel, stride, padding, dilation] each
        widths: of the linear layers
        activation_name: after each layer
        key: of the spec, for messages
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        convolutions: Convolutions,
        widths: tuple[int, ...],
        activation_name: str,
        key: str,
    ) -> None:
        super().__init__()
        channels = shape[0]
        layers: list[nn.Module] = []
        for out, kernel, stride, padding, dilation in convolutions:
            layers += [nn.Conv2d(channels, out, kernel, stride, padding, dilation), activation(activation_name)]
            channels = out
        width = flat_size(nn.Sequential(*layers), shape, key)
        layers += [nn.Flatten(), *linear_layers(width, widths, activation_name)]
        self.body = nn.Sequential(*layers)
        self.width = widths[-1] if widths else width

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] reals -> [B, F]"""
        return self.body(x)


def flat_size(convolutions: nn.Module, shape: tuple[int, ...], key: str) -> int:
    """Size of the convolutions' output for one image.

    Raises:
        SpecError: none.
    """
    try:
        with torch.no_grad():
            return convolutions(torch.zeros((1, *shape))).numel()
    except RuntimeError:
        raise SpecError([f"{key}: nothing is left of an image of {list(shape)} (channels, height, width)"]) from None


def linear_layers(
    width: int,
    widths: Sequence[int],
    activation_name: str,
    *,
    linear: Callable[[int, int], nn.Module] = nn.Linear,
    norm: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
) -> list[nn.Module]:
    """Linear layers from `width` on, each with its dropout and normalization, if any, and its activation."""
    layers: list[nn.Module] = []
    for hidden in widths:
        layers += [linear(width, hidden), *([Dropout(dropout)] if dropout else [])]
        layers += [*([] if norm is None else [norm(hidden)]), activation(activation_name)]
        width = hidden
    return layers


class PartsBody(nn.Module):
    """A row of parts [B, P] -> [B, F]: each image through a body of its own, the other parts together, concatenated.

    Args:
        shape: of the rows
        rest: widths of the linear layers of vectors; (): they pass as they are
        image: what images go through where `parts` says nothing
        parts: by name, what single parts go through
        activation_name: after each layer
        normalize: whether bytes are divided by 255
    """

    def __init__(
        self,
        shape: PackedShape,
        activation_name: str,
        *,
        rest: tuple[int, ...] = (),
        image: PartSpec | None = None,
        parts: dict[str, PartSpec] | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        parts, image = parts or {}, image or PartSpec()
        _check(shape, parts)
        self.shape = shape
        self.bodies = nn.ModuleList()
        self.apart: list[int] = []
        """Numbers of the parts that have a body of their own, in the order of `bodies`."""
        width = 0
        for i, part in enumerate(shape.parts):
            said, key = parts.get(part.name), f"agent.net.parts.{part.name}"
            if said is None:
                if not part.image:
                    continue
                said, key = image, "agent.net.conv_hid_layers"
            made = _body(part, said, activation_name, key)
            self.apart.append(i)
            self.bodies.append(made)
            width += made.width
        self.rest = [i for i in range(len(shape.parts)) if i not in self.apart]
        inputs = sum(math.prod(shape.parts[i].shape) for i in self.rest)
        self.rest_body = nn.Sequential(*linear_layers(inputs, rest if inputs else (), activation_name))
        self.width = width + (rest[-1] if rest and inputs else inputs)
        """F"""

    def forward(self, obs: Tensor) -> Tensor:
        """[B, P] -> [B, F]"""
        return self.read(take_apart(obs, self.shape))

    def read(self, parts: list[Tensor]) -> Tensor:
        """The parts themselves, [B, *shape] each, in their order -> [B, F]"""
        parts = [self._real(x) for x in parts]
        found = [body(parts[i]) for i, body in zip(self.apart, self.bodies, strict=True)]
        if self.rest:
            found.append(self.rest_body(torch.cat([parts[i].flatten(1) for i in self.rest], -1)))
        return torch.cat(found, -1)

    def _real(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            # as ConvNet does: bytes are quickly moved
            x = x.contiguous(memory_format=torch.channels_last)
        return real(x, self.normalize)


class Vector(nn.Sequential):
    """[B, ...] -> linear layers -> [B, F]"""

    def __init__(self, size: int, widths: tuple[int, ...], activation_name: str) -> None:
        super().__init__(nn.Flatten(), *linear_layers(size, widths, activation_name))
        self.width = widths[-1] if widths else size


def _body(part: ObsPart, said: PartSpec, activation_name: str, key: str) -> Any:
    if said.hid_layers is not None or not part.image:
        return Vector(math.prod(part.shape), said.hid_layers or (), activation_name)
    convolutions = said.conv_hid_layers
    if convolutions is None:
        convolutions = usual_convolutions(*part.shape[1:])
    widths = IMAGE_WIDTHS if said.fc_hid_layers is None else said.fc_hid_layers
    return Image(part.shape, convolutions, widths, activation_name, key)


def _check(shape: PackedShape, parts: dict[str, PartSpec]) -> None:
    known = {part.name: part for part in shape.parts}
    faults = [
        f"agent.net.parts.{name}: no such part{did_you_mean(name, known)} (known: {', '.join(known)})"
        for name in parts
        if name not in known
    ]
    faults += [
        f"agent.net.parts.{name}: is no image but {list(known[name].shape)}: use hid_layers"
        for name, said in parts.items()
        if name in known and not known[name].image and (said.conv_hid_layers or said.fc_hid_layers)
    ]
    if faults:
        raise SpecError(faults)


def take_apart(obs: Tensor, shape: PackedShape) -> list[Tensor]:
    """Views of the parts [B, *shape] of rows [B, P].

    >>> part = ObsPart("a", (1, 2), "float32", 0, 8, False), ObsPart("b", (1, 2, 1), "uint8", 8, 10, True)
    >>> row = torch.tensor([[0, 0, 128, 63, 0, 0, 0, 64, 7, 8, 0, 0]], dtype=torch.uint8)
    >>> [x.tolist() for x in take_apart(row, PackedShape((12,), part))]
    [[[[1.0, 2.0]]], [[[[7], [8]]]]]
    """
    views = []
    for part in shape.parts:
        x = obs[:, part.begin : part.end]
        if obs.dtype == torch.uint8 and part.dtype == "float32":
            x = x.view(torch.float32)
        views.append(x.unflatten(1, part.shape))
    return views


def note_flattened(obs_shape: tuple[int, ...], net: str) -> None:
    """Log that a net reads what may be an image, *O, as numbers in a row."""
    if not isinstance(obs_shape, PackedShape) and len(obs_shape) in (2, 3) and min(obs_shape[-2:]) >= LEAST_SIDE:
        count = f"{math.prod(obs_shape):,} numbers in a row"
        note(f"agent.net: {net} reads observations {list(obs_shape)} as {count}; ConvNet would read them as an image")


def front(
    obs_shape: tuple[int, ...], net: str, activation_name: str, parts: dict[str, PartSpec] | None = None
) -> PartsBody | None:
    """The module by which a net for vectors reads other observations; None: the observations are vectors.

    Args:
        obs_shape: *O
        net: its name
        activation_name: after each layer
        parts: by name, what single parts go through
    """
    if not isinstance(obs_shape, PackedShape) or (obs_shape.flat and not parts):
        if parts:
            raise SpecError(["agent.net.parts: observations of this env have no parts"])
        note_flattened(obs_shape, net)
        return None
    if len(obs_shape) > 1:
        raise SpecError([f'env.frame_op: {net} reads parts joined, not stacked: use "concat"'])
    images = [part.name for part in obs_shape.parts if part.image]
    if images:
        note(f"agent.net: {net} reads images ({', '.join(images)}) through convolutions first, as MultiInputNet does")
    return PartsBody(obs_shape, activation_name, parts=parts)
