"""Tasks that take turns in one process, and whose compiled calls are made as one, with a leading dimension.

Each task is a thread, and one thread runs at a time, so no task needs a lock. A task waits at each compiled call. When
all wait, those that lag most make their calls together, see `lib.stacked`.

What a task computes does not depend on who takes part in a call: each has a place of its own in the leading dimension,
also when the others are elsewhere or have ended.
"""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from slm_lab.lib.compile import Compiled, compiling_by, graph_key
from slm_lab.lib.native.record import TensorFunction, record
from slm_lab.lib.seeding import Streams
from slm_lab.lib.stacked import Call, Program

T = TypeVar("T")


@dataclass(frozen=True)
class Task(Generic[T]):
    """What one thread does."""

    run: Callable[[], T]
    progress: Callable[[], int]
    """How far it is; those that lag most go first."""


@dataclass
class _Member:
    """A task on its way."""

    place: int
    progress: Callable[[], int]
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    streams: Streams = field(default_factory=Streams)
    call: Call | None = None
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
        self._programs: dict[str, Program] = {}
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
            self._programs[key] = Program(len(self._programs), self._size, fn, example, recording, quick=quick)
        return _Joint(self._programs[key], functools.partial(self._meet, member))

    def _meet(self, member: _Member, call: Call) -> tuple[Tensor, ...]:
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

    def __init__(self, program: "Program", meet: Callable[[Call], tuple[Tensor, ...]]) -> None:
        self._program, self._meet = program, meet

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """See Compiled."""
        return self._meet(Call(self._program, list(args)))

    def loop(self, args: Sequence[Tensor], rows: Mapping[int, Tensor], count: int) -> tuple[Tensor, ...]:
        """See Compiled."""
        whole = [rows[i][:count] if i in rows else t for i, t in enumerate(args)]
        return self._meet(Call(self._program, whole, tuple(rows), count))
