"""Recurrent cells through time: the equations of one step, their derivatives, and a whole sequence of steps.

The equations, and the order of the gates in the weights, are those of torch.nn. A cell gets `x = W_ih input + b_ih` and
`g = W h + b`, both made outside: the first is one matrix product for a whole sequence. The derivatives are written
out, and not left to autograd, so that the gradient of W too is one product for the sequence in place of one a step;
eager steps are faster then, and graphs of half the size compile in half the time.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

Parts = tuple[Tensor, ...]


class Cell(Protocol):
    """One kind of cell. A state is `STATES` vectors of width H side by side, the first of them h."""

    GATES: int
    """Rows of W, in units of H."""
    STATES: int
    """Width of the state, in units of H."""

    @staticmethod
    def step(x: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Parts]:
        """[B, GATES H], [B, GATES H], [B, STATES H] -> the next state, and what `back` needs."""
        ...

    @staticmethod
    def back(grad: Tensor, saved: Parts) -> tuple[Tensor, Tensor, Tensor | None]:
        """The gradient of the next state -> those of x, of g, and of the state beside the way through g (None: 0)."""
        ...


class RNNCell:
    """`h' = tanh(x + g)`. Elman 1990.

    >>> RNNCell.step(torch.ones(1, 1), torch.full((1, 1), -1.0), torch.ones(1, 1))[0]
    tensor([[0.]])
    """

    GATES = 1
    STATES = 1

    @staticmethod
    def step(x: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Parts]:
        """[B, H] each -> h'"""
        h = torch.tanh(x + g)
        return h, (h,)

    @staticmethod
    def back(grad: Tensor, saved: Parts) -> tuple[Tensor, Tensor, Tensor | None]:
        """`dx = dg = dh' (1 - h'^2)`"""
        (h,) = saved
        dx = grad * (1 - h * h)
        return dx, dx, None


class GRUCell:
    """Gated recurrent unit: gates decide how much of the old state enters the candidate, and how much is kept.

    `r = sigmoid(x_r + g_r)`, `z = sigmoid(x_z + g_z)`, `n = tanh(x_n + r g_n)`, `h' = (1 - z) n + z h`.
    Cho et al. 2014, arXiv:1406.1078.

    >>> GRUCell.step(torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 1))[0]
    tensor([[0.5000]])
    """

    GATES = 3
    STATES = 1

    @staticmethod
    def step(x: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Parts]:
        """[B, 3 H] (reset gate r, update gate z, new state n), [B, 3 H], [B, H] -> h'"""
        (x_r, x_z, x_n), (g_r, g_z, g_n) = x.chunk(3, -1), g.chunk(3, -1)
        r, z = torch.sigmoid(x_r + g_r), torch.sigmoid(x_z + g_z)
        n = torch.tanh(x_n + r * g_n)
        return n + z * (state - n), (r, z, n, g_n, state)

    @staticmethod
    def back(grad: Tensor, saved: Parts) -> tuple[Tensor, Tensor, Tensor | None]:
        """`dn = dh' (1 - z) (1 - n^2)`, `dz = dh' (h - n) z (1 - z)`, `dr = dn g_n r (1 - r)`; `dh = dh' z`."""
        r, z, n, g_n, h = saved
        kept = grad * z
        dn = (grad - kept) * (1 - n * n)
        dz = kept * (h - n) * (1 - z)
        dg_n = dn * r
        dr = dg_n * g_n * (1 - r)
        return torch.cat([dr, dz, dn], -1), torch.cat([dr, dz, dg_n], -1), kept


class LSTMCell:
    """Long short-term memory: a content c that gates write to, keep and show.

    `i, f, o = sigmoid(x + g)` and `n = tanh(x + g)`, each of its part; `c' = f c + i n`, `h' = o tanh(c')`.
    Hochreiter and Schmidhuber 1997; the forget gate f is of Gers et al. 2000.

    >>> LSTMCell.step(torch.zeros(1, 4), torch.zeros(1, 4), torch.ones(1, 2))[0]
    tensor([[0.2311, 0.5000]])
    """

    GATES = 4
    STATES = 2

    @staticmethod
    def step(x: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Parts]:
        """[B, 4 H] (input gate i, forget gate f, new content n, output gate o), [B, 4 H], [B, 2 H] -> h', c'"""
        c = state.chunk(2, -1)[1]
        i, f, n, o = (x + g).chunk(4, -1)
        i, f, n, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(n), torch.sigmoid(o)
        new = f * c + i * n
        shown = torch.tanh(new)
        return torch.cat([o * shown, new], -1), (i, f, n, o, c, shown)

    @staticmethod
    def back(grad: Tensor, saved: Parts) -> tuple[Tensor, Tensor, Tensor | None]:
        """With `d = dc' + dh' o (1 - tanh(c')^2)`: `dc = d f`, and of the gates the derivatives of their products."""
        i, f, n, o, c, shown = saved
        dh, dc = grad.chunk(2, -1)
        do = dh * o
        dc = dc + do * (1 - shown * shown)
        kept, new = dc * f, dc * i
        parts = [new * n * (1 - i), kept * c * (1 - f), new * (1 - n * n), do * shown * (1 - o)]
        dx = torch.cat(parts, -1)
        return dx, dx, torch.cat([torch.zeros_like(kept), kept], -1)


CELLS: dict[str, type[Cell]] = {"GRU": GRUCell, "LSTM": LSTMCell, "RNN": RNNCell}
"""By the name that a spec gives them."""


class _ThroughTime(torch.autograd.Function):
    """`through_time`, with its gradient: Werbos 1990, Proceedings of the IEEE 78(10)."""

    @staticmethod
    def forward(
        ctx: Any, cell: type[Cell], x: Tensor, keep: Tensor | None, state: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        size = weight.shape[-1]
        keeps: Sequence[Tensor | None] = [None] * len(x) if keep is None else keep.unbind()
        states, before, saved = [], [], []
        for part, k in zip(x.unbind(), keeps, strict=True):
            start = state if k is None else state * k
            h = start if cell.STATES == 1 else start[:, :size]
            state, wanted = cell.step(part, linear(h, weight, bias), start)
            states.append(state)
            before.append(h)
            saved.append(wanted)
        ctx.cell, ctx.steps, ctx.resets = cell, len(x), keep is not None
        flat = [t for wanted in saved for t in wanted]
        ctx.save_for_backward(weight, *([] if keep is None else [keep]), *before, *flat)
        return torch.stack(states)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cell, steps = ctx.cell, ctx.steps
        weight, *rest = ctx.saved_tensors
        keeps: Sequence[Tensor | None] = rest.pop(0).unbind() if ctx.resets else [None] * steps
        before, flat = rest[:steps], rest[steps:]
        each = len(flat) // steps
        grad, dxs, dgs = None, [], []
        for t, from_above in reversed(list(enumerate(grads[0].unbind()))):
            grad = from_above if grad is None else grad + from_above
            dx, dg, beside = cell.back(grad, tuple(flat[t * each : (t + 1) * each]))
            grad = dg @ weight
            if beside is not None:
                # of an LSTM only h goes through the weights
                rest_of_state = beside.shape[-1] - grad.shape[-1]
                grad = beside + torch.nn.functional.pad(grad, (0, rest_of_state)) if rest_of_state else beside + grad
            k = keeps[t]
            if k is not None:
                grad = grad * k
            dxs.append(dx)
            dgs.append(dg)
        all_dg = torch.cat(dgs[::-1])
        return None, torch.stack(dxs[::-1]), None, grad, all_dg.T @ torch.cat(before), all_dg.sum(0)


def through_time(
    cell: type[Cell], x: Tensor, keep: Tensor | None, state: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """All states of a sequence: `state_t = step(x_t, W h + b, keep_t state_{t-1})`.

    Args:
        cell: one of CELLS
        x: [L, S, GATES H]
        keep: [L, S, 1], 0 where the state is forgotten before the step, else 1; None: ones
        state: [S, STATES H] before the first step
        weight: W, [GATES H, H]
        bias: b, [GATES H]

    Returns:
        [L, S, STATES H]; with gradients with respect to x, state, weight and bias

    >>> x, one = torch.zeros(3, 1, 1), torch.ones(1, 1)
    >>> through_time(RNNCell, x, torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1), one, one, torch.zeros(1)).flatten()
    tensor([0.7616, 0.6420, 0.0000])
    """
    states: Tensor = _ThroughTime.apply(cell, x, keep, state, weight, bias)
    return states
