"""The compiling process: takes a graph and its arguments from a file, leaves machine code in another.

It is a process of its own because the compiler is large and slow to import, and a session should have neither the
memory nor the seconds of it. `start_ahead` starts one before anybody needs it, so that its imports are done when the
graph comes; it serves one job and ends. Without one, `compile_job` starts its own.

Imports nothing but the standard library until it runs as a script:
`python compiler.py ORDER` (what `_work` takes, as JSON), or `python compiler.py --serve FD FOLDER`.
"""

import atexit
import functools
import gc
import hashlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from enum import IntEnum
from importlib import import_module
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

TUNING = Path(__file__).with_name("tuning.py")
"""What makes torch's compiler quicker."""
TIMEOUT = 600.0
"""Seconds after which a compilation is given up."""
_WAIT = 120.0
"""Seconds that a process which was started ahead waits for its job."""
_VARIABLE = "SLM_LAB_COMPILER"
"""Where the sessions find the socket of a process that was started ahead."""


class Effort(IntEnum):
    """What a session may spend on compilation; `OFF` alone is false. Where one is taken, True is as good as `FULL`."""

    OFF = 0
    QUICK = 1
    """What the quick compiler takes: a second or two a graph."""
    FULL = 2


def cache_folder() -> Path:
    """$SLM_LAB_CACHE, else the user's cache folder, else a temporary one where that can't be written."""
    given = os.environ.get("SLM_LAB_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slm-lab"
    folder = base / "compiled"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        # of this user alone: files there are loaded as code
        folder = Path(tempfile.mkdtemp(prefix="slm-lab-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def start_ahead(about: str) -> None:
    """Start a compiling process now; it ends with its one job, with this process, or when no job comes.

    Nothing is started where this has been called with the same text before: the graph is in the cache by then.
    """
    about = "\n".join([about, Path(__file__).read_text(encoding="utf-8"), version("torch")])
    seen = cache_folder() / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.seen"
    if seen.exists():
        return
    with suppress(OSError):
        seen.touch()
    if _VARIABLE in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="slm-lab-compiler-"))
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        # already here: who asks before the process is ready waits for it
        listener.bind(str(path))
        listener.listen(1)
        # standard input closes when this process ends, however it ends; Ctrl-C is not for the compiler
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve()), "--serve", str(listener.fileno()), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    os.environ[_VARIABLE] = str(path)
    # ended, it is not to stay a zombie for as long as this process trains
    threading.Thread(target=process.wait, daemon=True).start()

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)


def compile_job(job: Path, out: Path, threads: int, inductor: Path) -> str | None:
    """Have a job compiled, by a process that was started ahead if there is one.

    Args:
        job: pickle of (graph, example arguments).
        out: package to be written.
        threads: numeric threads that the machine code will run on.
        inductor: folder for the compiler's own cache.

    Returns:
        None, or what went wrong, in one line.
    """
    order = {"job": str(job), "out": str(out), "threads": threads, "inductor": str(inductor)}
    path = os.environ.get(_VARIABLE)
    if path is not None:
        with suppress(OSError, ValueError):
            return _ask(path, order)
    command = [sys.executable, "-P", str(Path(__file__).resolve()), json.dumps(order)]
    code, errors = run_apart(command, {**os.environ, "OMP_NUM_THREADS": str(threads)})
    if code == 0 and out.exists():
        return None
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"the compiler ended with {code}"


def run_apart(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
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
            _, errors = process.communicate(timeout=TIMEOUT)
        except BaseException:
            # the C++ compiler it started too
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, errors


def _ask(path: str, order: dict[str, Any]) -> str | None:
    """One job for the process behind a socket.

    Raises:
        OSError: it is gone, or has a job already.
        ValueError: it died on the job.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(path)
        with client.makefile("rw", encoding="utf-8") as stream:
            stream.write(json.dumps(order) + "\n")
            stream.flush()
            answer: str | None = json.loads(stream.readline())
            return answer


def _serve(fd: int, folder: Path) -> None:
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    with socket.socket(fileno=fd) as listener:
        _import_compiler(cache_folder().parent / "inductor")
        listener.settimeout(_WAIT)
        conn, _ = listener.accept()
    with conn, conn.makefile("rw", encoding="utf-8") as stream:
        order = json.loads(stream.readline())
        try:
            _work(order)
            answer = None
        except Exception as e:  # noqa: BLE001  whatever it was, the session gets the reason and continues
            lines = str(e).strip().splitlines()
            answer = f"{type(e).__name__}: {lines[-1] if lines else ''}"[:300]
        stream.write(json.dumps(answer) + "\n")


def _end_with_parent(folder: Path) -> None:
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _import_compiler(inductor: Path) -> None:
    """Some ten seconds of imports. The header of the wrapper is compiled beside them, where a second core is idle."""
    with suppress(ImportError):
        import_module("torch._inductor.codecache")
        threading.Thread(target=_tuning().precompile_ahead, args=(inductor,), daemon=True).start()
    import_module("torch._inductor.compile_fx")


@functools.cache
def _tuning() -> Any:
    """The module beside this one; found by its place, as this one may be a script."""
    spec = spec_from_file_location("slm_lab_tuning", TUNING)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _work(order: dict[str, Any]) -> None:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = order["inductor"]
    import torch
    from torch._inductor import config

    class Exported(torch.nn.Module):
        """The graph in the form that torch.export takes."""

        def __init__(self, graph: torch.fx.GraphModule) -> None:
            super().__init__()
            self.graph_module = graph

        def forward(self, *args: torch.Tensor) -> Any:
            return self.graph_module(*args)

    graph, example = pickle.loads(Path(order["job"]).read_bytes())
    config.aot_inductor.precompile_headers = False
    with suppress(ImportError, AttributeError):  # private parts of torch: where they have changed it takes longer
        _tuning().tune(Path(order["inductor"]))
    torch.set_num_threads(order["threads"])
    with torch.no_grad():
        exported = torch.export.export(Exported(graph), tuple(example), strict=False)
        torch._inductor.aoti_compile_and_package(exported, package_path=order["out"])


if __name__ == "__main__":
    # it lives for seconds and has memory enough: looking for garbage takes an eighth of the imports
    gc.disable()
    if sys.argv[1] == "--serve":
        _serve(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        given = json.loads(sys.argv[1])
        _import_compiler(Path(given["inductor"]))
        _work(given)
