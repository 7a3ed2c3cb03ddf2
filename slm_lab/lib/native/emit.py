"""C++ text of groups of steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from slm_lab.lib.native.fuse import Access, Group, access, fuse
from slm_lab.lib.native.lower import lower
from slm_lab.lib.native.record import Place, Recording
from slm_lab.lib.native.steps import Loop, Point, Product, Reduce, Unsupported, c_type

PRELUDE = Path(__file__).with_name("prelude.h")
_ALIGN = 64
_SHORT = 8
"""Loops up to this length are unrolled, so that the one around them is vectorized."""
_VECTOR = 16
"""Floats of the widest vectors there are."""
_LARGE = 1 << 20
"""Multiplications of a product from which on it is worth more threads."""


@dataclass
class Program:
    """C++ text, and what must be known to call it."""

    source: str
    outputs: list[Place]
    """Memory to be passed after the arguments, contiguous."""
    scratch: int
    """Bytes to be passed for intermediate buffers."""


def emit(recording: Recording, threads: int = 1) -> Program:
    """The recording as two functions in C++.

    Args:
        recording: what was recorded
        threads: that torch would use; from two on large products are left to those that use them

    `run(char** a, char* s)`: once, with the addresses of arguments and outputs, and of the scratch memory.
    `loop(char** a, char* s, i64 n, const i64* step)`: n times, each address moving on by its step in between.

    Raises:
        Unsupported: something in it is not known here
    """
    steps = lower(recording)
    if threads > 1 and any(isinstance(s, Product) and prod(s.out.shape) * s.a.shape[-1] > _LARGE for s in steps):
        raise Unsupported("large products, which several threads share")
    outputs = []
    used = [p.buffer for s in steps for p in (*s.reads, *s.writes)] + [p.buffer for p in recording.inputs]
    free = max([*used, *recording.constants, *(p.buffer for p in recording.outputs)], default=0) + 1
    for i, place in enumerate(recording.outputs):
        shape = place.shape
        strides = tuple(prod(shape[d + 1 :]) for d in range(len(shape)))
        outputs.append(Place(free + i, 0, shape, strides, place.dtype))
        steps.append(Point(outputs[-1], [place], f"({c_type(place.dtype)}){{0}}"))
    outside = {p.buffer for p in (*recording.inputs, *outputs)}
    groups = fuse(steps, outside)
    memory = _Memory(groups, outside | recording.constants.keys())
    body = [_Emitter(memory).group(g) for g in groups]
    passed = [*recording.inputs, *outputs]
    named = {p.buffer for g in groups for p in (*g.reads(), *g.writes())}
    lines = [PRELUDE.read_text(encoding="utf-8")]
    for buffer, tensor in recording.constants.items():
        if buffer in named:
            values = ", ".join(str(v) for v in tensor.flatten().double().tolist())
            kind = c_type(tensor.dtype)
            lines.append(f"static const {kind} b{buffer}[] = {{{values.replace('inf', '__builtin_inf()')}}};")
    lines.append("static void once(char** a, char* s) {")
    for i, place in enumerate(passed):
        if place.buffer in named:
            kind = c_type(place.dtype)
            lines.append(f"{kind}* __restrict b{place.buffer} = ({kind}*)a[{i}];")
    for buffer, (offset, dtype) in memory.places.items():
        kind = c_type(dtype)
        lines.append(f"{kind}* b{buffer} = ({kind}*)(s + {offset});")
    lines.append(f"float* pk = (float*)(s + {memory.size});")
    lines += [*body, "}"]
    n = len(passed)
    lines.append('extern "C" void run(char** a, char* s) { once(a, s); }')
    lines.append(
        f'extern "C" void loop(char** a, char* s, i64 n, const i64* step) {{ char* at[{max(n, 1)}]; '
        f"for (int i = 0; i < {n}; i++) at[i] = a[i]; "
        f"for (i64 k = 0; k < n; k++) {{ once(at, s); for (int i = 0; i < {n}; i++) at[i] += step[i]; }} }}"
    )
    return Program("\n".join(lines) + "\n", outputs, memory.size + memory.pack)


class _Memory:
    """Where in the scratch memory each intermediate buffer is; those that are not needed at the same time share."""

    def __init__(self, groups: Sequence[Group], outside: set[int]) -> None:
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        extent: dict[int, Place] = {}
        for i, group in enumerate(groups):
            for p in (*group.reads(), *group.writes()):
                if p.buffer in outside:
                    continue
                first.setdefault(p.buffer, i)
                last[p.buffer] = i
                if p.buffer not in extent or p.end > extent[p.buffer].end:
                    extent[p.buffer] = p
        self.scalars = {b for b in first if first[b] == last[b] and groups[first[b]].shape is not None}
        """Buffers that live in one loop only: each element is a local variable."""
        self.places: dict[int, tuple[int, torch.dtype]] = {}
        self.size = 0
        self.pack = 0
        holes: list[tuple[int, int]] = []
        for i in range(len(groups)):
            for b in [b for b in first if first[b] == i and b not in self.scalars]:
                p = extent[b]
                need = -(-p.end * p.dtype.itemsize // _ALIGN) * _ALIGN
                hole = min((h for h in holes if h[1] >= need), key=lambda h: h[1], default=None)
                if hole is None:
                    at, self.size = self.size, self.size + need
                else:
                    holes.remove(hole)
                    at = hole[0]
                    if hole[1] > need:
                        holes.append((at + need, hole[1] - need))
                self.places[b] = (at, p.dtype)
            for b in [b for b in last if last[b] == i and b in self.places]:
                p = extent[b]
                holes.append((self.places[b][0], -(-p.end * p.dtype.itemsize // _ALIGN) * _ALIGN))


@dataclass
class _Emitter:
    memory: _Memory

    def group(self, group: Group) -> str:
        step = group.steps[0]
        if group.shape is not None:
            return self._points(group)
        if isinstance(step, Reduce):
            return _reduce(step)
        if isinstance(step, Product):
            return self._product(step)
        assert isinstance(step, Loop)
        return _loop(step)

    def _points(self, group: Group) -> str:
        assert group.shape is not None
        found = [a for a, _, _ in group.accesses()]
        written = next(a for a, _, writes in group.accesses() if writes)
        shape, strides = _collapse(group.shape, found, written)
        index = {a: _offset(a, s) for a, s in zip(found, strides, strict=True)}
        names: dict[Access, str] = {}
        stores: dict[Access, str] = {}
        before: list[str] = []
        lines: list[str] = []
        for step in group.steps:
            assert isinstance(step, Point)
            texts = []
            for p in step.operands:
                key = access(p, step.out.shape)
                if key not in names:
                    names[key] = f"v{len(before) + len(lines)}"
                    # what is the same for all elements is looked up once
                    where = before if shape and not any(key[2]) else lines
                    where.append(f"const {c_type(p.dtype)} {names[key]} = b{p.buffer}[{index[key]}];")
                texts.append(names[key])
            key = access(step.out, step.out.shape)
            names[key] = f"v{len(before) + len(lines)}"
            lines.append(f"const {c_type(step.out.dtype)} {names[key]} = {step.expr.format(*texts)};")
            if step.out.buffer not in self.memory.scalars:
                stores[key] = f"b{step.out.buffer}[{index[key]}] = "
        lines += [f"{store}{names[key]};" for key, store in stores.items()]
        nest = _nest(shape, " ".join(lines))
        return f"\n{{ {' '.join(before)} {nest} }}" if before else nest

    def _product(self, step: Product) -> str:
        a, b, c = step.a, step.b, step.out
        if len(c.shape) == 3:
            text = ""
            for i in range(c.shape[0]):
                one = [
                    Place(p.buffer, p.offset + i * p.stride[0], p.shape[1:], p.stride[1:], p.dtype) for p in (c, a, b)
                ]
                text += self._product(Product(*one))
            return text
        (m, k), n = a.shape, b.shape[1]
        bias = f"b{step.init.buffer} + {step.init.offset}" if step.init is not None else None
        ways = [
            _way(m, n, k, (a, a.stride), (b, b.stride), c.stride, bias, along=True),
            _way(n, m, k, (b, b.stride[::-1]), (a, a.stride[::-1]), c.stride[::-1], bias, along=False),
        ]
        _, text, pack = min(ways)
        self.memory.pack = max(self.memory.pack, 4 * pack)
        return text.replace("OUT", f"b{c.buffer} + {c.offset}")


def _way(
    m: int,
    n: int,
    k: int,
    a: tuple[Place, tuple[int, ...]],
    b: tuple[Place, tuple[int, ...]],
    out: tuple[int, ...],
    bias: str | None,
    *,
    along: bool,
) -> tuple[float, str, int]:
    """A product with vectors along n: cycles (a guess), C text, and floats of memory for packed operands."""
    width = -(-n // _VECTOR) * _VECTOR
    left, right = f"b{a[0].buffer} + {a[0].offset}", f"b{b[0].buffer} + {b[0].offset}"
    row, column = b[1]
    cycles = width / _VECTOR * m * k * (0.55 if width > _VECTOR else 0.8)
    text, pack = "{ ", 0
    if column != 1 or n != width:
        cycles += k * n * (0.2 if column == 1 else 1.0)
        text += f"pack({k}, {n}, {width}, {right}, {row}, {column}, pk); "
        right, row, pack = "pk", width, k * width
    if out[1] != 1:
        cycles += m * n
    init = "0, 0"
    if bias is not None and along and n != width:
        text += f"pack(1, {n}, {width}, {bias}, 0, 1, pk + {pack}); "
        init, pack = f"pk + {pack}, 0", pack + width
    elif bias is not None:
        init = f"{bias}, {0 if along else 1}"
    text += f"product({m}, {n}, {k}, {left}, {a[1][0]}, {a[1][1]}, {right}, {row}, {init}, OUT, {out[0]}, {out[1]}); }}"
    return cycles, text, pack


def _collapse(
    shape: tuple[int, ...], found: Sequence[Access], written: Access
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """A loop nest with as few loops as possible, innermost where what is written is densest.

    Returns:
        sizes, and for each access its strides
    """
    order = sorted(range(len(shape)), key=lambda d: -written[2][d])
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in found]
    for d in order:
        strides = [a[2][d] for a in found]
        if sizes and all(s[-1] == stride * shape[d] for s, stride in zip(steps, strides, strict=True)):
            sizes[-1] *= shape[d]
            for s, stride in zip(steps, strides, strict=True):
                s[-1] = stride
        else:
            sizes.append(shape[d])
            for s, stride in zip(steps, strides, strict=True):
                s.append(stride)
    return tuple(sizes), [tuple(s) for s in steps]


def _offset(found: Access, strides: tuple[int, ...]) -> str:
    terms = [f"i{d}" if s == 1 else f"i{d} * {s}" for d, s in enumerate(strides) if s]
    if found[1] or not terms:
        terms.append(str(found[1]))
    return " + ".join(terms)


def _nest(shape: tuple[int, ...], body: str, *, ivdep: bool = True) -> str:
    """The body in a loop nest."""
    text = f"{{ {body} }}"
    inner = len(shape) - 1
    short = bool(shape) and shape[-1] <= _SHORT and len(shape) > 1
    for d in range(inner, -1, -1):
        pragma = ""
        if short and d == inner:
            pragma = f"#pragma GCC unroll {_SHORT}\n"
        elif ivdep and d == inner - short:
            pragma = "#pragma GCC ivdep\n"
        text = f"\n{pragma}for (i64 i{d} = 0; i{d} < {shape[d]}; i{d}++) {text}"
    return text


def _reduce(step: Reduce) -> str:
    kept = [d for d in range(len(step.shape)) if d not in step.dims and step.shape[d] != 1]
    gone = [d for d in step.dims if step.shape[d] != 1]
    kind = c_type(step.out.dtype)
    rank = len(step.shape)

    def at(place: Place) -> str:
        missing = rank - len(place.shape)
        terms = [
            f"j{d + missing} * {s}"
            for d, (s, n) in enumerate(zip(place.stride, place.shape, strict=True))
            if n != 1 and s
        ]
        return " + ".join([*terms, str(place.offset)])

    def loops(dims: Sequence[int], text: str, pragma: str = "") -> str:
        for i, d in enumerate(reversed(dims)):
            note = f"\n{pragma}\n" if i == 0 and pragma else ""
            text = f"{note}for (i64 j{d} = 0; j{d} < {step.shape[d]}; j{d}++) {text}"
        return text

    x = step.expr.format(*(f"b{p.buffer}[{at(p)}]" for p in step.operands))
    out = f"b{step.out.buffer}[{at(step.out)}]"
    begin = step.start
    if begin == "{x}":
        begin = x
        for d in gone:
            begin = begin.replace(f"j{d} ", "0 ")

    def combined(acc: str) -> str:
        return step.combine.format(acc=acc, x="x")

    # along what lies densest of the first operand the loop is innermost, and vectorized
    first = step.operands[0]
    strides = [0] * (rank - len(first.shape)) + list(first.stride)
    dense = min((d for d in (*kept, *gone) if strides[d]), key=lambda d: strides[d], default=-1)
    if dense in kept and step.shape[dense] > _SHORT and gone:
        order = [d for d in kept if d != dense] + [dense]
        add = f"{{ const {kind} x = {x}; {out} = {combined(out)}; }}"
        ivdep = "#pragma GCC ivdep"
        text = loops(order, f"{{ {out} = {begin}; }}", ivdep)
        text += loops([*gone, *order], add, ivdep)
        if step.after != "{acc}":
            text += loops(order, f"{{ {out} = {step.after.format(acc=out)}; }}", ivdep)
        return f"\n{{ {text} }}"
    count = prod(step.shape[d] for d in gone)
    unroll = f"#pragma GCC unroll {_SHORT}" if count <= _SHORT and kept else ""
    simd = "#pragma omp simd reduction(+:acc)" if step.combine == "{acc} + {x}" else ""
    inner = loops(gone, f"{{ const {kind} x = {x}; acc = {combined('acc')}; }}", unroll or simd)
    body = f"{{ {kind} acc = {begin}; {inner} {out} = {step.after.format(acc='acc')}; }}"
    return f"\n{{ {loops(kept, body, '#pragma GCC ivdep' if unroll else '')} }}"


def _loop(step: Loop) -> str:
    names = {f"i{d}": f"i{d}" if n != 1 else "0" for d, n in enumerate(step.shape)}
    names |= {f"r{i}": f"b{p.buffer}" for i, p in enumerate(step.reads)}
    names |= {f"w{i}": f"b{p.buffer}" for i, p in enumerate(step.writes)}
    text = f"{{ {step.body.format(**names)} }}"
    for d in range(len(step.shape) - 1, -1, -1):
        if step.shape[d] != 1:
            text = f"for (i64 i{d} = 0; i{d} < {step.shape[d]}; i{d}++) {text}"
    return f"\n{text}"
