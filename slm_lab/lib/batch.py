"""Tasks that take turns in one process, and whose compiled calls are made as one, with a leading dimension.

Each task is a thread, and one thread runs at a time, so no task needs a lock. A task waits at each compiled call. When
all wait, those that lag most make their calls together: the arguments of S tasks are stacked, and the program, that of
one task under `torch.vmap`, runs once. What it changed is copied back.

What a task computes does not depend on who takes part in a call: each has a place of its own in the leading dimension,
also when the others are elsewhere or have ended.
"""

import copy
import functools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from loguru import logger
from torch import Tensor

from slm_lab.lib.compile import Compiled, CompileError, changed_arguments, compile_alone, compiling_by, graph_key
from slm_lab.lib.native.record import Recording, TensorFunction, record
from slm_lab.lib.seeding import Streams

T = TypeVar("T")


@dataclass(frozen=True)
class Task(Generic[T]):
    """What one thread does."""

    run: Callable[[], T]
    progress: Callable[[], int]
    """How far it is; those that lag most go first."""


@dataclass
class _Call:
    """A call that waits for others."""

    program: "_Program"
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


@dataclass
class _Member:
    """A task on its way."""

    place: int
    progress: Callable[[], int]
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    streams: Streams = field(default_factory=Streams)
    call: _Call | None = None
    leads: "list[_Member]" = field(default_factory=list)
    """Those whose calls it is to make together, itself among them."""
    done: bool = False


class Batch:
    """Runs tasks as one batch.

    Args:
        size: S, places; of a run that is resumed as many as before, also where some tasks have ended
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._members: list[_Member] = []
        self._programs: dict[str, _Program] = {}
        self._fault: Exception | None = None

    def run(self, tasks: Sequence[Task[T]]) -> list[T]:
        """Run each task in its place, in a thread of its own; returns what they returned, in their order.

        The global random streams of python, numpy and torch belong to the task whose turn it is. If a task raises, the
        others run to their end first.
        """
        assert len(tasks) <= self._size
        found: dict[int, T] = {}
        errors: list[BaseException] = []

        def work(member: _Member, task: Task[T]) -> None:
            try:
                self._wait(member)
                with compiling_by(functools.partial(self._compile, member)):
                    found[member.place] = task.run()
            except BaseException as e:  # noqa: BLE001  raised below
                errors.append(e)
            finally:
                member.done = True
                if (following := self._following()) is not None:
                    following.turn.release()

        self._members = [_Member(place, task.progress) for place, task in enumerate(tasks)]
        # daemons: a second Ctrl-C ends the process whatever they do
        threads = [
            threading.Thread(target=work, args=pair, daemon=True) for pair in zip(self._members, tasks, strict=True)
        ]
        streams = Streams()
        streams.leave()
        for thread in threads:
            thread.start()
        if self._members:
            self._members[0].turn.release()
        for thread in threads:
            thread.join()
        streams.enter()
        if errors:
            raise errors[0]
        return [found[member.place] for member in self._members]

    def _compile(self, member: _Member, fn: TensorFunction, example: Sequence[Tensor], *, quick: bool) -> Compiled:
        recording = record(fn, example)
        key = graph_key(recording.graph, example)
        if key not in self._programs:
            self._programs[key] = _Program(len(self._programs), self._size, fn, example, recording, quick=quick)
        return _Joint(self._programs[key], functools.partial(self._meet, member))

    def _meet(self, member: _Member, call: _Call) -> tuple[Tensor, ...]:
        """Wait for the others, and make the call with them."""
        member.call = call
        following = self._following()
        if following is not member:
            member.streams.leave()
            if following is not None:
                following.turn.release()
            self._wait(member)
        if member.leads:
            together, member.leads = member.leads, []
            self._make(together)
        if call.error is not None:
            raise call.error
        return call.outs

    def _wait(self, member: _Member) -> None:
        member.turn.acquire()
        if self._fault is not None:
            raise RuntimeError("the tasks of a batch can't take turns any more") from self._fault
        member.streams.enter()

    def _following(self) -> _Member | None:
        """See `_next`; if that fails, nobody waits any longer."""
        try:
            return self._next()
        except Exception as e:  # noqa: BLE001  raised where each of them waits
            self._fault = e
            for member in self._members:
                member.turn.release()
            return None

    def _make(self, together: list[_Member]) -> None:
        calls = {m.place: m.call for m in together if m.call is not None}
        program = next(iter(calls.values())).program
        try:
            program.run(calls)
        except Exception as e:  # noqa: BLE001  raised where each of them waits
            for call in calls.values():
                call.error = e
        for m in together:
            m.call = None

    def _next(self) -> _Member | None:
        """Whose turn it is: a task that does not wait; if all wait, that which calls for all who can join."""
        live = [m for m in self._members if not m.done]
        ready = next((m for m in live if m.call is None), None)
        if ready is not None or not live:
            return ready
        # at equal progress the program that came up last: an update comes before the next rollout
        calls = [(m.progress(), -m.call.program.number, m.place, m) for m in live if m.call is not None]
        progress, number, _, first = min(calls)
        assert first.call is not None
        form = first.call.form
        same = [m for p, n, _, m in calls if (p, n) == (progress, number)]
        first.leads = [m for m in same if m.call is not None and m.call.form == form]
        return first


class _Joint:
    """One task's handle of a program; see `compile.Compiled`."""

    def __init__(self, program: "_Program", meet: Callable[[_Call], tuple[Tensor, ...]]) -> None:
        self._program, self._meet = program, meet

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """See Compiled."""
        return self._meet(_Call(self._program, list(args)))

    def loop(self, args: Sequence[Tensor], rows: Mapping[int, Tensor], count: int) -> tuple[Tensor, ...]:
        """See Compiled."""
        whole = [rows[i][:count] if i in rows else t for i, t in enumerate(args)]
        return self._meet(_Call(self._program, whole, tuple(rows), count))


class _Program:
    """A function, compiled for S tasks at once; where that can't be, for one.

    Args:
        number: of those before it
        size: S
        fn: as `compile_function` takes it, with `example` and `quick`
        example: of one task
        recording: of the function
        quick: give up where compiling would take more than a few seconds

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
        self._fn, self._example, self._quick = fn, list(example), quick
        self._form = self._form_of(_Call(self, self._example))
        self._shared = self._sharing(example)
        self._buffers: dict[tuple[object, ...], _Buffers] = {}
        self._alone: Compiled | None = None
        self._joint: Compiled | None = None
        try:
            types = {(shared[0], t.dtype) for t, shared in zip(example, self._shared, strict=True) if shared}
            if len(types) > len({first for first, _ in types}):
                raise CompileError("arguments of several types share memory")
            stacked = self._stacked(_Call(self, self._example))
            self._joint = compile_alone(lifted(recording), stacked.views, quick=quick)
        except CompileError as e:
            self._alone = compile_alone(fn, example, quick=quick)
            logger.info("sessions make this call one after the other: {}", e)

    def fits(self, call: _Call) -> bool:
        """Whether the arguments are like those of the example, so that they can be stacked."""
        return self._form_of(call) == self._form

    def _form_of(self, call: _Call) -> list[tuple[object, ...]]:
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

    def run(self, calls: Mapping[int, _Call]) -> None:
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

    def _run_alone(self, call: _Call) -> tuple[Tensor, ...]:
        if self._alone is None:
            self._alone = compile_alone(self._fn, self._example, quick=self._quick)
        if call.count is None:
            return self._alone(*call.tensors)
        return self._alone.loop(call.tensors, {i: call.tensors[i] for i in call.moving}, call.count)

    def _stacked(self, call: _Call) -> "_Buffers":
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
        shared: see `_Program._sharing`; memory that several arguments share is stacked as a whole
        changed: positions of arguments that the program writes to
    """

    def __init__(
        self, size: int, call: _Call, shared: Sequence[tuple[int, int] | None], changed: Collection[int]
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
