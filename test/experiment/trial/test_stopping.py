import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from slm_lab.agent.agent import Agent
from slm_lab.experiment.session.run import Run
from slm_lab.experiment.trial.contain import run_contained
from slm_lab.experiment.trial.stopping import StopRequest
from slm_lab.lib import compile as compiler
from slm_lab.lib.compiler import run_apart


@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize("number", StopRequest.signals)
def test_the_first_signal_raises_a_flag_and_a_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt, match=number.name):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_thread_it_is_a_flag() -> None:
    found: list[bool] = []

    def work() -> None:
        with StopRequest() as stop:
            found.append(stop.is_set())
            stop.set()
            found.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, True]


def test_the_compiler_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A signal that comes upon the compiler ends it, and all it started."""
    pids = tmp_path / "pids"
    script = """if True:
        import subprocess, sys
        child = subprocess.Popen(["sleep", "60"])
        open(sys.argv[1], "w").write(str(child.pid))
        child.wait()"""

    def compile_forever(*args: object) -> None:
        def interrupt() -> None:
            while not (pids.exists() and pids.read_text()):
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        run_apart([sys.executable, "-c", script, str(pids)], dict(os.environ))

    monkeypatch.setattr(compiler, "record", compile_forever)
    begun = time.monotonic()
    with StopRequest() as stop, pytest.raises(compiler.CompileInterrupted):
        compiler.compile_function(lambda x: (x,), [torch.zeros(1)])
    assert stop.is_set()
    assert time.monotonic() - begun < 30
    while alive(int(pids.read_text())):
        assert time.monotonic() - begun < 30
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process still works: one that was killed may wait for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_session_that_was_compiling_can_be_resumed(
    new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise compiler.CompileInterrupted

    run = new_run()
    monkeypatch.setattr(Agent, "maybe_update", interrupted)
    outcome = run_contained(run, report=lambda event: None, stop=lambda: False, forward=False)
    assert outcome is None
    assert not run.layout.crash(0, 0).exists()
