"""The few kinds of steps that operations become, and C text for numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from slm_lab.lib.native.record import Place

C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "i64",
    torch.int32: "int",
    torch.bool: "u8",
    torch.uint8: "u8",
}


class Unsupported(Exception):
    """The graph holds something that this compiler does not know; the message is one line."""


def c_type(dtype: torch.dtype) -> str:
    """The type in C of an element."""
    if dtype not in C_TYPES:
        raise Unsupported(f"tensors of {dtype}")
    return C_TYPES[dtype]


def literal(value: float, dtype: torch.dtype) -> str:
    """A Python number as C text of a type.

    >>> literal(0.1, torch.float32), literal(2, torch.int64), literal(float("-inf"), torch.float32)
    ('0.1f', '2', '-__builtin_inff()')
    """
    if not dtype.is_floating_point:
        return str(int(value))
    suffix = "f" if dtype is torch.float32 else ""
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}__builtin_inf{suffix}()"
    if math.isnan(value):
        return f'__builtin_nan{suffix}("")'
    text = repr(float(value))
    return f"{text if '.' in text or 'e' in text else text + '.0'}{suffix}"


@dataclass
class Elementwise:
    """One result, from operands of which each element is looked at by itself."""

    out: Place
    operands: list[Place]

    @property
    def reads(self) -> Sequence[Place]:
        """The operands."""
        return self.operands

    @property
    def writes(self) -> Sequence[Place]:
        """The result."""
        return [self.out]


@dataclass
class Point(Elementwise):
    """`out[i] = expr(operands[i])` for each element i; operands are broadcast to the shape of out."""

    expr: str
    """C text with {0}, {1} ... for the operands, each in its own type."""


@dataclass
class Reduce(Elementwise):
    """`out[k] = after(combine over r of expr(operands[k, r]))`; out keeps the reduced dimensions, as 1."""

    shape: tuple[int, ...]
    """Of what is reduced; operands are broadcast to it."""
    dims: tuple[int, ...]
    expr: str
    start: str
    combine: str
    """C text with {acc} and {x}."""
    after: str = "{acc}"


@dataclass
class Product:
    """`out[m, n] = init + sum_k a[m, k] b[k, n]`, for each of a leading dimension where there are three."""

    out: Place
    a: Place
    b: Place
    init: Place | None = None

    @property
    def reads(self) -> Sequence[Place]:
        """Factors and what they are added to."""
        return [self.a, self.b, *([] if self.init is None else [self.init])]

    @property
    def writes(self) -> Sequence[Place]:
        """The product."""
        return [self.out]


@dataclass
class Loop:
    """A loop over all elements of a shape with a body of its own: what looks up or scatters."""

    shape: tuple[int, ...]
    body: str
    """C text with {i0}, {i1} ... for the indices."""
    reads: list[Place]
    """{r0}, {r1} ..."""
    writes: list[Place]
    """{w0} ..."""


Step = Point | Reduce | Product | Loop
"""Something that is done; `reads` is what it looks at, `writes` what it changes."""
