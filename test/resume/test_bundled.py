"""The bundled specs in every mode, by the command: dev, train killed with kill -9 on its way, resume, enjoy."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.session import checkpoint
from slm_lab.lib.layout import Layout

MAX_FRAME = 16_000
KILLED_AFTER = 6_000
"""Frames; every spec has begun to learn by then."""
SPECS = [
    "sarsa/sarsa_cartpole",
    "dqn/dqn_cartpole",
    "dqn/ddqn_cartpole",
    "dqn/ddqn_per_cartpole",
    "dqn/dueling_dqn_cartpole",
    "qrdqn/qrdqn_cartpole",
    "rainbow/rainbow_cartpole",
    "pqn/pqn_cartpole",
    "pqn/pqn_rnn_cartpole",
    "sac/sac_cartpole",
    "sac/sac_pendulum",
    "sil/ppo_sil_cartpole",
    "dqn/ddqn_per_lunar",
    "sac/sac_lunar_continuous",
    "a3c/a3c_cartpole",
    "ppo/ppo_rnn_cartpole",
]
RACING = {"a3c/a3c_cartpole"}
"""Sessions of these share what they learn: no two runs are the same."""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "slm_lab", "run", *words, "--device", "cpu"]


def shown(*words: str) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def frame(folder: Path) -> int:
    """Of the last log row of the first session of the run in `folder`; 0 where there is none."""
    for table in folder.glob("*/info/*_t0_s0_session_df_train.csv"):
        if rows := read_rows(table):
            return int(rows[-1]["frame"] or 0)
    return 0


def kill_on_the_way(words: list[str], folder: Path) -> None:
    with subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 300
            while frame(folder) < KILLED_AFTER:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.005)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("spec", SPECS)
def test_every_mode(spec: str, tmp_path: Path) -> None:
    name = spec.split("/")[1]
    changes = {
        "env.max_frame": MAX_FRAME,
        "meta.max_session": 2 if spec in RACING else 1,
        "meta.checkpoint_interval": 0,
    }
    words = [f"{spec}.json", name, "train", "--seed", "7"]
    for key, value in changes.items():
        words += ["-s", f"{key}={value}"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"

    shown(f"{spec}.json", name, "dev", "-s", f"env.max_frame={MAX_FRAME}", "--out", str(tmp_path / "dev"))
    kill_on_the_way([*words, "--out", str(killed)], killed)
    shown("train@latest", "--out", str(killed))
    [there] = [Layout.open(path) for path in killed.glob(f"{name}_*")]
    assert checkpoint.load(there.checkpoint(0, 0))["counters"]["frame"] >= MAX_FRAME
    if spec not in RACING:
        shown(*words, "--out", str(whole))
        [here] = [Layout.open(path) for path in whole.glob(f"{name}_*")]
        tables = [
            [{k: v for k, v in row.items() if k not in ("fps", "wall_t")} for row in read_rows(layout.session_df(0, 0))]
            for layout in (here, there)
        ]
        assert tables[0] == tables[1]
        ours, theirs = (load_file(layout.weights(0, 0)) for layout in (here, there))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert "episode 2" in shown("enjoy@latest", "--episodes", "2", "--out", str(killed)).lower()
