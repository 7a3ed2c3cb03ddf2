"""The one door to the compiler.

`compile_function` turns a function of tensors into one machine-code graph, forward, backward and optimizer together:
recorded as ATen operations, compiled ahead of time (AOTInductor) in a process of its own, kept in a cache. A
session then only loads a library: no compiler in its memory, no guards on its calls, milliseconds when the cache is
warm; sessions that want the same graph wait for one of them to make it.

The price is that everything the function reads must be an argument, shapes are those of the example, and what is not a
tensor is a constant. On an accelerator `torch.compile` is used in place of this.
"""

import contextlib
import hashlib
import operator
import os
import pickle
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from slm_lab.lib import compiler
from slm_lab.lib.compiler import TIMEOUT, cache_folder, compile_job

TensorFunction = Callable[..., tuple[Tensor, ...]]
"""Positional tensors in, a tuple of tensors out; may change its arguments in place."""

_LIFTED = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)


class CompileError(Exception):
    """The function can't be compiled here; the message is one line. The caller goes on with the function itself."""


def compile_function(fn: TensorFunction, example: Sequence[Tensor]) -> TensorFunction:
    """Compile `fn` for arguments of exactly the shapes, strides and types of `example`.

    Args:
        fn: reads nothing but its arguments and constants; no randomness
        example: one argument set; not changed

    Returns:
        a function of the same arguments, with the same effects

    Raises:
        CompileError: no C++ compiler, or the graph is refused
    """
    if any(t.device.type != "cpu" for t in example):
        return _compile_in_place(fn, example)
    if os.environ.get("CXX") is None and not any(shutil.which(c) for c in ("g++", "clang++", "c++")):
        raise CompileError("no C++ compiler found")
    try:
        graph = _trace(fn, example)
        package = cache_folder() / f"{_key(graph, example)}.pt2"
        if package.exists():
            try:
                return _load(package)
            except RuntimeError:  # damaged: a full disk, say
                package.unlink(missing_ok=True)
        _compile_once(graph, example, package)
        return _load(package)
    except CompileError:
        raise
    except Exception as e:  # whatever the private parts of torch raise, training can go on without them
        raise CompileError(_one_line(e)) from e


def _compile_in_place(fn: TensorFunction, example: Sequence[Tensor]) -> TensorFunction:
    """For an accelerator: torch.compile on the traced graph; run once here, where a failure can still be told."""
    try:
        compiled: TensorFunction = torch.compile(_trace(fn, example), fullgraph=True, dynamic=False)
        compiled(*[t.clone() for t in example])
    except CompileError:
        raise
    except Exception as e:
        raise CompileError(_one_line(e)) from e

    def call(*args: Tensor) -> tuple[Tensor, ...]:
        return tuple(compiled(*args))

    return call


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes every ATen operation that runs under it into a graph, those of the backward pass too.

    What `make_fx` does, without the seconds and the memory of importing the compiler into every session.
    """

    def __init__(self, example: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = torch.fx.Graph()
        self.constants = nn.Module()
        # tensors are known by identity: none may be freed, and its id used again, before the end
        self._alive: list[Tensor] = []
        self._nodes: dict[int, torch.fx.Node] = {}
        for i, tensor in enumerate(example):
            self._know(tensor, self.graph.placeholder(f"arg_{i}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # to have it skip this class, torch would import it
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise CompileError("the function reads a number out of a tensor")
        kwargs = kwargs or {}
        if func in _LIFTED:
            # a tensor that the function itself makes of a number
            name = f"constant_{len(self._nodes)}"
            self.constants.register_buffer(name, args[0].clone())
            self._know(args[0], self.graph.get_attr(name))
        seen = tree_map_only(Tensor, self.node, (args, kwargs))
        out = func(*args, **kwargs)
        node = self.graph.call_function(func, *seen)
        if isinstance(out, Tensor):
            self._know(out, node)
        else:
            for i, tensor in enumerate(out or ()):
                if isinstance(tensor, Tensor):
                    self._know(tensor, self.graph.call_function(operator.getitem, (node, i)))
        return out

    def node(self, tensor: Tensor) -> torch.fx.Node:
        """What made a tensor.

        Raises:
            CompileError: it came from outside and may change
        """
        if id(tensor) not in self._nodes:
            raise CompileError(f"the function reads a tensor that is not an argument (shape {list(tensor.shape)})")
        return self._nodes[id(tensor)]

    def _know(self, tensor: Tensor, node: torch.fx.Node) -> None:
        self._alive.append(tensor)
        self._nodes[id(tensor)] = node


def _trace(fn: TensorFunction, example: Sequence[Tensor]) -> torch.fx.GraphModule:
    args = [t.clone() for t in example]
    recorder = _Recorder(args)
    with recorder:
        out = fn(*args)
    recorder.graph.output(tuple(recorder.node(t) for t in out))
    return torch.fx.GraphModule(recorder.constants, recorder.graph)


def _key(graph: torch.fx.GraphModule, example: Sequence[Tensor]) -> str:
    """The graph, its arguments and whatever else the machine code depends on, hashed."""
    cpu = platform.machine()
    with contextlib.suppress(OSError):
        cpu += next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    parts = [
        graph.code,
        *(f"{t.shape} {t.stride()} {t.dtype} {t.device}" for t in example),
        *(f"{k} {v.tolist()}" for k, v in graph.named_buffers()),
        *(Path(file).read_text(encoding="utf-8") for file in (__file__, compiler.__file__)),
        torch.__version__,
        str(torch.get_num_threads()),
        platform.system(),
        cpu,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _compile_once(graph: torch.fx.GraphModule, example: Sequence[Tensor], package: Path) -> None:
    """Compile in a child process; of several processes that want the same package one works and the others wait."""
    with _lock(package.with_suffix(".lock")):
        if package.exists():
            return
        with tempfile.TemporaryDirectory(dir=package.parent) as folder:
            job, out = Path(folder) / "job.pkl", Path(folder) / "out.pt2"
            job.write_bytes(pickle.dumps((graph, [t.clone() for t in example])))
            fault = compile_job(job, out, torch.get_num_threads(), package.parent.parent / "inductor")
            if fault is not None:
                raise CompileError(fault)
            out.replace(package)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock file; the system drops it with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows; two processes may then compile the same graph, to the same end
        yield
        return
    with path.open("w") as file:
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise CompileError("another process has been compiling the same graph for too long") from None
                time.sleep(0.1)
        yield


def _load(package: Path) -> TensorFunction:
    from torch._C._aoti import AOTIModelPackageLoader

    loader = AOTIModelPackageLoader(str(package), "model", False, 1, -1)
    run: Any = getattr(loader, "boxed_run", None) or loader.run

    def call(*args: Tensor) -> tuple[Tensor, ...]:
        return tuple(run(list(args)))

    return call
