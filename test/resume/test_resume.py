"""A run that is interrupted in whatever way, and resumed, ends as one that never was: weights and rows, to the bit."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.forked import Forked
from support.specs import replace

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment import launch
from slm_lab.experiment.records.runs import RunFile, Status
from slm_lab.experiment.session.resources import thread_share
from slm_lab.experiment.session.run import Mode, Options, Run, RunResult
from slm_lab.experiment.session.session import Session, checkpoint
from slm_lab.experiment.trial.trial import Trial
from slm_lab.lib.cores import available_cores
from slm_lab.lib.files import write_json
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

MAX_FRAME = 3000
DECAY: dict[str, Any] = {"name": "linear_decay", "start_val": 0.05, "end_val": 0.0, "end_step": MAX_FRAME}
RATE = {"name": "LinearToZero", "frame": MAX_FRAME}
NORMAL = {"normalize_obs": True, "normalize_reward": True}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "reinforce": {
        "algorithm": {"name": "Reinforce", "training_frequency": 50, "entropy_coef_spec": DECAY},
        "net": {"hid_layers": [16], "optim_spec": {"name": "Adam", "lr": 0.002}},
    },
    "a2c_gae": {
        "algorithm": {"name": "ActorCritic", "lam": 0.95, "training_frequency": 32, "entropy_coef_spec": DECAY},
        "net": {"hid_layers": [16], "optim_spec": {"name": "AdamW", "lr": 0.002}, "lr_scheduler_spec": RATE},
    },
    "a2c_nstep": {
        "algorithm": {"name": "ActorCritic", "num_step_returns": 5, "entropy_coef_spec": DECAY},
        "net": {
            "shared": True,
            "hid_layers": [16],
            "optim_spec": {"name": "RMSprop", "lr": 0.001},
            "clip_grad_val": 0.5,
        },
    },
    "ppo": {
        "algorithm": {
            "name": "PPO",
            "clip_eps_spec": {**DECAY, "start_val": 0.2},
            "entropy_coef_spec": DECAY,
            "time_horizon": 32,
            "minibatch_size": 48,
            "training_epoch": 3,
        },
        "net": {"hid_layers": [16], "lr_scheduler_spec": RATE, "clip_grad_val": 0.5},
    },
    "ppo_sil": {
        "algorithm": {
            "name": "PPOSIL",
            "clip_eps_spec": {**DECAY, "start_val": 0.2},
            "time_horizon": 32,
            "training_epoch": 1,
            "sil_policy_loss_coef": 0.5,
            "sil_val_loss_coef": 0.1,
        },
        "memory": {"name": "OnPolicyBatchReplay", "sil_replay_name": "PrioritizedReplay", "max_size": 500},
        "net": {"hid_layers": [16]},
    },
    "sac": {
        "algorithm": {
            "name": "SoftActorCritic",
            "num_step_returns": 3,
            "training_start_step": 500,
            "policy_delay": 2,
            "entropy_anneal": {"start_ratio": 0.9, "end_ratio": 0.5, "frames": MAX_FRAME},
        },
        "memory": {"name": "PrioritizedReplay", "batch_size": 16, "max_size": 1000, "alpha": 0.6, "epsilon": 0.01},
        "net": {"hid_layers": [16], "lr_scheduler_spec": RATE, "update_type": "polyak", "polyak_coef": 0.05},
        "env": {"name": "CartPole-v1", "frame_op": "concat", "frame_op_len": 2, **NORMAL},
    },
}
RENORM = {"LazyBatchRenorm1d": {"momentum": 0.01, "eps": 0.001, "warmup_steps": 300}}
ALGORITHMS["crossq"] = {
    "algorithm": {"name": "CrossQ", "training_iter": 1, "training_start_step": 500, "policy_delay": 3},
    "memory": {"name": "Replay", "batch_size": 16, "max_size": 1000},
    "net": {
        "type": "TorchArcNet",
        "arc": {
            "modules": {"body": {"Sequential": [{"LazyLinear": [16]}, RENORM, "ReLU"]}},
            "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"},
        },
    },
}
PENDULUM = {"name": "Pendulum-v1"}
CRITIC = {"LazyBatchRenorm1d": {"momentum": 0.01, "r_max": 1.0, "d_max": 0.0}}
ALGORITHMS["td3"] = {
    "algorithm": {"name": "TD3", "training_frequency": 4, "training_start_step": 500, "explore_var_spec": DECAY},
    "memory": {"name": "Replay", "batch_size": 16, "max_size": 1000},
    "net": {"hid_layers": [16], "update_type": "polyak", "polyak_coef": 0.05},
    "env": PENDULUM,
}
ALGORITHMS["tqc"] = {
    "algorithm": {"name": "TQC", "training_frequency": 4, "training_start_step": 500, "num_critics": 2},
    "memory": {"name": "PrioritizedReplay", "batch_size": 16, "max_size": 1000, "alpha": 0.6, "epsilon": 0.01},
    "net": {"hid_layers": [16], "update_type": "polyak", "polyak_coef": 0.05},
    "env": PENDULUM,
}
ALGORITHMS["xqc"] = {
    "algorithm": {"name": "XQC", "training_frequency": 4, "training_start_step": 500, "atoms": 11},
    "memory": {"name": "Replay", "batch_size": 16, "max_size": 1000},
    "net": {
        "type": "TorchArcNet",
        "arc": {
            "modules": {"body": {"Sequential": [{"LazyLinear": [16]}, CRITIC, "ReLU"]}},
            "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"},
        },
        "update_type": "polyak",
        "polyak_coef": 0.05,
    },
    "env": PENDULUM | NORMAL,
}
ALGORITHMS["rainbow"] = {
    "algorithm": {"name": "Rainbow", "atoms": 11, "v_min": 0.0, "v_max": 30.0, "training_frequency": 8},
    "memory": {"name": "PrioritizedReplay", "batch_size": 16, "max_size": 1000, "alpha": 0.6, "epsilon": 0.01},
    "net": {"hid_layers": [16], "lr_scheduler_spec": RATE, "update_frequency": 100},
}
ALGORITHMS["pqn"] = {
    "algorithm": {"name": "PQN", "explore_var_spec": DECAY, "time_horizon": 16, "minibatch_size": 32},
    "net": {"hid_layers": [16], "layer_norm": True, "lr_scheduler_spec": RATE},
}
ALGORITHMS["ppo_rnn"] = {
    "algorithm": {**ALGORITHMS["ppo"]["algorithm"], "minibatch_size": 64},
    "net": {"type": "RecurrentNet", "cell_type": "LSTM", "rnn_hidden_size": 8, "seq_len": 8},
}
ALGORITHMS["ppo_compiled"] = {
    "algorithm": {**ALGORITHMS["ppo"]["algorithm"], "minibatch_size": 64},
    "net": ALGORITHMS["ppo"]["net"],
    "meta": {"compile": "on"},
}
SLOW = """
import os, time
from slm_lab.agent.agent import Agent
from slm_lab.experiment.session.rollouts import Rollouts

delay = float(os.environ.get("SLOW", 0))
if delay:
    observe = Agent.observe

    def slow_observe(self, *args):
        time.sleep(delay)
        return observe(self, *args)

    # whole rollouts are played past the agent
    play = Rollouts.play

    def slow_play(self, steps):
        time.sleep(delay * steps)
        return play(self, steps)

    Agent.observe, Rollouts.play = slow_observe, slow_play
"""
FAMILIES: dict[str, dict[str, Any]] = {
    "classic control": {"name": "Acrobot-v1", "max_t": 60, "frame_op": "concat", "frame_op_len": 3},
    "box2d": {"name": "LunarLander-v3", **NORMAL},
    "box2d in processes": {"name": "BipedalWalker-v3", "max_t": 60, "vectorization": "async", **NORMAL},
    "mujoco": {"name": "Hopper-v5", **NORMAL},
    "atari": {
        "name": "ALE/Breakout-v5",
        "img_height": 16,
        "img_width": 16,
        "max_t": 60,
        "life_loss_info": True,
        **NORMAL,
    },
}
CONV = {"type": "ConvNet", "shared": True, "conv_hid_layers": [[4, 4, 2, 0, 1]], "fc_hid_layers": [16]}
CHILD = """
import sys
from slm_lab import api
done = api.run(sys.argv[1], out=sys.argv[2], device="cpu") if sys.argv[3] == "run" else api.resume(out=sys.argv[2])
print("stopped" if done.stopped else "ended")
"""


@pytest.fixture
def spec(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """Of the algorithm given as the parameter (a2c_gae by default), slow where SLOW says so; its file is spec.json."""
    (tmp_path / "slow_env.py").write_text(SLOW, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    parts = ALGORITHMS[getattr(request, "param", "a2c_gae")]
    raw = {
        "name": "small",
        "agent": {
            "name": "agent",
            "memory": parts.get("memory", {"name": "OnPolicyBatchReplay"}),
            "algorithm": parts["algorithm"],
            "net": {"type": "MLPNet", **parts["net"]},
        },
        "env": {"name": "CartPole-v1", "num_envs": 4, "max_frame": MAX_FRAME, **parts.get("env", {})},
        "meta": {
            "log_frequency": 200,
            "checkpoint_interval": 0,
            "compile": "off",
            "plugins": ["slow_env"],
            "rigorous_eval": 1,
            "eval_frequency": 1000,
            **parts.get("meta", {}),
        },
    }
    write_json(tmp_path / "spec.json", raw)
    return load_spec(raw)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    # graphs take longer than these runs
    monkeypatch.setattr(Trial, "_draw", lambda *args: None)
    return Options(out=tmp_path / "data", device="cpu", progress=False)


@contextmanager
def child(folder: Path, what: str = "run", delay: float = 0.002) -> Iterator[Forked]:
    """The spec in `folder`, run in a process group of its own, slowly enough to be caught on its way."""
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        words = [str(folder / "spec.json"), str(folder / "data"), what]
        process = Forked(CHILD, words, env={"SLOW": str(delay)}, path=[str(folder)], output=output)
        try:
            yield process
        finally:
            process.end()


def output_of(folder: Path) -> str:
    return (folder / "output.txt").read_text(encoding="utf-8")


def wait_for(happened: Callable[[], bool], process: Forked, folder: Path) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, output_of(folder)
        assert time.monotonic() < end, output_of(folder)
        time.sleep(0.01)


def checkpoints(folder: Path, sessions: int = 1) -> Callable[[], bool]:
    """Whether each session has saved twice, so that a newest checkpoint and one before it are there."""
    return lambda: len(list(folder.glob("data/*/model/*_ckpt.pt.prev"))) == sessions


def new_run(spec: Spec, out: Path, session: int = 0) -> Run:
    layout = Layout.new(out, spec.name)
    layout.make_folders()
    write_json(layout.spec(), spec.to_dict())
    threads = thread_share(spec, available_cores())
    return Run(spec, Mode.TRAIN, layout, session=session, threads=threads, options=Options(device="cpu"))


def run_whole(spec: Spec, folder: Path, session: int = 0) -> Run:
    """The session, never interrupted."""
    run = new_run(spec, folder / "whole", session)
    # sums over another number of threads may differ in their last bit
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        Session(run).run()
    finally:
        torch.set_num_threads(before)
    return run


def assert_same(run: Run, folder: Path) -> None:
    """The session's files are those of an uninterrupted run."""
    here, there = run.layout, Layout.open(folder)
    t, s = run.trial, run.session
    for kind in ("train", "eval"):
        rows = [read_rows(layout.session_df(t, s, kind)) for layout in (here, there)]
        timeless = [[{k: v for k, v in row.items() if k not in ("fps", "wall_t")} for row in table] for table in rows]
        assert timeless[0] == timeless[1]
        assert rows[0][-1]["frame"] == MAX_FRAME
    for best in (False, True):
        ours, theirs = (load_file(layout.weights(t, s, best=best)) for layout in (here, there))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def frames(folder: Path, session: int = 0) -> int:
    return int(checkpoint.load(Layout.open(folder).checkpoint(0, session))["counters"]["frame"])


def only_run(folder: Path) -> Path:
    [found] = (folder / "data").iterdir()
    return found


@pytest.mark.parametrize("spec", ALGORITHMS, indirect=True)
def test_killed_and_resumed(spec: Spec, options: Options, tmp_path: Path) -> None:
    with child(tmp_path) as process:
        wait_for(checkpoints(tmp_path), process, tmp_path)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    folder = only_run(tmp_path)
    assert 0 < frames(folder) < MAX_FRAME
    assert RunFile.open(Layout.open(folder)).status is Status.RUNNING
    done = launch.resume("latest", options)
    assert done == RunResult(folder, done.metrics)
    assert done.metrics["frame"] == MAX_FRAME
    assert RunFile.open(Layout.open(folder)).status is Status.COMPLETED
    assert_same(run_whole(spec, tmp_path), folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_killed_and_resumed_in_every_family_of_envs(spec: Spec, options: Options, tmp_path: Path, family: str) -> None:
    raw = spec.to_dict()
    raw["env"] |= FAMILIES[family]
    if family == "atari":
        raw["agent"]["net"] = CONV
    spec = load_spec(raw)
    write_json(tmp_path / "spec.json", spec.to_dict())
    with child(tmp_path) as process:
        wait_for(checkpoints(tmp_path), process, tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    folder = only_run(tmp_path)
    assert 0 < frames(folder) < MAX_FRAME
    assert not launch.resume("latest", options).stopped
    assert_same(run_whole(spec, tmp_path), folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_and_resumed(spec: Spec, options: Options, tmp_path: Path, number: int) -> None:
    with child(tmp_path) as process:
        wait_for(checkpoints(tmp_path), process, tmp_path)
        process.send_signal(number)
        process.wait(60)
    output = output_of(tmp_path)
    folder = only_run(tmp_path)
    # all is saved, and the script ends as the signal ends any other
    assert process.returncode == -number
    assert not output.rstrip().endswith(("stopped", "ended"))
    assert f"slm-lab run train@{folder}" in output
    assert 0 < frames(folder) < MAX_FRAME
    assert RunFile.open(Layout.open(folder)).status is Status.STOPPED
    assert not launch.resume(folder, options, "small").stopped
    assert_same(run_whole(spec, tmp_path), folder)


@pytest.mark.skipif(available_cores() < 2, reason="two sessions at a time want two cores")
@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_sessions_in_workers_are_stopped_or_orphaned_and_resumed(
    spec: Spec, options: Options, tmp_path: Path, number: int
) -> None:
    write_json(tmp_path / "spec.json", replace(spec, "meta.max_session", 2).to_dict())
    with child(tmp_path) as process:
        wait_for(checkpoints(tmp_path, 2), process, tmp_path)
        if number != signal.SIGKILL:
            # as a terminal sends it: to the workers too
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(60)
    folder = only_run(tmp_path)
    # the resume waits for orphans: they hold the lock until they have saved
    assert not launch.resume(folder, options).stopped
    for session in range(2):
        assert frames(folder, session) > 0
        assert_same(run_whole(spec, tmp_path, session), folder)
    logs = [Layout.open(folder).log(f"small_t0_s{i}").read_text(encoding="utf-8") for i in range(2)]
    assert all("resumes at frame" in log for log in logs)


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["shared", "synced"])
def test_a_distributed_run_is_killed_and_goes_on(spec: Spec, options: Options, tmp_path: Path, kind: str) -> None:
    """Not bit for bit: its sessions race. But from what was learned last, and without a frame or a row twice."""
    spec = replace(replace(spec, "meta.max_session", 2), "meta.distributed", kind)
    write_json(tmp_path / "spec.json", spec.to_dict())
    with child(tmp_path) as process:
        wait_for(checkpoints(tmp_path, 2), process, tmp_path)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    folder = only_run(tmp_path)

    def saved() -> list[dict[str, Any]]:
        return [checkpoint.load(Layout.open(folder).checkpoint(0, i)) for i in range(2)]

    def steps(states: list[dict[str, Any]]) -> float:
        return max(float(state["agent"]["algorithm"]["optims"]["net"]["state"]["step"]) for state in states)

    before = saved()
    assert 0 < max(state["counters"]["frame"] for state in before) < MAX_FRAME
    done = launch.resume(folder, options)
    assert (done.crashed, done.stopped) == ([], False)
    after = saved()
    assert all(MAX_FRAME <= state["counters"]["frame"] < MAX_FRAME + 2 * spec.env.num_envs for state in after)
    assert steps(after) > steps(before) > 0
    for session in range(2):
        assert after[session]["counters"]["t"] > before[session]["counters"]["t"]
        rows = [int(row["frame"] or 0) for row in read_rows(Layout.open(folder).session_df(0, session))]
        assert len(rows) == MAX_FRAME // 200
        assert rows == sorted(set(rows))


def test_the_newest_checkpoint_is_damaged(spec: Spec, tmp_path: Path) -> None:
    run = new_run(spec, tmp_path)
    asked = iter(range(10_000))
    Session(run, stop=lambda: next(asked) >= MAX_FRAME // 8).run()
    folder = run.layout.root
    newest = frames(folder)
    path = run.layout.checkpoint(0, 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < frames(folder) < newest
    Session(run).run()
    assert_same(run_whole(spec, tmp_path), folder)


def test_a_second_signal_stops_at_once(spec: Spec, tmp_path: Path) -> None:
    # each step takes longer than the test waits
    with child(tmp_path, delay=60) as process:
        wait_for(lambda: bool(list(tmp_path.glob("data/*/info/*_run.json"))), process, tmp_path)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert "KeyboardInterrupt" in output_of(tmp_path)
    assert RunFile.open(Layout.open(only_run(tmp_path))).status is Status.STOPPED
