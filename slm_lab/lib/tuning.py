"""What makes torch's compiler quicker where one graph is compiled for one kind of machine: this one.

Private parts of torch; where they have changed, compiling takes longer and is right all the same.
"""

import hashlib
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LARGE = 1 << 20
"""Multiplications of a product from which on it counts as large."""
_PATIENCE = 600.0
"""Seconds that a header may take which another process compiles."""


def tune(inductor: Path) -> None:
    """Change the compiler of this process."""
    _flags()
    _ask_less()
    _build_together()
    _large_products()
    _use_headers(inductor)


def precompile_ahead(inductor: Path) -> None:
    """Compile the header of wrappers, if that was not done yet on this machine."""
    from torch._inductor import codecache, cpu_vec_isa

    _flags()
    with suppress(Exception):  # it only saves time, and is made of private parts of torch
        _ask_less()
        mmap, external = codecache.determine_aoti_mmap_flags(0)  # type: ignore[attr-defined]
        command = {
            "aot_mode": True,
            "device_type": "cpu",
            "use_mmap_weights": mmap,
            "use_mmap_weights_external": external,
            "use_relative_path": False,
            "vec_isa": cpu_vec_isa.pick_vec_isa(),
        }
        _precompiled(inductor, codecache._get_cpp_wrapper_header("cpu", aot_mode=True), min_optimize=True, **command)


def _flags() -> None:
    from torch._inductor import config

    # the CPU says what it can do; to ask the compiler too takes seconds, and if it can not, the session runs eagerly
    config.cpp.vec_isa_ok = True
    # line numbers for a debugger take a tenth of the time
    config.aot_inductor.enable_line_tables = False


def _precompiled(inductor: Path, header: str, **command: Any) -> str:
    """A header of torch that the C++ compiler has read already: a file to include.

    Torch would preprocess it at each use, to see whether it has changed; here its version tells.

    Args:
        inductor: folder for the compiler's own cache.
        header: as in an include.
        command: keyword arguments of CppTorchDeviceOptions.
    """
    from torch._inductor import cpp_builder
    from torch.utils._filelock import FileLock

    command.pop("extra_flags", None)
    options = cpp_builder.CppTorchDeviceOptions(**command, precompiling=True)

    def builder(path: Path) -> Any:
        return cpp_builder.CppBuilder(name=str(path), sources=str(path), BuildOption=options)

    about = [version("torch"), cpp_builder.get_compiler_version_info(options.get_compiler()), header]
    about.append(builder(Path("header.h")).get_command_line())
    folder = inductor / "headers"
    path = folder / f"{hashlib.sha256(chr(10).join(about).encode()).hexdigest()[:32]}.h"
    made = Path(builder(path).get_target_file_path())
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(path.with_suffix(".lock")), timeout=_PATIENCE):
        if not made.exists():
            # what was interrupted must not be found later
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                draft = Path(temporary) / path.name
                for file in (draft, path):
                    file.write_text(f"#include <{header}>\n", encoding="ascii")
                builder(draft).build()
                Path(builder(draft).get_target_file_path()).replace(made)
    return str(path)


def _use_headers(inductor: Path) -> None:
    from torch._inductor import codecache, config

    def precompiled(header: str, _: str, **command: Any) -> str | None:
        # kernels are done before the wrapper is, with or without theirs
        return _precompiled(inductor, header, **command) if "aoti_include" in header else None

    _ = codecache._precompile_header  # where torch has another way by now, its own is not used either
    codecache._precompile_header = precompiled  # type: ignore[assignment]
    config.aot_inductor.precompile_headers = True


def _ask_less() -> None:
    """Vector units for 8-bit integers and matrix tiles are not used here: no need to find out whether there are any."""
    from torch._inductor import cpu_vec_isa as isa

    isa.supported_vec_isa_list[:] = [i for i in isa.supported_vec_isa_list if "vnni" not in str(i)]


def _large_products() -> None:
    """Large float32 products by oneDNN where MKL would take twice as long: on processors that are not Intel's.

    Measured on an AMD Zen 5 core, 256 x 256 x 256: MKL 109 GFLOP/s, oneDNN 225. Small ones are faster in MKL there too.
    """
    import torch
    from torch._inductor import ir, mkldnn_ir
    from torch._inductor.lowering import lowerings, permute

    cpuinfo = Path("/proc/cpuinfo")
    libraries: list[Any] = [torch.backends.mkl, torch.backends.mkldnn]
    if not cpuinfo.exists() or "GenuineIntel" in cpuinfo.read_text() or not all(x.is_available() for x in libraries):
        return
    linear: Any = mkldnn_ir.LinearUnary
    mm, addmm = torch.ops.aten.mm.default, torch.ops.aten.addmm.default
    plain_mm, plain_addmm = lowerings[mm], lowerings[addmm]

    def large(x: Any, y: Any) -> bool:
        m, k, n = (int(size) for size in (*x.get_size(), y.get_size()[1]))
        return x.get_dtype() == torch.float32 and m * k * n >= _LARGE

    def by_onednn(x: Any, y: Any, bias: Any = None) -> Any:
        return ir.TensorBox.create(linear.create(x, permute(y, [1, 0]), bias, "none", [], ""))

    def new_mm(x: Any, y: Any, **kwargs: Any) -> Any:
        return by_onednn(x, y) if large(x, y) else plain_mm(x, y, **kwargs)

    def new_addmm(bias: Any, x: Any, y: Any, **kwargs: Any) -> Any:
        fits = large(x, y) and len(bias.get_size()) == 1 and {kwargs.get("alpha", 1), kwargs.get("beta", 1)} == {1}
        return by_onednn(x, y, bias) if fits else plain_addmm(bias, x, y, **kwargs)

    lowerings[mm], lowerings[addmm] = new_mm, new_addmm


def _build_together() -> None:
    """Let the C++ compiler work on wrapper and kernels of a package at the same time, up to the linking."""
    from torch._inductor.cpp_builder import CppBuilder

    build: Callable[[CppBuilder], None] = CppBuilder.build
    started: list[Future[None]] = []
    threads = ThreadPoolExecutor(1)

    def begin(self: CppBuilder) -> None:
        target = Path(self.get_target_file_path())
        if target.name.endswith(".wrapper.o"):
            started.append(threads.submit(build, self))
            return
        if target.suffix != ".o":
            for part in started:
                part.result()
            started.clear()
        build(self)

    CppBuilder.build = begin  # type: ignore[method-assign]
