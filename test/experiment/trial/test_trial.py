import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import numpy as np
import pytest
import torch
from loguru import logger
from safetensors.torch import load_file

from slm_lab.agent.metrics import Row
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment import launch
from slm_lab.experiment.records.runs import RunFile, Status
from slm_lab.experiment.session.resources import take_device
from slm_lab.experiment.session.run import Crash, Mode, Options, Run, RunResult, SessionResult
from slm_lab.experiment.session.session import Session
from slm_lab.experiment.trial import nursery as nursery_module
from slm_lab.experiment.trial.contain import out_of_memory, to_job
from slm_lab.experiment.trial.pool import Job, Pool
from slm_lab.experiment.trial.trial import Trial, session_count, worker_count
from slm_lab.lib.layout import Layout
from slm_lab.spec.model import Spec

Tiny = Callable[..., Spec]

# two sessions of four end in bad ways; which ones is decided by who comes first to a file
FAULTY = """
import os, signal
from pathlib import Path
import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from loguru import logger

class Faulty(CartPoleEnv):
    fault, steps = None, 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        logger.warning("mind {}", "the gap")
        print("hello from an env")

    def reset(self, **kwargs):
        # the check of the spec, in the first process, goes well
        checked = os.environ.get("FIRST_PROCESS") == str(os.getpid())
        for fault in ("raise", "kill") if self.fault is None and not checked else ():
            try:
                (Path(__file__).parent / fault).open("x").close()
            except FileExistsError:
                continue
            self.fault = fault
            break
        else:
            self.fault = self.fault or "none"
        return super().reset(**kwargs)

    def step(self, action):
        self.steps += 1
        if self.steps == 120 and self.fault == "raise":
            raise ZeroDivisionError("a bug in the env")
        if self.steps == 120 and self.fault == "kill":
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)

gym.register("Faulty-v0", Faulty, max_episode_steps=500)
"""


class Trouble(NamedTuple):
    """A trial of four sessions, of which one raised and one was killed."""

    spec: Spec
    options: Options
    done: RunResult
    layout: Layout
    log: list[str]
    survivors: list[int]

    def crash(self, word: str) -> Crash:
        [crash] = [crash for crash in self.done.crashed if word in crash.reason]
        return crash


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Iterator[Trouble]:
    folder = tmp_path_factory.mktemp("trouble")
    (folder / "faulty_env.py").write_text(FAULTY, encoding="utf-8")
    sys.path.insert(0, str(folder))
    lines: list[str] = []
    handler = logger.add(lines.append, level="DEBUG", format="{level} {message}")
    spec = tiny(
        meta__plugins=["faulty_env"], env__name="Faulty-v0", env__num_envs=1, env__max_frame=400, meta__max_session=4
    )
    options = Options(out=folder / "data", device="cpu", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRST_PROCESS", str(os.getpid()))
        done = launch.run_spec(spec, Mode.TRAIN, options)
    survivors = sorted({0, 1, 2, 3} - {crash.session for crash in done.crashed})
    yield Trouble(spec, options, done, Layout.open(done.folder), lines, survivors)
    logger.remove(handler)
    sys.path.remove(str(folder))


def test_each_crash_is_told_with_its_reason_and_a_file(trouble: Trouble) -> None:
    assert len(trouble.done.crashed) == 2
    assert not trouble.done.stopped
    bug, killed = trouble.crash("ZeroDivisionError: a bug in the env"), trouble.crash("killed by SIGKILL")
    assert bug.file is not None
    assert killed.file is not None
    text = bug.file.read_text(encoding="utf-8")
    assert text.startswith("Traceback")
    assert "faulty_env.py" in text
    assert "last words" in killed.file.read_text(encoding="utf-8")
    assert sum(line.startswith("ERROR session") for line in trouble.log) == 2
    assert any("2 of 4 sessions crashed" in line for line in trouble.log)
    assert RunFile.open(trouble.layout).status is Status.CRASHED


def test_the_others_come_to_their_end(trouble: Trouble) -> None:
    layout = trouble.layout
    assert len(trouble.survivors) == 2
    for session in trouble.survivors:
        assert read_rows(layout.session_df(0, session))[-1]["frame"] == 400
        assert not layout.crash(0, session).exists()
    saved = json.loads(layout.trial_scalar(0).read_text(encoding="utf-8"))
    each = [json.loads(layout.session_scalar(0, s).read_text(encoding="utf-8")) for s in trouble.survivors]
    assert saved["total_reward_ma"] == pytest.approx(sum(m["total_reward_ma"] for m in each) / 2)
    assert trouble.done.metrics["total_reward_ma"] == saved["total_reward_ma"]
    assert layout.graph("tiny_t0_trial_graph", "mean_returns").exists()


def test_a_session_is_the_same_in_a_worker_and_here(trouble: Trouble, tmp_path: Path) -> None:
    session = trouble.survivors[-1]
    layout = Layout.new(tmp_path, "tiny")
    layout.make_folders()
    Session(Run(trouble.spec, Mode.TRAIN, layout, session=session, options=trouble.options)).run()
    here, there = (load_file(where.weights(0, session)) for where in (layout, trouble.layout))
    assert here.keys() == there.keys()
    assert all(here[name].equal(there[name]) for name in here)


def test_what_all_workers_warn_of_is_heard_once(trouble: Trouble) -> None:
    assert sum(line.startswith("WARNING session") and "mind the gap" in line for line in trouble.log) == 1


def test_what_workers_print_is_kept(trouble: Trouble) -> None:
    assert "hello from an env" in trouble.layout.log("tiny_output").read_text(encoding="utf-8")


def test_a_resume_repeats_the_crashed_ones_only(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "_draw", lambda *args: None)
    layout = trouble.layout
    before = {s: layout.checkpoint(0, s).stat().st_mtime_ns for s in trouble.survivors}
    again = launch.resume(trouble.done.folder, trouble.options)
    assert again.crashed == []
    for session in range(4):
        assert read_rows(layout.session_df(0, session))[-1]["frame"] == 400
        assert not layout.crash(0, session).exists()
    assert {s: layout.checkpoint(0, s).stat().st_mtime_ns for s in trouble.survivors} == before
    assert RunFile.open(layout).status is Status.COMPLETED


def test_a_session_in_this_process_that_crashes(tiny: Tiny, options: Options, log_text: list[str]) -> None:
    spec = tiny(agent__net__optim_spec={"name": "SGD", "lr": 1e30})
    done = launch.run_spec(spec, Mode.TRAIN, options)
    [crash] = done.crashed
    # of the user's making: its message says it all
    assert "not finite" in crash.reason
    assert crash.file is not None
    assert crash.file.read_text(encoding="utf-8") == crash.reason + "\n"
    assert done.metrics == {}
    assert any("1 of 1 sessions crashed" in line for line in log_text)


def test_an_env_that_wants_to_end_the_process(
    tiny: Tiny, options: Options, log_text: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*args: object) -> None:
        sys.exit(7)

    monkeypatch.setattr("gymnasium.envs.classic_control.AcrobotEnv.step", leave)
    done = launch.run_spec(tiny(env__name="Acrobot-v1", env__vectorization="sync"), Mode.TRAIN, options)
    [crash] = done.crashed
    assert crash.reason == "SystemExit: 7"
    resume = f"once you have fixed the cause, resume with: slm-lab run train@{done.folder}"
    assert any(resume in line for line in log_text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(10**30),
        lambda: torch.empty(2**62, 4),
        lambda: np.zeros(2**62),
        lambda: np.zeros(10**30),
        lambda: np.zeros((2**40, 2**40)),
    ],
)
def test_sizes_that_no_memory_has(tiny: Tiny, make: Callable[[], object]) -> None:
    with pytest.raises(Exception) as e:  # noqa: PT011  what it is depends on the size
        make()
    assert "not enough memory" in str(out_of_memory(e.value, tiny()))


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"), "2.00 GiB more"),
        (RuntimeError("CUDA error: out of memory"), "more"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "more"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying allocating 3221225472 bytes."), "3.0 GiB more"),
    ],
)
def test_a_full_gpu_is_said_with_what_to_lower(tiny: Tiny, error: Exception, size: str) -> None:
    text = str(out_of_memory(error, tiny()))
    assert f"not enough memory on the GPU: {size} would be needed; it grows with env.num_envs (" in text
    assert text.endswith("and the net; fewer sessions at a time, or --device cpu, would do too")


def test_another_error_is_none_of_memory(tiny: Tiny) -> None:
    assert out_of_memory(RuntimeError("CUDA error: device-side assert triggered"), tiny()) is None


def test_a_session_of_a_search_keeps_to_its_part_of_a_gpu(
    tiny: Tiny, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *args: asked.append(args))
    spec = tiny(meta__search_resources={"gpu": 0.25})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for mode, device in ((Mode.TRAIN, "cuda:1"), (Mode.SEARCH, "cpu"), (Mode.SEARCH, "cuda:1")):
        chosen = replace(options, device=device)
        assert take_device(Run(spec, mode, Layout.new(options.out, "tiny"), threads=1, options=chosen)) == device
    assert asked == [(0.25, "cuda:1")]


def test_dev_mode_is_one_session_in_this_process(tiny: Tiny) -> None:
    spec = tiny(meta__max_session=4)
    assert (session_count(spec, Mode.DEV), worker_count(spec, Mode.DEV)) == (1, 0)
    assert session_count(spec, Mode.TRAIN) == 4
    assert worker_count(spec, Mode.TRAIN) >= 1
    assert worker_count(tiny(), Mode.TRAIN) == 0


def test_a_stopped_trial_begins_no_session(tiny: Tiny, options: Options, log_text: list[str]) -> None:
    layout = Layout.new(options.out, "tiny")
    layout.make_folders()
    done = Trial(tiny(), Mode.TRAIN, layout, options, stop=lambda: True).run()
    assert done.stopped
    assert done.metrics == {}
    assert not layout.checkpoint(0, 0).exists()
    assert sum("stopping" in line for line in log_text) == 1


def test_a_stopped_trial_leaves_its_graphs(tiny: Tiny, options: Options) -> None:
    layout = Layout.new(options.out, "tiny")
    layout.make_folders()
    rows = 0

    def listen(session: int, row: Row | None) -> None:
        nonlocal rows
        rows += 1

    done = Trial(tiny(), Mode.TRAIN, layout, options, stop=lambda: rows >= 2, listen=listen).run()
    assert done.stopped
    assert done.metrics == {}
    assert (layout.root / "graph" / "tiny_t0_s0_session_graph_train_mean_returns_vs_frames.png").exists()
    assert (layout.root / "tiny_t0_trial_graph_mean_returns_ma_vs_frames.png").exists()
    assert not layout.trial_scalar(0).exists()


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[nursery_module.Nursery]]:
    """No nursery of other tests waits, and none is left to them."""
    waiting: list[nursery_module.Nursery] = []
    monkeypatch.setattr(nursery_module, "_IDLE", waiting)
    yield waiting
    for made in waiting:
        made.close()


@pytest.mark.usefixtures("idle")
def test_a_worker_that_still_starts_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery_module, "_START", "import time; time.sleep(60)")
    begun = time.monotonic()
    with Pool(1) as pool:
        pool.run([{"index": 0}], *[pytest.fail] * 3, should_stop=lambda: True)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("born", [True, False])
def test_leaving_a_pool_in_a_hurry_ends_its_workers(born: bool, idle: list[nursery_module.Nursery]) -> None:
    pids: list[int] = []

    def leave() -> None:
        with Pool(2) as pool:
            if not born:
                pids.append(pool._nursery.process.pid)
            else:
                for worker in pool._workers:
                    while worker.process.pid is None:
                        time.sleep(0.05)
                    pids.append(worker.process.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert len(pids) == (2 if born else 1)
    assert len(idle) == born
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)


def job_of(layout: Layout, tiny: Tiny, options: Options, session: int) -> Job:
    return to_job(Run(tiny(), Mode.TRAIN, layout, 0, session, options=options))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the nursery imports nothing")
def test_sessions_share_one_import_and_outlive_its_process(tiny: Tiny, options: Options) -> None:
    layout = Layout.new(options.out, "tiny")
    layout.make_folders()
    done: list[int] = []
    with Pool(1) as pool:
        first = pool._nursery.process.pid

        def on_event(job: Job, told: tuple[int, dict[str, Any]]) -> None:
            if told[0] == 0 and told[1]["kind"] == "begin":
                # a process with threads can't be forked safely
                assert len(list(Path(f"/proc/{first}/task").iterdir())) == 1
                maps = Path(f"/proc/{first}/maps").read_text()
                assert "libtorch_cpu" in maps
                os.kill(first, signal.SIGKILL)

        jobs = [job_of(layout, tiny, options, session) for session in (0, 1)]
        pool.run(jobs, on_event, lambda job, outcome: done.extend(job["sessions"]), pytest.fail)
        assert done == [0, 1]
        os.kill(pool._workers[0].process.pid or 0, signal.SIGKILL)
        pool.run(
            [job_of(layout, tiny, options, 2)], on_event, pytest.fail, lambda job, *why: done.extend(job["sessions"])
        )
        pool.fill(1)
        pool.run(
            [job_of(layout, tiny, options, 3)], on_event, lambda job, outcome: done.extend(job["sessions"]), pytest.fail
        )
        assert done == [0, 1, 2, 3]
        assert pool._nursery.process.pid != first


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the nursery imports nothing")
def test_the_trials_of_a_process_share_one_import(tiny: Tiny, options: Options, tmp_path: Path) -> None:
    found, seen = [], list[dict[str, Any]]()
    for name in ("one", "two"):
        layout = Layout.new(tmp_path, name)
        layout.make_folders()
        job = job_of(layout, tiny, options, 0)
        with Pool(1) as pool:
            found.append(pool._nursery)
            pool.run([job], lambda job, told: seen.append(told[1]), lambda *_: None, pytest.fail)
        assert pool.output == []
    assert [type(event["outcome"]) for event in seen if event["kind"] == "end"] == [SessionResult] * 2
    assert found[0] is found[1]
    died = found[0].process
    died.kill()
    died.wait()
    with Pool(1) as pool:
        assert pool._nursery.process.pid != died.pid


@pytest.mark.usefixtures("idle")
def test_why_no_worker_was_born_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery_module, "_START", "raise SystemExit('no torch here')")
    deaths: list[tuple[str, str]] = []
    with Pool(2) as pool:
        pool.run([{"sessions": [0]}, {"sessions": [1]}], pytest.fail, pytest.fail, lambda job, *why: deaths.append(why))
    # each session has a file that says so
    assert deaths == [("its process ended with exit code 1", "no torch here\n")] * 2
    assert pool.output == ["no torch here\n"]


def test_one_nursery_waits(monkeypatch: pytest.MonkeyPatch, idle: list[nursery_module.Nursery]) -> None:
    monkeypatch.setattr(nursery_module, "_START", "import time; print('said', flush=True); time.sleep(60)")
    nursery_module.start_ahead()
    nursery_module.start_ahead()
    assert len(idle) == 1
    first, second, third = nursery_module.take(), nursery_module.take(), nursery_module.take()
    assert idle == []
    assert len({x.process.pid for x in (first, second, third)}) == 3
    while not (printed := first.printed()):
        time.sleep(0.05)
    assert (printed, first.printed()) == ("said\n", "said\n")
    second.process.kill()
    second.process.wait()
    for nursery in (second, first, third):
        nursery_module.give_back(nursery)
    # one that is dead is no use, nor is one too many
    assert idle == [first]
    # that was of the trial before
    assert first.printed() == ""
    assert third.process.poll() is not None


STUB = """
import os, sys, time, types
def main(conn):
    files = sorted(os.listdir("/proc/self/fd"))
    print(os.getcwd(), os.environ["OMP_NUM_THREADS"], os.environ.get("SAID"), files, flush=True)
    time.sleep(float(os.environ.get("SLEEP", 0)))
    os._exit(7)
sys.modules["slm_lab.experiment.trial.worker"] = types.SimpleNamespace(main=main)
sys.modules["slm_lab.experiment.trial.contain"] = types.ModuleType("contain")
"""


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Iterator[nursery_module.Nursery]:
    """One whose workers do not learn: they print what they have, sleep and end with exit code 7."""
    monkeypatch.setattr(nursery_module, "_START", STUB + nursery_module._START.replace("; ", "\n"))
    made = nursery_module.Nursery()
    yield made
    made.close()


def forked(nursery: nursery_module.Nursery, keep: Sequence[int] = ()) -> tuple[nursery_module.Child, IO[bytes]]:
    output = TemporaryFile()  # noqa: SIM115  closed by the test
    ours, theirs = Pipe()
    with ours, theirs:
        return nursery.fork(theirs.fileno(), output.fileno(), keep), output


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_has_the_folder_the_environment_and_the_files_of_the_moment(
    nursery: nursery_module.Nursery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAID", "later")
    with TemporaryFile() as file:
        # numbers that the nursery's own files might have
        high = [fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, least) for least in (5, 128, 129, 130, 131)]
        child, output = forked(nursery, high)
        assert child.wait(60) == 7
        printed = nursery_module.read_end(output)
        assert printed.startswith(f"{tmp_path} 1 later ")
        assert set(map(str, high)) <= set(re.findall(r"'(\d+)'", printed))
        for number in high:
            os.close(number)
    child.close()
    output.close()


def test_a_worker_that_outlives_its_nursery_is_waited_for(
    nursery: nursery_module.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLEEP", "60")
    child, output = forked(nursery)
    while child.pid is None:
        time.sleep(0.05)
    nursery.process.kill()
    nursery.process.wait()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.kill()
    assert child.wait(10) is None
    child.kill()
    child.close()
    output.close()


def test_a_nursery_hears_of_deaths_where_their_signal_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        monkeypatch.setattr(nursery_module, "_START", STUB + nursery_module._START.replace("; ", "\n"))
        nursery = nursery_module.Nursery()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    child, output = forked(nursery)
    assert child.wait(60) == 7
    # it is dead, and its number may be another's by now
    with monkeypatch.context() as patch:
        patch.setattr(nursery_module.os, "kill", lambda *_: pytest.fail("a stranger was killed"))
        child.kill()
    nursery.close()
    child.close()
    output.close()
