"""Programs for several tasks at once: what `lib.compile` makes of one call, with a leading dimension.

The arguments of S calls are stacked, the program of one call under `torch.vmap` runs once, and what it changed is
copied back. `lib.batch` says whose calls are made together.
"""

import copy
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from slm_lab.lib.compile import Compiled, CompileError, changed_arguments, compile_alone
from slm_lab.lib.native.record import Recording, TensorFunction


@dataclass
class Call:
    """A call that waits for others."""

    program: "Program"
    tensors: list[Tensor]
    """Arguments; where there is a count, those that move have a row for each call."""
    moving: tuple[int, ...] = ()
    count: int | None = None
    outs: tuple[Tensor, ...] = ()
    error: Exception | None = None

    @property
    def form(self) -> tuple[object, ...]:
        """Calls of one program that have the same form can be made together."""
        return self.moving, self.count, self.program.fits(self) or id(self)


class Program:
    """A function, compiled for S tasks at once (`size`); where that can't be, for one.

    It has so many others before it (`number`). The rest is as `compile_function` takes it, of one task.

    Raises:
        CompileError: it can't be compiled, not even for one
    """

    def __init__(
        self,
        number: int,
        size: int,
        fn: TensorFunction,
        example: Sequence[Tensor],
        recording: Recording,
        *,
        quick: bool,
    ) -> None:
        self.number, self._size, self._changed = number, size, changed_arguments(recording)
        self._compile_alone = functools.cache(functools.partial(compile_alone, fn, list(example), quick=quick))
        given = Call(self, list(example))
        self._form = self._form_of(given)
        self._shared = self._sharing(example)
        self._buffers: dict[tuple[object, ...], _Buffers] = {}
        self._joint: Compiled | None = None
        try:
            types = {(shared[0], t.dtype) for t, shared in zip(example, self._shared, strict=True) if shared}
            if len(types) > len({first for first, _ in types}):
                raise CompileError("arguments of several types share memory")
            self._joint = compile_alone(lifted(recording), self._stacked(given).views, quick=quick)
        except CompileError as e:
            self._compile_alone()
            logger.info("sessions make this call one after the other: {}", e)

    def fits(self, call: Call) -> bool:
        """Whether the arguments are like those of the example, so that they can be stacked."""
        return self._form_of(call) == self._form

    def _form_of(self, call: Call) -> list[tuple[object, ...]]:
        """Of each argument its shape and type in one call, and where in memory it is that it shares."""
        form: list[tuple[object, ...]] = []
        for i, (t, memory) in enumerate(zip(call.tensors, self._sharing(call.tensors), strict=True)):
            d = int(i in call.moving)
            place = None if memory is None else (memory, t.storage_offset(), t.stride()[d:])
            form.append((t.shape[d:], t.dtype, place))
        return form

    def _sharing(self, tensors: Sequence[Tensor]) -> list[tuple[int, int] | None]:
        """Of each argument: None; where it shares memory that is written to, the first that does, and its elements."""
        memory = [t.untyped_storage().data_ptr() for t in tensors]
        shared = {memory[i] for i in self._changed if memory.count(memory[i]) > 1}
        return [
            (memory.index(place), t.untyped_storage().nbytes() // t.itemsize) if place in shared else None
            for t, place in zip(tensors, memory, strict=True)
        ]

    def run(self, calls: Mapping[int, Call]) -> None:
        """Make the calls of these places, all of one form; each gets its outputs."""
        first = next(iter(calls.values()))
        if self._joint is None or not self.fits(first):
            for call in calls.values():
                try:
                    call.outs = self._run_alone(call)
                except Exception as e:  # noqa: BLE001  its own
                    call.error = e
            return
        stacked = self._stacked(first)
        for place, call in calls.items():
            stacked.take(place, call.tensors)
        if first.count is None:
            outs = self._joint(*stacked.views)
        else:
            outs = self._joint.loop(stacked.views, {i: stacked.views[i] for i in first.moving}, first.count)
        for place, call in calls.items():
            stacked.give(place, call.tensors)
            call.outs = tuple(out.select(0 if first.count is None else 1, place).clone() for out in outs)

    def _run_alone(self, call: Call) -> tuple[Tensor, ...]:
        alone = self._compile_alone()
        if call.count is None:
            return alone(*call.tensors)
        return alone.loop(call.tensors, {i: call.tensors[i] for i in call.moving}, call.count)

    def _stacked(self, call: Call) -> "_Buffers":
        """For calls of this form."""
        key = (call.moving, call.count)
        if key not in self._buffers:
            with torch.inference_mode(mode=False):
                self._buffers[key] = _Buffers(self._size, call, self._shared, self._changed)
            # what no task has filled yet is computed with too
            for place in range(self._size):
                self._buffers[key].take(place, call.tensors)
        return self._buffers[key]


class _Buffers:
    """The arguments of S calls, stacked.

    Args:
        size: S
        call: the first
        shared: see `Program._sharing`; memory that several arguments share is stacked as a whole
        changed: positions of arguments that the program writes to
    """

    def __init__(
        self, size: int, call: Call, shared: Sequence[tuple[int, int] | None], changed: Collection[int]
    ) -> None:
        self.views: list[Tensor] = []
        """The arguments of the program: [S, ...]; of those that move [count, S, ...]."""
        self._parts: list[list[tuple[int, Tensor]]] = [[] for _ in range(size)]
        """Of each place the argument that is copied, or whose memory is, and where to."""
        self._memories: dict[int, Tensor] = {}
        self._changed = {*changed, *(s[0] for s in shared if s is not None)}
        for i, (t, memory) in enumerate(zip(call.tensors, shared, strict=True)):
            d = int(i in call.moving)
            if memory is None:
                view = t.new_empty((*t.shape[:d], size, *t.shape[d:]))
                for place, parts in enumerate(self._parts):
                    parts.append((i, view.select(d, place)))
            else:
                first, elements = memory
                if first not in self._memories:
                    self._memories[first] = t.new_empty((size, elements))
                    for place, parts in enumerate(self._parts):
                        parts.append((first, self._memories[first][place]))
                shape, stride = (*t.shape[:d], size, *t.shape[d:]), (*t.stride()[:d], elements, *t.stride()[d:])
                view = self._memories[first].as_strided(shape, stride, t.storage_offset())
            self.views.append(view)

    def take(self, place: int, tensors: Sequence[Tensor]) -> None:
        """Copy the arguments of a call to its place."""
        for i, part in self._parts[place]:
            part.copy_(self._whole(i, tensors[i], part))

    def give(self, place: int, tensors: Sequence[Tensor]) -> None:
        """Copy back what was changed."""
        for i, part in self._parts[place]:
            if i in self._changed:
                self._whole(i, tensors[i], part).copy_(part)

    def _whole(self, i: int, tensor: Tensor, part: Tensor) -> Tensor:
        """The argument, or all of the memory that it shares with others."""
        return tensor.as_strided(part.shape, part.stride(), 0) if i in self._memories else tensor


def _by_copy(func: Any) -> Any:
    """An operation in place as one that is not, and a copy: torch.vmap knows more of those."""
    name, overload = func._schema.name.partition("::")[2], func._overloadname
    pure = getattr(getattr(torch.ops.aten, name[:-1], None), overload, None)
    if not name.endswith("_") or name == "copy_" or pure is None:
        return func
    return lambda x, *args, **kwargs: x.copy_(pure(x, *args, **kwargs))


def lifted(recording: Recording) -> TensorFunction:
    """What was recorded, for arguments [S, ...] each.

    >>> from slm_lab.lib.native.record import record
    >>> def add_(x: Tensor, y: Tensor) -> tuple[Tensor]:
    ...     return (x.add_(y).sum(),)
    >>> both = lifted(record(add_, [torch.zeros(2), torch.ones(2)]))
    >>> x = torch.zeros(3, 2)
    >>> both(x, torch.tensor([[1.0, 2], [3, 4], [5, 6]]))[0], x[1]
    (tensor([ 3.,  7., 11.]), tensor([3., 4.]))
    """
    graph = copy.deepcopy(recording.graph)
    for node in graph.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = _by_copy(node.target)
    graph.recompile()

    def one(*args: Tensor) -> tuple[Tensor, ...]:
        # torch.vmap wants something given
        return (*graph(*args), args[0])

    return lambda *args: torch.vmap(one)(*args)[:-1]
