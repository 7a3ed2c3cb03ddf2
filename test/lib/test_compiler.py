"""The compiling process: started on demand, or ahead of its job."""

import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from slm_lab.lib import compiler
from slm_lab.lib.compile import _load
from slm_lab.lib.compiler import cache_folder, compile_job, start_ahead
from slm_lab.lib.native.record import record


def _job(folder: Path, factor: float) -> Path:
    graph = record(lambda x: ((x * factor).tanh(),), [torch.ones(8)]).graph
    path = folder / "job.pkl"
    path.write_bytes(pickle.dumps((graph, [torch.ones(8)])))
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, with a cache in it that has nothing but the compiled headers of all other tests."""
    cache = tmp_path / "cache"
    cache.mkdir()
    shared = cache_folder().parent / "inductor"
    shared.mkdir(exist_ok=True)
    (cache / "inductor").symlink_to(shared)
    monkeypatch.setenv("SLM_LAB_CACHE", str(cache))
    # so that what start_ahead sets is taken back
    monkeypatch.setenv("SLM_LAB_COMPILER", "")
    monkeypatch.delenv("SLM_LAB_COMPILER")
    return tmp_path


def test_one_started_ahead_serves_one_job(own_cache: Path) -> None:
    start_ahead("a spec")
    socket = Path(os.environ["SLM_LAB_COMPILER"])
    out = own_cache / "out.pt2"
    assert compile_job(_job(own_cache, 2.0), out, 1, own_cache / "cache" / "inductor") is None
    torch.testing.assert_close(_load(out)(torch.ones(8))[0], torch.full((8,), 2.0).tanh())
    with pytest.raises(OSError, match="refused"):
        _connect(socket)


@pytest.mark.ci
def test_what_goes_wrong_there_is_told(own_cache: Path) -> None:
    start_ahead("a spec")
    broken = own_cache / "job.pkl"
    broken.write_bytes(b"no pickle")
    fault = compile_job(broken, own_cache / "out.pt2", 1, own_cache / "cache" / "inductor")
    assert fault is not None
    assert "UnpicklingError" in fault


@pytest.mark.ci
def test_without_one_a_job_gets_its_own(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM_LAB_COMPILER", str(own_cache / "nobody"))
    broken = own_cache / "job.pkl"
    broken.write_bytes(b"no pickle")
    fault = compile_job(broken, own_cache / "out.pt2", 1, own_cache / "cache" / "inductor")
    assert fault is not None
    assert "UnpicklingError" in fault


def test_it_is_started_once_for_a_spec(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "__file__", own_cache / "script.py")
    (own_cache / "script.py").touch()
    start_ahead("a spec")
    assert os.environ.pop("SLM_LAB_COMPILER")
    start_ahead("a spec")
    assert "SLM_LAB_COMPILER" not in os.environ
    assert len(list(cache_folder().glob("*.seen"))) == 1
    assert cache_folder().is_relative_to(own_cache)


def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    script = """
        import os, signal
        from slm_lab.lib.compiler import start_ahead
        start_ahead("a spec")
        print(os.environ["SLM_LAB_COMPILER"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    env = {**os.environ, "SLM_LAB_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=env, capture_output=True, text=True, check=False
    )
    folder = Path(done.stdout.strip()).parent
    end = time.monotonic() + 60
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not folder.exists()


def test_a_session_does_not_import_the_compiler() -> None:
    script = """
        import sys, torch
        from torch import nn
        from slm_lab.agent.net.optim import Optim
        from slm_lab.lib.native.record import record
        from slm_lab.spec.model import NetSpec
        optim = Optim(nn.Linear(2, 2), NetSpec(type="MLPNet", optim_spec={"name": "Adam", "lr": 0.1}))
        record(lambda p, x: (torch.autograd.grad((p * x).sum(), [p])[0],), [torch.ones(2, requires_grad=True)] * 2)
        print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _connect(path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
