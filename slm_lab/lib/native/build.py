"""From C++ text to a function: compiled once, kept in the cache, loaded into this process."""

import ctypes
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from slm_lab.lib.compiler import run_apart
from slm_lab.lib.native.emit import Program
from slm_lab.lib.native.steps import Unsupported

FLAGS = (
    "-march=native",
    "-std=c++17",
    "-fPIC",
    # numbers that are not finite stay what they are, and sums keep their order but where a pragma allows another
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
)
GRAPH = ("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-mprefer-vector-width=512")
"""Nearly as fast as -O3, which takes three times as long to compile."""
KERNELS = Path(__file__).with_name("kernels.cpp")


def compiler() -> str | None:
    """The C++ compiler: $CXX, or what is found."""
    given = os.environ.get("CXX")
    return given or next((found for c in ("g++", "clang++", "c++") if (found := shutil.which(c))), None)


class Native:
    """A compiled recording.

    Args:
        program: what was compiled
        library: the shared library
        inputs: number of arguments
    """

    def __init__(self, program: Program, library: Path, inputs: int) -> None:
        loaded = ctypes.CDLL(str(library))
        self._run, self._loop = loaded.run, loaded.loop
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._loop.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
        self._run.restype = self._loop.restype = None
        self._outputs = program.outputs
        self._scratch = torch.empty(program.scratch + 64, dtype=torch.uint8)
        self._at = -(-self._scratch.data_ptr() // 64) * 64
        self._inputs = inputs
        self._addresses = (ctypes.c_void_p * (inputs + len(program.outputs)))()
        self._steps = (ctypes.c_int64 * (inputs + len(program.outputs)))()

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """As the function that was recorded, for arguments like those it was recorded with."""
        outs = tuple(torch.empty(p.shape, dtype=p.dtype) for p in self._outputs)
        addresses = self._addresses
        for i, t in enumerate((*args, *outs)):
            addresses[i] = t.data_ptr()
        self._run(addresses, self._at)
        return outs

    def loop(self, args: Sequence[Tensor], rows: Mapping[int, Tensor], count: int) -> tuple[Tensor, ...]:
        """See `compile.Compiled`."""
        outs = tuple(torch.empty((count, *p.shape), dtype=p.dtype) for p in self._outputs)
        for i, t in enumerate(args):
            moving = rows.get(i)
            self._addresses[i] = (t if moving is None else moving).data_ptr()
            self._steps[i] = 0 if moving is None else moving.stride(0) * moving.itemsize
        for i, t in enumerate(outs, self._inputs):
            self._addresses[i] = t.data_ptr()
            self._steps[i] = t.stride(0) * t.itemsize
        self._loop(self._addresses, self._at, count, self._steps)
        return outs


def library_path(program: Program, folder: Path) -> Path:
    """Where in a folder the program is once it is compiled; the name depends on all that the machine code does.

    Raises:
        Unsupported: there is no compiler
    """
    return folder / f"{digest(_setting(), program.source)}.so"


def compile_library(program: Program, library: Path) -> None:
    """Compile.

    Args:
        program: C++ text
        library: as `library_path` said, in a folder of this user alone, as it is loaded as code

    Raises:
        Unsupported: the compiler refuses the text
    """
    command = compiler() or ""
    with ThreadPoolExecutor(1) as threads, tempfile.TemporaryDirectory(dir=library.parent) as temp:
        kernels = library.parent / f"{digest(_setting())}.o"
        pending = threads.submit(_compile, [command, "-O3", *FLAGS, "-c", str(KERNELS)], kernels)
        source, graph = Path(temp) / "graph.cpp", Path(temp) / "graph.o"
        source.write_text(program.source, encoding="utf-8")
        _compile([command, *GRAPH, *FLAGS, "-c", str(source)], graph)
        pending.result()
        _compile([command, "-shared", str(graph), str(kernels), "-lm"], library)


def _setting() -> str:
    """All that machine code depends on beside the text."""
    command = compiler()
    if command is None:
        raise Unsupported("no C++ compiler found")
    return "\n".join([command, *FLAGS, *GRAPH, machine(), KERNELS.read_text(encoding="utf-8")])


def digest(*parts: str) -> str:
    """The parts of a text as a name."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def machine() -> str:
    """What machine code for this machine depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), platform.processor())
    return f"{platform.system()} {platform.machine()} {flags}"


def _compile(command: list[str], out: Path) -> None:
    """Run the compiler, unless the file is there; it appears when it is complete."""
    if out.exists():
        return
    with tempfile.TemporaryDirectory(dir=out.parent) as temp:
        made = Path(temp) / out.name
        code, told = run_apart([*command, "-o", str(made)])
        if code:
            lines = [line for line in told.splitlines() if "error" in line] or told.splitlines() or ["no reason given"]
            raise Unsupported(f"the C++ compiler refuses the graph: {lines[0][:200]}")
        made.replace(out)
