"""Operands of steps as C text: names, types, functions, addresses."""

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import Any

import torch

from slm_lab.lib.native.record import Place
from slm_lab.lib.native.steps import Unsupported, c_type, literal


def common_type(values: Iterable[Any]) -> torch.dtype:
    """The type in which values are compared: places and Python numbers."""
    values = list(values)
    kinds = [v.dtype for v in values if isinstance(v, Place)]
    floats = [k for k in kinds if k.is_floating_point]
    if floats:
        return torch.float64 if torch.float64 in floats else torch.float32
    if any(isinstance(v, float) for v in values):
        return torch.float32
    return torch.int64


def expression(
    template: str, values: dict[str, Any], dtype: torch.dtype, result: torch.dtype | None = None
) -> tuple[list[Place], str]:
    """Operands, and C text with their numbers in place of their names.

    Args:
        template: C text with the names of the operands
        values: places and Python numbers, by name
        dtype: what is computed in
        result: of the text; None: dtype
    """
    operands: list[Place] = []
    texts: dict[str, str] = {}
    kind = c_type(dtype)
    for name, value in values.items():
        if f"{{{name}}}" not in template:
            continue
        if isinstance(value, Place):
            number = f"{{{len(operands)}}}"
            operands.append(value)
            if dtype is torch.bool and value.dtype is not torch.bool:
                texts[name] = f"({number} != 0)"
            elif value.dtype in (dtype, torch.bool):
                texts[name] = number
            else:
                texts[name] = f"({kind}){number}"
        elif isinstance(value, bool | int | float):
            texts[name] = f"({literal(value, dtype)})"
        else:
            raise Unsupported(f"an operand {value!r}")
    return operands, f"({c_type(result or dtype)})({in_type(template, dtype).format(**texts)})"


def in_type(template: str, dtype: torch.dtype) -> str:
    """The functions of a text, for a type."""
    wide = dtype is torch.float64
    text = template.replace("FN_", "d_" if wide else "f_").replace("TT", c_type(dtype))
    text = text.replace("SQRT", "__builtin_sqrt" if wide else "__builtin_sqrtf")
    while "LIB_" in text:
        before, _, rest = text.partition("LIB_")
        name, bracket, rest = rest.partition("(")
        text = f"{before}__builtin_{name}{'' if wide else 'f'}{bracket}{rest}"
    return text


def dims_of(dim: Any, x: Place) -> tuple[int, ...]:
    """Dimensions as numbers from 0; None or [] are all."""
    if dim is None or dim == []:
        return tuple(range(len(x.shape)))
    return tuple(sorted(d % max(len(x.shape), 1) for d in ([dim] if isinstance(dim, int) else dim)))


def count(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    """Elements that a reduction over these dimensions puts together."""
    return prod(shape[d] for d in dims if d < len(shape))


def with_ones(out: Place, rank: int, dims: tuple[int, ...]) -> Place:
    """A result with the dimensions that were reduced, as 1."""
    if len(out.shape) == rank:
        return out
    shape, stride = list(out.shape), list(out.stride)
    for d in dims:
        shape.insert(d, 1)
        stride.insert(d, 0)
    return replace(out, shape=tuple(shape), stride=tuple(stride))


def element(place: Place, indices: list[str]) -> str:
    """The offset of an element, as C text."""
    terms = [f"({i}) * {s}" for i, s, n in zip(indices, place.stride, place.shape, strict=True) if n > 1 or i[0] != "{"]
    return " + ".join([str(place.offset), *terms])
