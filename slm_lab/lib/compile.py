"""The one door to the compiler.

`compile_function` turns a function of tensors into machine code, forward, backward and optimizer together. What it does
is recorded as ATen operations; then

- on a CPU, `lib.native` makes C++ of them with fixed sizes: a second or two of the C++ compiler, and the fastest code
  for small nets;
- what that does not know (convolutions, say), or what wants several threads, AOTInductor compiles in a process of its
  own: half a minute;
- on an accelerator torch.compile takes the recorded graph; on a GPU its calls are CUDA graphs (`lib.graphs`).

The results are kept in a cache. A session only loads a library: no compiler in its memory, no guards on its calls,
milliseconds when the cache is warm; sessions that want the same graph wait for one of them to make it.

The price is that everything the function reads must be an argument, shapes are those of the example, and what is not a
tensor is a constant.
"""

import pickle
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from loguru import logger
from torch import Tensor
from torch.utils._pytree import tree_leaves

from slm_lab.lib import compiler as process
from slm_lab.lib.compiler import TIMEOUT, cache_folder, compile_job
from slm_lab.lib.errors import first_line
from slm_lab.lib.files import hold
from slm_lab.lib.graphs import Graphed
from slm_lab.lib.native.build import Native, compile_library, compiler, digest, library_path, machine
from slm_lab.lib.native.emit import emit
from slm_lab.lib.native.record import Place, Recording, TensorFunction, Unrecordable, copied, record
from slm_lab.lib.native.steps import Unsupported


class Compiled(Protocol):
    """A compiled function."""

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """As the function itself, for arguments of the shapes, strides and types of the example."""
        ...

    def loop(self, args: Sequence[Tensor], rows: Mapping[int, Tensor], count: int) -> tuple[Tensor, ...]:
        """Call it `count` times, with one entry from Python where that is possible.

        Args:
            args: all arguments; those that `rows` has are not read
            rows: [count, ...] by position: argument i of call k is `rows[i][k]`
            count: number of calls

        Returns:
            what the calls gave, [count, ...] each
        """
        ...


class CompileError(Exception):
    """The function can't be compiled here; the message is one line. The caller continues with the function itself."""


class CompileInterrupted(KeyboardInterrupt):
    """Asked to stop while compiling: what is learned in between can't be saved, and need not be waited for."""


def interrupt_compiler(frame: FrameType | None) -> None:
    """To be called by the handler of a signal that asks to stop, with the frame it came upon.

    Raises:
        CompileInterrupted: the frame is inside of `compile_function`, which may last minutes.
    """
    while frame is not None:
        if frame.f_code is compile_function.__code__:
            raise CompileInterrupted
        frame = frame.f_back


_here = threading.local()
"""Of this thread, what compiles in it."""


@contextmanager
def compiling_by(make: Callable[..., Compiled]) -> Iterator[None]:
    """Inside, in this thread, `compile_function` is `make`."""
    _here.make = make
    try:
        yield
    finally:
        del _here.make


def compile_function(fn: TensorFunction, example: Sequence[Tensor], *, quick: bool = False) -> Compiled:
    """Compile `fn` for arguments of exactly the shapes, strides and types of `example`.

    Args:
        fn: reads nothing but its arguments and constants; no randomness
        example: one argument set; not changed
        quick: give up where it would take more than a few seconds

    Returns:
        a function of the same arguments, with the same effects

    Raises:
        CompileError: no C++ compiler, or the graph is refused
    """
    make: Callable[..., Compiled] = getattr(_here, "make", compile_alone)
    return make(fn, example, quick=quick)


def compile_alone(fn: TensorFunction, example: Sequence[Tensor], *, quick: bool = False) -> Compiled:
    """As `compile_function`, whoever else may call it too."""
    try:
        recording = record(fn, example)
        if any(t.device.type != "cpu" for t in example):
            return _compile_in_place(recording, example)
        if compiler() is None:
            raise CompileError("no C++ compiler found")
        try:
            return _native(recording)
        except Unsupported as e:
            if quick:
                raise CompileError(f"the quick compiler does not know {e}") from e
            logger.debug("compiled by AOTInductor, for the quick compiler does not know {}", e)
        return _ahead_of_time(recording.graph, example)
    except CompileError:
        raise
    except Unrecordable as e:
        raise CompileError(str(e)) from e
    except Exception as e:  # whatever the private parts of torch raise, training can continue without them
        raise CompileError(f"{type(e).__name__}: {first_line(e)}") from e


def _native(recording: Recording) -> Compiled:
    """Raises Unsupported: it is a case for another compiler."""
    program = emit(recording, torch.get_num_threads())
    library = library_path(program, cache_folder())
    if not library.exists():
        with _lock(library.with_suffix(".lock")):
            if not library.exists():
                compile_library(program, library)
    try:
        return Native(program, library, len(recording.inputs))
    except OSError:  # damaged: a full disk, say
        library.unlink(missing_ok=True)
        compile_library(program, library)
        return Native(program, library, len(recording.inputs))


def _ahead_of_time(graph: torch.fx.GraphModule, example: Sequence[Tensor]) -> Compiled:
    package = cache_folder() / f"{graph_key(graph, example)}.pt2"
    if package.exists():
        try:
            return _load(package)
        except RuntimeError:  # damaged: a full disk, say
            package.unlink(missing_ok=True)
    _compile_once(graph, example, package)
    return _load(package)


def _compile_in_place(recording: Recording, example: Sequence[Tensor]) -> Compiled:
    """For an accelerator: torch.compile on the traced graph; run once here, where a failure can still be reported.

    On a GPU the calls are launched as CUDA graphs.
    """
    compiled: TensorFunction = torch.compile(recording.graph, fullgraph=True, dynamic=False)
    compiled(*map(copied, example))
    return Launched(compiled, example[0].device, changed_arguments(recording))


def changed_arguments(recording: Recording) -> set[int]:
    """Positions of the arguments that the function changes in place."""
    changed = set()
    for operation in recording.operations:
        arguments = operation.func._schema.arguments
        given = [*operation.args, *(operation.kwargs.get(a.name) for a in arguments[len(operation.args) :])]
        for argument, value in zip(arguments, given, strict=True):
            if argument.alias_info is not None and argument.alias_info.is_write:
                changed |= {place.buffer for place in tree_leaves(value) if isinstance(place, Place)}
    return {i for i, place in enumerate(recording.inputs) if place.buffer in changed}


class Called:
    """A function that is called from Python each time."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """See Compiled."""
        return tuple(self._fn(*args))

    def loop(self, args: Sequence[Tensor], rows: Mapping[int, Tensor], count: int) -> tuple[Tensor, ...]:
        """See Compiled."""
        outs = [self(*(rows[i][k] if i in rows else t for i, t in enumerate(args))) for k in range(count)]
        return tuple(torch.stack(list(found)) for found in zip(*outs, strict=True))


class Launched(Called):
    """A function on an accelerator. On a GPU a call, and each loop of some length, becomes a CUDA graph of its own.

    Args:
        fn: gives a tuple, or a list
        device: of its arguments
        held: positions of the arguments that it changes
    """

    def __init__(self, fn: Callable[..., Any], device: torch.device, held: Collection[int]) -> None:
        super().__init__(fn)
        self._device, self._held = device, held
        self._call = Graphed(fn, device, held=held)
        self._loops: dict[tuple[int, tuple[int, ...]], Graphed] = {}

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """See Compiled."""
        return self._call(*args)

    def loop(self, args: Sequence[Tensor], rows: Mapping[int, Tensor], count: int) -> tuple[Tensor, ...]:
        """See Compiled."""
        moving = tuple(rows)

        def whole(*given: Tensor) -> tuple[Tensor, ...]:
            return Called.loop(plain, given, {i: given[i] for i in moving}, count)

        plain = Called(self._fn)
        # the same tensors in other numbers are another graph
        graph = self._loops.setdefault((count, moving), Graphed(whole, self._device, held=self._held))
        return graph(*(rows.get(i, t) for i, t in enumerate(args)))


def graph_key(graph: torch.fx.GraphModule, example: Sequence[Tensor]) -> str:
    """The graph, its arguments and whatever else the machine code depends on, hashed."""
    parts = [
        graph.code,
        *(f"{t.shape} {t.stride()} {t.dtype} {t.device}" for t in example),
        *(f"{k} {v.tolist()}" for k, v in graph.named_buffers()),
        *(Path(file).read_text(encoding="utf-8") for file in (__file__, process.__file__, process.TUNING)),
        torch.__version__,
        str(torch.get_num_threads()),
        machine(),
    ]
    return digest(*parts)


def _compile_once(graph: torch.fx.GraphModule, example: Sequence[Tensor], package: Path) -> None:
    """Compile in a child process; of several processes that need the same package one works and the others wait."""
    with _lock(package.with_suffix(".lock")):
        if package.exists():
            return
        with tempfile.TemporaryDirectory(dir=package.parent) as folder:
            job, out = Path(folder) / "job.pkl", Path(folder) / "out.pt2"
            job.write_bytes(pickle.dumps((graph, [*map(copied, example)])))
            fault = compile_job(job, out, torch.get_num_threads(), package.parent.parent / "inductor")
            if fault is not None:
                raise CompileError(fault)
            out.replace(package)


def _lock(path: Path) -> AbstractContextManager[int]:
    return hold(path, TIMEOUT, CompileError("another process has been compiling the same graph for too long"))


def _load(package: Path) -> Compiled:
    from torch._C._aoti import AOTIModelPackageLoader

    loader = AOTIModelPackageLoader(str(package), "model", False, 1, -1)
    run: Any = getattr(loader, "boxed_run", None) or loader.run
    return Called(lambda *args: run(list(args)))
