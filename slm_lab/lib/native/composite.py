"""The collector of steps, and operations that are several steps in a row: softmax, losses."""

import itertools
from collections.abc import Iterable
from math import prod
from typing import Any

import torch

from slm_lab.lib.native.expressions import expression, in_type, with_ones
from slm_lab.lib.native.record import Place
from slm_lab.lib.native.steps import Point, Reduce, Step, Unsupported

SUM = ("0", "{acc} + {x}")
MAX = ("{x}", "({x} > {acc} || {x} != {x} ? {x} : {acc})")
MIN = ("{x}", "({x} < {acc} || {x} != {x} ? {x} : {acc})")


class Composite:
    """Collects steps; each method that begins with `op_` appends those of one ATen operation.

    Args:
        free: number from which on buffers can be had
    """

    def __init__(self, free: int) -> None:
        self.steps: list[Step] = []
        self._next = itertools.count(free)

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
        how: tuple[str, str] = SUM,
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

    # softmax

    def _along(self, x: Place, dim: int) -> tuple[tuple[int, ...], Place]:
        d = dim % max(len(x.shape), 1)
        return (d,), self.new((*x.shape[:d], 1, *x.shape[d + 1 :]), x.dtype)

    def op_log_softmax(self, outs: list[Place], dim: int, **given: Any) -> None:
        """`x - max - log(sum(exp(x - max)))`"""
        x = given["x"]
        dims, top = self._along(x, dim)
        total = self.new(top.shape, x.dtype)
        self.reduce(top, "{x}", {"x": x}, x.shape, dims, MAX)
        values = {"x": x, "top": top, "total": total}
        self.reduce(total, "FN_exp({x} - {top})", values, x.shape, dims, after="FN_log({acc})")
        self.point(outs[0], "{x} - {top} - {total}", values)

    def op_softmax(self, outs: list[Place], dim: int, **given: Any) -> None:
        """`exp(x - max) / sum(exp(x - max))`"""
        x = given["x"]
        dims, top = self._along(x, dim)
        total = self.new(top.shape, x.dtype)
        self.reduce(top, "{x}", {"x": x}, x.shape, dims, MAX)
        values = {"x": x, "top": top, "total": total}
        self.reduce(total, "FN_exp({x} - {top})", values, x.shape, dims)
        self.point(outs[0], "FN_exp({x} - {top}) / {total}", values)

    def op_log_softmax_backward_data(
        self, outs: list[Place], grad_output: Place, output: Place, dim: int, **_: Any
    ) -> None:
        """`g - exp(y) * sum(g)`"""
        dims, total = self._along(output, dim)
        values = {"g": grad_output, "y": output, "total": total}
        self.reduce(total, "{g}", {"g": grad_output}, output.shape, dims)
        self.point(outs[0], "{g} - FN_exp({y}) * {total}", values)

    def op_softmax_backward_data(
        self, outs: list[Place], grad_output: Place, output: Place, dim: int, **_: Any
    ) -> None:
        """`y * (g - sum(g * y))`"""
        dims, total = self._along(output, dim)
        values = {"g": grad_output, "y": output, "total": total}
        self.reduce(total, "{g} * {y}", {"g": grad_output, "y": output}, output.shape, dims)
        self.point(outs[0], "{y} * ({g} - {total})", values)

    # losses; reduction: 0 none, 1 mean, 2 sum

    def _loss(self, out: Place, text: str, values: dict[str, Any], reduction: int) -> None:
        x = values["x"]
        if reduction == 0:
            self.point(out, text, values)
        else:
            after = f"{{acc}} / {prod(x.shape)}" if reduction == 1 else "{acc}"
            self.reduce(out, text, values, x.shape, tuple(range(len(x.shape))), after=after)

    def _loss_backward(self, out: Place, text: str, values: dict[str, Any], reduction: int) -> None:
        share = f" / {prod(values['x'].shape)}" if reduction == 1 else ""
        self.point(out, f"{{grad_output}} * ({text}){share}", values)

    def op_mse_loss(self, outs: list[Place], target: Place, reduction: int, **given: Any) -> None:
        """`(x - y)^2`"""
        text = "({x} - {target}) * ({x} - {target})"
        self._loss(outs[0], text, {"x": given["x"], "target": target}, reduction)

    def op_mse_loss_backward(self, outs: list[Place], reduction: int, **given: Any) -> None:
        """`2 (x - y)`"""
        self._loss_backward(outs[0], "2 * ({x} - {target})", given, reduction)

    def op_smooth_l1_loss(self, outs: list[Place], reduction: int, **given: Any) -> None:
        """`d^2 / (2 beta)` where |d| < beta, `|d| - beta / 2` elsewhere."""
        d = "LIB_fabs({x} - {target})"
        text = f"({d} < {{beta}} ? (TT)0.5 * {d} * {d} / {{beta}} : {d} - (TT)0.5 * {{beta}})"
        self._loss(outs[0], text, given, reduction)

    def op_smooth_l1_loss_backward(self, outs: list[Place], reduction: int, **given: Any) -> None:
        """`d / beta` where |d| < beta, its sign elsewhere."""
        d = "({x} - {target})"
        text = f"({d} <= -{{beta}} ? (TT)-1 : {d} >= {{beta}} ? (TT)1 : {d} / {{beta}})"
        self._loss_backward(outs[0], text, given, reduction)

    def op_huber_loss(self, outs: list[Place], reduction: int, **given: Any) -> None:
        """`d^2 / 2` where |d| < delta, `delta (|d| - delta / 2)` elsewhere."""
        d = "LIB_fabs({x} - {target})"
        text = f"({d} < {{delta}} ? (TT)0.5 * {d} * {d} : {{delta}} * ({d} - (TT)0.5 * {{delta}}))"
        self._loss(outs[0], text, given, reduction)

    def op_huber_loss_backward(self, outs: list[Place], reduction: int, **given: Any) -> None:
        """`d` where |d| < delta, `delta` with its sign elsewhere."""
        d = "({x} - {target})"
        text = f"({d} <= -{{delta}} ? -{{delta}} : {d} >= {{delta}} ? {{delta}} : {d})"
        self._loss_backward(outs[0], text, given, reduction)
