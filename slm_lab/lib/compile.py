"""The one door to the compiler.

`compile_function` turns a function of tensors into one machine-code graph, forward, backward and optimizer together:
traced to ATen operations (`make_fx`), compiled ahead of time (AOTInductor) in a process of its own, kept in a cache. A
session then only loads a library: no compiler in its memory, no guards on its calls, milliseconds when the cache is
warm; sessions that want the same graph wait for one of them to make it.

The price is that everything the function reads must be an argument, shapes are those of the example, and what is not a
tensor is a constant. On an accelerator `torch.compile` is used in place of this.

Run as a script this file is the compiling process: `python compile.py JOB OUT`.
"""

import atexit
import contextlib
import hashlib
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

TensorFunction = Callable[..., tuple[Tensor, ...]]
"""Positional tensors in, a tuple of tensors out; may change its arguments in place."""

TIMEOUT = 600.0
"""Seconds after which a compilation, one's own or another process', is given up."""


class CompileError(Exception):
    """The function can't be compiled here; the message is one line. The caller goes on with the function itself."""


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
        package = _cache_folder() / f"{_key(graph, example)}.pt2"
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


def _trace(fn: TensorFunction, example: Sequence[Tensor]) -> torch.fx.GraphModule:
    from torch.fx.experimental.proxy_tensor import make_fx

    graph: torch.fx.GraphModule = make_fx(fn, tracing_mode="real")(*[t.clone() for t in example])
    constants = {k for k, _ in [*graph.named_parameters(), *graph.named_buffers(), *_constants(graph)]}
    lifted = {torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default}
    for node in graph.graph.nodes:
        # a tensor that the function itself makes of a number is lifted; any other came from outside and may change
        if node.op == "get_attr" and node.target in constants and not all(user.target in lifted for user in node.users):
            raise CompileError(f"the function reads a tensor that is not an argument ({node.target})")
    return graph


def _constants(graph: torch.fx.GraphModule) -> Iterator[tuple[str, Tensor]]:
    return ((k, v) for k, v in vars(graph).items() if isinstance(v, Tensor))


def _key(graph: torch.fx.GraphModule, example: Sequence[Tensor]) -> str:
    """The graph, its arguments and whatever else the machine code depends on, hashed."""
    cpu = platform.machine()
    with contextlib.suppress(OSError):
        cpu += next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    parts = [
        graph.code,
        *(f"{t.shape} {t.stride()} {t.dtype} {t.device}" for t in example),
        *(f"{k} {v.tolist()}" for k, v in _constants(graph)),
        Path(__file__).read_text(encoding="utf-8"),
        torch.__version__,
        str(torch.get_num_threads()),
        platform.system(),
        cpu,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _cache_folder() -> Path:
    """$SLM_LAB_CACHE, else the user's cache folder, else a temporary one where that can't be written."""
    given = os.environ.get("SLM_LAB_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slm-lab"
    folder = base / "compiled"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        # of this user alone: what lies there is loaded as code
        folder = Path(tempfile.mkdtemp(prefix="slm-lab-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _compile_once(graph: torch.fx.GraphModule, example: Sequence[Tensor], package: Path) -> None:
    """Compile in a child process; of several processes that want the same package one works and the others wait."""
    with _lock(package.with_suffix(".lock")):
        if package.exists():
            return
        with tempfile.TemporaryDirectory(dir=package.parent) as folder:
            job, out = Path(folder) / "job.pkl", Path(folder) / "out.pt2"
            job.write_bytes(pickle.dumps((graph, [t.clone() for t in example])))
            env = {
                **os.environ,
                "OMP_NUM_THREADS": str(torch.get_num_threads()),
                "TORCHINDUCTOR_CACHE_DIR": str(package.parent.parent / "inductor"),
            }
            command = [sys.executable, "-P", str(Path(__file__).resolve()), str(job), str(out)]
            code, text = _run(command, env)
            if code != 0 or not out.exists():
                lines = [line for line in text.strip().splitlines() if line.strip()]
                raise CompileError(lines[-1][:300] if lines else f"the compiler ended with {code}")
            out.replace(package)


def _run(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Exit code and standard error. In a group of its own: Ctrl-C is for the session, which then ends it."""
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, text = process.communicate(timeout=TIMEOUT)
        except BaseException:
            # the C++ compiler it started too
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            raise
    return process.returncode, text


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


class _Exported(torch.nn.Module):
    """The graph as torch.export wants it."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__()
        self.graph_module = graph

    def forward(self, *args: Tensor) -> Any:
        return self.graph_module(*args)


def _child(job: Path, out: Path) -> None:
    import torch._dynamo
    import torch._inductor

    graph, example = pickle.loads(job.read_bytes())
    # the CPU says what it can do; to ask the compiler too takes seconds, and if it can not the session goes on eagerly
    torch._inductor.config.cpp.vec_isa_ok = True
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with torch.no_grad():
        exported = torch.export.export(_Exported(graph), tuple(example), strict=False)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(out))


if __name__ == "__main__":
    _child(Path(sys.argv[1]), Path(sys.argv[2]))
