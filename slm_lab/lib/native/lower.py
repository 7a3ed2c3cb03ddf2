"""ATen operations, one after the other, as steps."""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import Any

import torch

from slm_lab.lib.native.expressions import common_type, count, dims_of, element, expression, in_type, with_ones
from slm_lab.lib.native.pointwise import COMPARE, LOSSES, POINTWISE, REDUCE
from slm_lab.lib.native.record import Operation, Place, Recording
from slm_lab.lib.native.steps import Loop, Point, Product, Reduce, Step, Unsupported, c_type


def lower(recording: Recording) -> list[Step]:
    """The steps of a recording.

    Raises:
        Unsupported: an operation, or a type of elements, that is not known here
    """
    return Lowering(recording).steps


class Lowering:
    """Collects steps; each method that begins with `op_` appends those of one ATen operation."""

    def __init__(self, recording: Recording) -> None:
        self.steps: list[Step] = []
        places = [*recording.inputs, *(o for op in recording.operations for o in op.outs)]
        known = {p.buffer for p in recording.inputs} | set(recording.constants)
        self._next = itertools.count(max((p.buffer for p in places), default=0) + 1)
        """Numbers of buffers that can be had."""
        for op in recording.operations:
            outs = {o.buffer for o in op.outs}
            # what shares memory with something known, and writes nothing, is a view; nothing is to be done for nothing
            if op.func._schema.is_mutable or not (outs <= known or all(0 in o.shape for o in op.outs)):
                self._one(op)
            known |= outs

    def _one(self, op: Operation) -> None:
        schema = op.func._schema
        name = schema.name.removeprefix("aten::")
        if schema.is_mutable:
            if not name.endswith("_") or len(op.outs) != 1:
                raise Unsupported(f"the operation {op.func}")
            name = name[:-1]
        given = dict(zip((a.name for a in schema.arguments), op.args, strict=False)) | op.kwargs
        values = {a.name: given.get(a.name, a.default_value) for a in schema.arguments}
        if name in COMPARE:
            self.point(op.outs[0], f"({{self}} {COMPARE[name]} {{other}})", values, common_type(values.values()))
        elif name in POINTWISE and not (name == "div" and values.get("rounding_mode")):
            self.point(op.outs[0], POINTWISE[name], values)
        elif name in REDUCE:
            x = values["self"]
            self.reduce(op.outs[0], "{self}", values, x.shape, dims_of(values.get("dim"), x), REDUCE[name])
        elif name in LOSSES:
            self._loss(op.outs[0], name, values)
        elif (method := getattr(self, f"op_{name.lstrip('_')}", None)) is not None:
            method(op.outs, **{"x" if k == "self" else k: v for k, v in values.items()})
        else:
            raise Unsupported(f"the operation {op.func}")

    def new(self, shape: Iterable[int], dtype: torch.dtype) -> Place:
        """Memory for something in between."""
        shape = tuple(shape)
        strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
        return Place(next(self._next), 0, shape, tuple(strides), dtype)

    def point(self, out: Place, template: str, values: dict[str, Any], dtype: torch.dtype | None = None) -> None:
        """Append an elementwise step, computed in a type (None: that of the result)."""
        # a bool by way of a float is miscompiled by GCC 12, where it is the mask of a selection in an unrolled loop
        operands, expr = expression(template, values, dtype or out.dtype, out.dtype)
        self.steps.append(Point(out, operands, expr))

    def reduce(
        self,
        out: Place,
        template: str,
        values: dict[str, Any],
        shape: tuple[int, ...],
        dims: tuple[int, ...],
        how: tuple[str, str] = REDUCE["sum"],
        after: str = "{acc}",
    ) -> None:
        """Append a reduction over dims of the shape; out has them as 1, or not at all."""
        if len(out.shape) != len(shape):
            out = with_ones(out, len(shape), dims)
        if not prod(shape):
            raise Unsupported("a reduction over nothing")
        operands, expr = expression(template, values, out.dtype)
        start, combine = how
        self.steps.append(Reduce(out, operands, shape, dims, expr, start, combine, in_type(after, out.dtype)))

    # elementwise operations that are more than a text

    def op_pow(self, outs: list[Place], x: Any, exponent: Any) -> None:
        """By multiplication where the exponent is small and whole."""
        values = {"x": x, "exponent": exponent}
        if exponent in (1, 2, 3):
            self.point(outs[0], " * ".join(["{x}"] * int(exponent)), values)
        elif exponent == 0.5:
            self.point(outs[0], "SQRT({x})", values)
        else:
            self.point(outs[0], "LIB_pow({x}, {exponent})", values)

    def op_clamp(self, outs: list[Place], min: Any = None, max: Any = None, **given: Any) -> None:
        """Between bounds, of which one may be missing; what is not a number stays so."""
        text = "{x}"
        if min is not None:
            text = f"({text} < {{min}} ? {{min}} : {text})"
        if max is not None:
            text = f"({text} > {{max}} ? {{max}} : {text})"
        self.point(outs[0], text, {"x": given["x"], "min": min, "max": max})

    def op_bitwise_not(self, outs: list[Place], **given: Any) -> None:
        """Of bools: not."""
        self.point(outs[0], "!{x}" if outs[0].dtype is torch.bool else "~{x}", given)

    def op_arange(self, outs: list[Place], end: Any, start: Any = 0, step: Any = 1, **_: Any) -> None:
        """A ladder."""
        out, kind = outs[0], c_type(outs[0].dtype)
        body = f"{{w0}}[{element(out, ['{i0}'])}] = ({kind}){start} + ({kind})({{i0}}) * ({kind}){step};"
        self.steps.append(Loop(out.shape, body, [], [out]))

    def op_empty(self, outs: list[Place], **_: Any) -> None:
        """Nothing to do."""

    op_empty_like = op_new_empty = op_empty_strided = op_new_empty_strided = op_empty

    # reductions

    def op_mean(self, outs: list[Place], dim: Any = None, keepdim: bool = False, **given: Any) -> None:
        """The sum, divided."""
        x = given["x"]
        dims = dims_of(dim, x)
        self.reduce(outs[0], "{x}", given, x.shape, dims, after=f"{{acc}} / {count(x.shape, dims)}")

    def op_linalg_vector_norm(
        self, outs: list[Place], ord: Any = 2, dim: Any = None, keepdim: bool = False, **given: Any
    ) -> None:
        """Euclidean."""
        if ord != 2:
            raise Unsupported(f"the norm of order {ord}")
        x = given["x"]
        values = {"x": x}
        self.reduce(outs[0], "{x} * {x}", values, x.shape, dims_of(dim, x), after="SQRT({acc})")

    def _moments(
        self, x: Place, dims: tuple[int, ...], correction: Any, mean: Place, spread: Place, after: str
    ) -> None:
        """Mean and variance, or what `after` makes of it: {acc} is the variance."""
        n = count(x.shape, dims)
        free = n - (1 if correction is None else correction)
        mean = with_ones(mean, len(x.shape), dims)
        self.reduce(mean, "{x}", {"x": x}, x.shape, dims, after=f"{{acc}} / {n}")
        text, values = "({x} - {mean}) * ({x} - {mean})", {"x": x, "mean": mean}
        self.reduce(spread, text, values, x.shape, dims, after=after.replace("{acc}", f"({{acc}} / (TT){free})"))

    def op_var_mean(self, outs: list[Place], dim: Any = None, correction: Any = None, **given: Any) -> None:
        """Variance and mean."""
        x = given["x"]
        self._moments(x, dims_of(dim, x), correction, outs[1], outs[0], "{acc}")

    def op_std_mean(self, outs: list[Place], dim: Any = None, correction: Any = None, **given: Any) -> None:
        """Standard deviation and mean."""
        x = given["x"]
        self._moments(x, dims_of(dim, x), correction, outs[1], outs[0], "SQRT({acc})")

    def op_argmax(self, outs: list[Place], dim: Any = None, keepdim: bool = False, **given: Any) -> None:
        """The first of the largest along one dimension."""
        x, out = given["x"], outs[0]
        if dim is None:
            raise Unsupported("argmax over all elements")
        d = dim % len(x.shape)
        out = out if len(out.shape) == len(x.shape) else with_ones(out, len(x.shape), (d,))
        names = [f"{{i{i}}}" for i in range(len(x.shape))]
        here, first = ([*names[:d], at, *names[d + 1 :]] for at in ("k", "0"))
        kind, value = c_type(x.dtype), f"{{r0}}[{element(x, here)}]"
        body = (
            f"{kind} best = {{r0}}[{element(x, first)}]; i64 at = 0; "
            f"for (i64 k = 1; k < {x.shape[d]}; k++) {{{{ {kind} v = {value}; "
            f"bool more = v > best || (v != v && best == best); best = more ? v : best; at = more ? k : at; }}}} "
            f"{{w0}}[{element(out, names)}] = at;"
        )
        self.steps.append(Loop(out.shape, body, [x], [out]))

    # softmax, losses

    def _along(self, x: Place, dim: int) -> tuple[tuple[int, ...], Place]:
        d = dim % max(len(x.shape), 1)
        return (d,), self.new((*x.shape[:d], 1, *x.shape[d + 1 :]), x.dtype)

    def _softmax(self, out: Place, x: Place, dim: int, after: str, text: str) -> None:
        """{top} is the largest, {total} what `after` makes of `sum(exp(x - max))`."""
        dims, top = self._along(x, dim)
        values = {"x": x, "top": top, "total": self.new(top.shape, x.dtype)}
        self.reduce(top, "{x}", values, x.shape, dims, REDUCE["amax"])
        self.reduce(values["total"], "FN_exp({x} - {top})", values, x.shape, dims, after=after)
        self.point(out, text, values)

    def op_log_softmax(self, outs: list[Place], dim: int, **given: Any) -> None:
        """`x - max - log(sum(exp(x - max)))`"""
        self._softmax(outs[0], given["x"], dim, "FN_log({acc})", "{x} - {top} - {total}")

    def op_softmax(self, outs: list[Place], dim: int, **given: Any) -> None:
        """`exp(x - max) / sum(exp(x - max))`"""
        self._softmax(outs[0], given["x"], dim, "{acc}", "FN_exp({x} - {top}) / {total}")

    def _softmax_backward(self, out: Place, given: dict[str, Any], dim: int, summed: str, text: str) -> None:
        y = given["output"]
        dims, total = self._along(y, dim)
        values = {"g": given["grad_output"], "y": y, "total": total}
        self.reduce(total, summed, values, y.shape, dims)
        self.point(out, text, values)

    def op_log_softmax_backward_data(self, outs: list[Place], dim: int, **given: Any) -> None:
        """`g - exp(y) * sum(g)`"""
        self._softmax_backward(outs[0], given, dim, "{g}", "{g} - FN_exp({y}) * {total}")

    def op_softmax_backward_data(self, outs: list[Place], dim: int, **given: Any) -> None:
        """`y * (g - sum(g * y))`"""
        self._softmax_backward(outs[0], given, dim, "{g} * {y}", "{y} * ({g} - {total})")

    def _loss(self, out: Place, name: str, values: dict[str, Any]) -> None:
        """One of LOSSES; reduction: 0 none, 1 mean, 2 sum."""
        text, x, reduction = LOSSES[name], values["self"], values["reduction"]
        share = f" / {prod(x.shape)}" if reduction == 1 else ""
        if name.endswith("backward"):
            self.point(out, f"{{grad_output}} * ({text}){share}", values)
        elif reduction == 0:
            self.point(out, text, values)
        else:
            self.reduce(out, text, values, x.shape, tuple(range(len(x.shape))), after=f"{{acc}}{share}")

    # putting together, looking up

    def op_cat(self, outs: list[Place], tensors: list[Place], dim: int = 0) -> None:
        """One behind the other."""
        out, begin = outs[0], 0
        d = dim % len(out.shape)
        for x in tensors:
            if x.shape == (0,):
                continue
            at = replace(out, offset=out.offset + begin * out.stride[d], shape=x.shape)
            self.point(at, "{x}", {"x": x})
            begin += x.shape[d]

    def op_stack(self, outs: list[Place], tensors: list[Place], dim: int = 0) -> None:
        """Side by side along a new dimension."""
        out = outs[0]
        d = dim % len(out.shape)
        for i, x in enumerate(tensors):
            stride = out.stride[:d] + out.stride[d + 1 :]
            at = Place(out.buffer, out.offset + i * out.stride[d], x.shape, stride, out.dtype)
            self.point(at, "{x}", {"x": x})

    def op_slice_backward(
        self, outs: list[Place], grad_output: Place, dim: int, start: int, step: int, **_: Any
    ) -> None:
        """Zeros, but for a slice."""
        out = outs[0]
        start = start + out.shape[dim] if start < 0 else start
        stride = (*out.stride[:dim], out.stride[dim] * step, *out.stride[dim + 1 :])
        offset = out.offset + start * out.stride[dim]
        self.point(out, "0", {})
        self.point(Place(out.buffer, offset, grad_output.shape, stride, out.dtype), "{g}", {"g": grad_output})

    def op_select_backward(self, outs: list[Place], grad_output: Place, dim: int, index: int, **_: Any) -> None:
        """Zeros, but for one index."""
        out = outs[0]
        dim, index = dim % len(out.shape), index % out.shape[dim]
        stride = out.stride[:dim] + out.stride[dim + 1 :]
        at = Place(out.buffer, out.offset + index * out.stride[dim], grad_output.shape, stride, out.dtype)
        self.point(out, "0", {})
        self.point(at, "{g}", {"g": grad_output})

    def _look_up(self, out: Place, x: Place, dim: int, index: Place, *, rows: bool) -> None:
        names = [f"{{i{i}}}" for i in range(len(out.shape))]
        d = dim % len(out.shape)
        source = [*names]
        source[d] = f"{{r1}}[{element(index, [names[d]] if rows else names)}]"
        body = f"{{w0}}[{element(out, names)}] = {{r0}}[{element(x, source)}];"
        self.steps.append(Loop(out.shape, body, [x, index], [out]))

    def op_index_select(self, outs: list[Place], dim: int, index: Place, **given: Any) -> None:
        """Rows by number."""
        self._look_up(outs[0], given["x"], dim, index, rows=True)

    def op_gather(self, outs: list[Place], dim: int, index: Place, **given: Any) -> None:
        """One element of each row, by number."""
        self._look_up(outs[0], given["x"], dim, index, rows=False)

    def op_scatter_add(self, outs: list[Place], dim: int, index: Place, src: Place, **given: Any) -> None:
        """Added to one element of each row."""
        out = outs[0]
        if given["x"] != out:
            self.point(out, "{x}", {"x": given["x"]})
        names = [f"{{i{i}}}" for i in range(len(index.shape))]
        to = [*names]
        to[dim % len(out.shape)] = f"{{r1}}[{element(index, names)}]"
        body = f"{{w0}}[{element(out, to)}] += {{r0}}[{element(src, names)}];"
        self.steps.append(Loop(index.shape, body, [src, index, out], [out]))

    # products

    def op_mm(self, outs: list[Place], mat2: Place, **given: Any) -> None:
        """A matrix product; of three dimensions several, side by side."""
        self._product(outs[0], given["x"], mat2)

    op_bmm = op_mm

    def op_addmm(self, outs: list[Place], mat1: Place, mat2: Place, beta: Any, alpha: Any, **given: Any) -> None:
        """A matrix product and something added."""
        if beta != 1 or alpha != 1:
            raise Unsupported("a scaled matrix product")
        self._product(outs[0], mat1, mat2, given["x"])

    op_baddbmm = op_addmm

    def _product(self, out: Place, a: Place, b: Place, init: Place | None = None) -> None:
        if any(p.dtype is not torch.float32 for p in (out, a, b)):
            raise Unsupported(f"matrix products of {a.dtype}")
        row = (
            init if init is not None and len(init.shape) == 1 and len(out.shape) == 2 and init.stride == (1,) else None
        )
        self.steps.append(Product(out, a, b, row))
        if init is not None and row is None:
            self.point(out, "{out} + {init}", {"out": out, "init": init})
