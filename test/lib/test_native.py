"""The compiler for small graphs: what it makes of a function gives what the function gives."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from slm_lab.lib import compile as door
from slm_lab.lib.compile import Called, CompileError, compile_function
from slm_lab.lib.native.build import Native
from slm_lab.lib.native.emit import emit
from slm_lab.lib.native.fuse import fuse
from slm_lab.lib.native.lower import lower
from slm_lab.lib.native.record import record
from slm_lab.lib.native.steps import Point, Unsupported

pytestmark = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")


def check(fn: Callable[..., tuple[Tensor, ...]], args: Sequence[Tensor], tol: float = 1e-6) -> None:
    """Results and changed arguments are equal."""
    ours, theirs = [t.clone() for t in args], [t.clone() for t in args]
    run = compile_function(fn, args, quick=True)
    assert isinstance(run, Native)
    found, wanted = run(*ours), fn(*theirs)
    assert len(found) == len(wanted)
    for a, b in zip((*found, *ours), (*wanted, *theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol, equal_nan=True)


def test_functions_of_single_elements() -> None:
    def fn(x: Tensor, y: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        p = x.abs() + 0.1
        floats = [x + y, x - 2 * y, 3 - x, x * y, x / p, -x, p.reciprocal(), p.sqrt(), p.rsqrt(), x.exp(), x.expm1()]
        floats += [p.log(), p.log1p(), x.tanh(), x.sigmoid(), x.sin(), x.cos(), torch.atan2(x, y), x.floor(), x.round()]
        floats += [x.remainder(0.7), x.fmod(0.7), x.sign(), F.relu(x), F.leaky_relu(x), F.elu(x), F.silu(x)]
        floats += [F.softplus(x), torch.minimum(x, y), torch.maximum(x, y), x.lerp(y, 0.3), x.lerp(y, 0.9), x**2, x**3]
        floats += [p**0.5, p**1.7, 0.9**x, x.clamp(-0.5, 0.5), x.clamp(min=0), x.clamp(max=y), x.square()]
        bools = [x < y, x <= 0, x > y, x >= 0.5, x == y, x != y, n == 2, (x > 0) & (y > 0), (x > 0) | ~(y > 0)]
        mixed = [torch.where(x > 0, x, y), x.masked_fill(y > 0, 7.0), x + n, n + 1, n * n, (x > 0).float(), x.long()]
        return (*floats, *bools, *mixed, x.double() * 2, torch.logical_xor(x > 0, y > 0))

    torch.manual_seed(0)
    check(fn, [torch.randn(5, 7) * 2, torch.randn(5, 7), torch.randint(-3, 4, (5, 7))], 2e-6)


def test_the_ends_of_the_number_line() -> None:
    """Overflow, underflow and what is no number give what torch gives: a loss that is not finite must be seen."""
    inf, nan = float("inf"), float("nan")
    x = torch.tensor(
        [0.0, -0.0, 1e-30, -1e-30, 88.0, 89.5, -88.0, -103.0, -120.0, 1e30, -1e30, inf, -inf, nan, 1.0, -1.0]
    )

    def fn(x: Tensor) -> tuple[Tensor, ...]:
        one = torch.ones_like(x)
        kept = [
            x.clamp(-1, 1),
            torch.minimum(x, one),
            torch.maximum(one, x),
            F.relu(x),
            x.sum(),
            x.amax(),
            x * 2 - x * 2,
        ]
        return (x.exp(), x.log(), x.tanh(), x.sigmoid(), x.log1p(), F.softplus(x), x.expm1(), *kept)

    check(fn, [x])


def test_sums_and_what_is_like_them() -> None:
    def fn(x: Tensor, small: Tensor) -> tuple[Tensor, ...]:
        rows = [
            x.sum(),
            x.sum(0),
            x.sum(-1),
            x.sum((0, 2)),
            x.sum(1, keepdim=True),
            x.mean(),
            x.mean(0),
            x.mean((1, 2)),
        ]
        rows += [x.amax(-1), x.amin(0), x.sum(2), torch.linalg.vector_norm(x)]
        rows += [*torch.std_mean(x), *torch.var_mean(x, 0), *torch.var_mean(x, (0, 1), correction=0)]
        rows += [(x > 0).any(1), (x > -9).all(), x.argmax(-1), x.argmax(1), small.argmax(-1), small.softmax(-1)]
        rows += [small.log_softmax(-1), x.log_softmax(0), small.amax(-1, keepdim=True), small.sum(-1)]
        return tuple(rows)

    torch.manual_seed(0)
    check(fn, [torch.randn(6, 5, 20), torch.randn(33, 3)], 5e-6)


@pytest.mark.parametrize(
    ("m", "k", "n"), [(64, 64, 64), (1, 5, 3), (4, 64, 64), (64, 64, 1), (64, 4, 64), (17, 33, 50), (3, 3, 130)]
)
def test_products(m: int, k: int, n: int) -> None:
    def fn(x: Tensor, w: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        y = torch.addmm(b, x, w.t())
        return y, g @ w, g.t() @ x, x @ w.t(), (w @ x.t()).t(), torch.addmm(g, x, w.t())

    torch.manual_seed(0)
    check(fn, [torch.randn(m, k), torch.randn(n, k), torch.randn(n), torch.randn(m, n)], 2e-5)


def test_products_side_by_side() -> None:
    def fn(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return torch.bmm(x, w), torch.bmm(w.transpose(1, 2), x.transpose(1, 2))

    check(fn, [torch.randn(2, 7, 5), torch.randn(2, 5, 19)], 2e-5)


def test_putting_together_and_looking_up() -> None:
    def fn(x: Tensor, i: Tensor, place: Tensor) -> tuple[Tensor, ...]:
        joined = [
            torch.cat([x, x * 2]),
            torch.cat([x[:, :1], x], 1),
            torch.stack([x[0], x[1] + 1]),
            torch.stack([x, x], -1),
        ]
        looked = [
            x.index_select(0, i),
            x.index_select(1, i),
            x.gather(1, place),
            x[1:3].t(),
            x[:, None].expand(4, 2, 6),
        ]
        added = torch.zeros_like(x).scatter_add(1, place, x[:, :1])
        return (*joined, *looked, added, x.view(-1)[3:9].clone(), torch.arange(5), torch.full((2, 3), 4.0))

    check(fn, [torch.randn(4, 6), torch.tensor([2, 0, 2]), torch.tensor([[5], [0], [1], [1]])])


@pytest.mark.parametrize("loss", [F.mse_loss, F.smooth_l1_loss, F.huber_loss])
@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
def test_losses_forward_and_backward(loss: Callable[..., Tensor], reduction: str) -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = loss(leaf, y, reduction=reduction)
            return value.detach(), *torch.autograd.grad(value.sum(), [leaf])

    check(fn, [torch.randn(9) * 2, torch.randn(9)])


def test_gradients_of_a_net() -> None:
    def fn(x: Tensor, w: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in (w, v)]
            h = F.leaky_relu(torch.tanh(x @ leaves[0].t())) + F.silu(x @ leaves[0].t())
            log_p = (h @ leaves[1].t()).log_softmax(-1)
            taken = log_p.gather(-1, a.unsqueeze(-1)).squeeze(-1)
            entropy = -(log_p.exp() * log_p).sum(-1)
            first, second = h[:, ::2].mean(), h[:, 3].sum()
            loss = -(taken.clamp(-2, 2) * 2).mean() - entropy.mean() + F.softplus(first) + second.sigmoid()
            return torch.autograd.grad(loss, leaves)

    torch.manual_seed(0)
    args = [torch.randn(10, 3), torch.randn(12, 3), torch.randn(2, 12), torch.randint(2, (10,))]
    check(fn, args, 1e-5)


def test_changes_in_place_are_seen_in_their_order() -> None:
    """A loop that joins steps must not read what a later element's step has written, nor lose a change of a part."""

    def fn(x: Tensor, total: Tensor) -> tuple[Tensor, ...]:
        y = x + 1
        x.mul_(2)  # the same elements
        z = x + y
        shifted = x[1:] - x[:-1]  # neighbours: after the change
        x[0] = 5.0  # a part
        w = x * 1
        total.add_(w.sum())
        x.t().copy_((w + total).t())  # another order of the same memory
        return y, z, shifted, w, x * total

    check(fn, [torch.randn(6, 6), torch.tensor(1.0)], 1e-5)


def test_a_step_moves_up_only_past_what_does_not_touch_it() -> None:
    def fn(x: Tensor) -> tuple[Tensor, ...]:
        a = x + 1
        s = a.sum()
        b = a * 3  # joins the loop of a, though the sum stands between
        c = b + s  # has to wait for the sum
        return b, c

    groups = fuse(lower(record(fn, [torch.ones(4)])), {p.buffer for p in record(fn, [torch.ones(4)]).outputs})
    loops = [[s for s in g.steps if isinstance(s, Point)] for g in groups if g.shape is not None]
    assert [len(steps) for steps in loops] == [2, 1]
    check(fn, [torch.ones(4)])


def test_what_serves_nothing_is_not_computed() -> None:
    def fn(x: Tensor, unused: Tensor) -> tuple[Tensor, ...]:
        _ = unused.exp().sum()
        return (x + 1,)

    assert "f_exp(" not in emit(record(fn, [torch.ones(3), torch.ones(3)])).source.partition("void once")[2]


def test_many_calls_as_one() -> None:
    def fn(state: Tensor, x: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
        state.mul_(0.5).add_(x)
        seen.copy_(state * 2)
        return (state.sum(),)

    rows, seen = torch.randn(5, 3), torch.zeros(5, 3)
    native, plain = compile_function(fn, [torch.zeros(3), rows[0], seen[0]], quick=True), Called(fn)
    results = []
    for run in (native, plain):
        state, seen = torch.zeros(3), torch.zeros(5, 3)
        (sums,) = run.loop([state, rows[0], seen[0]], {1: rows, 2: seen}, 5)
        results.append((state, seen, sums))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert results[0][2].shape == (5,)


def test_what_it_does_not_know_goes_to_the_other_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[object] = []
    monkeypatch.setattr(door, "_ahead_of_time", lambda graph, example: went.append(graph) or Called(graph))

    def fn(x: Tensor) -> tuple[Tensor, ...]:
        return (F.conv2d(x, torch.ones_like(x)),)

    image = torch.ones(1, 1, 4, 4)
    assert compile_function(fn, [image])(image)[0].item() == 16
    assert len(went) == 1
    with pytest.raises(CompileError, match=r"does not know the operation aten\.convolution"):
        compile_function(fn, [image], quick=True)


def test_large_products_on_several_threads_are_not_for_it() -> None:
    def fn(x: Tensor) -> tuple[Tensor, ...]:
        return (x @ x,)

    recording = record(fn, [torch.ones(128, 128)])
    emit(recording, 1)
    with pytest.raises(Unsupported, match="large products"):
        emit(recording, 2)


def test_a_damaged_library_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLM_LAB_CACHE", str(tmp_path))

    def fn(x: Tensor) -> tuple[Tensor, ...]:
        return (x + 41,)

    x = torch.ones(3)
    made: list[Path] = []
    compile_library = door.compile_library

    def watched(program: object, library: Path) -> None:
        made.append(library)
        compile_library(program, library)  # type: ignore[arg-type]
        if len(made) == 1:
            library.write_bytes(b"half")

    monkeypatch.setattr(door, "compile_library", watched)
    assert compile_function(fn, [x])(x)[0].tolist() == [42, 42, 42]
    assert len(made) == 2
    assert made[0] == made[1]


@pytest.mark.parametrize("n", [3, 4, 8])
def test_two_heads_masked_by_one_part_of_the_observation(n: int) -> None:
    """Both comparisons end up in the loop of the first selection, whose inner loop is unrolled: GCC 12 got it wrong."""

    def head(obs: Tensor, body: Tensor, last: Tensor) -> Tensor:
        return ((obs @ body).relu() @ last).masked_fill(~(obs[:, 3:] > 0.5), -1e9)

    def fn(obs: Tensor, next_obs: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        both = torch.cat([obs, next_obs])
        return head(both, *weights[:2]), head(both, *weights[2:])

    torch.manual_seed(0)
    seen = torch.cat([torch.randn(16, 3), (torch.rand(16, n) < 0.5).float()], -1)
    weights = [torch.randn(shape) for shape in ((3 + n, 8), (8, n)) * 2]
    check(fn, [*seen.split(8), *weights], 1e-5)
