"""Run folders made by hand: what a run leaves behind, without the run."""

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from slm_lab.lib.layout import Layout

START = datetime(2026, 1, 31, 12)


def write_table(path: Path, columns: Mapping[str, Sequence[float | None]]) -> None:
    """A table as a CsvSink writes it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(["" if v is None else v for v in row] for row in zip(*columns.values(), strict=True))


def make_run(
    out: Path,
    name: str = "ppo_cartpole",
    sessions: Sequence[Sequence[float | None]] = ((10.0, 20.0), (30.0, 40.0)),
    *,
    env: str = "CartPole-v1",
    agent: str = "PPO",
    status: str = "completed",
    step: int = 100,
    **changes: Any,
) -> Layout:
    """A run folder with tables of these returns, a row every `step` frames; `changes` are keys of its algorithm."""
    layout = Layout.new(out, name, START)
    layout.make_folders()
    algorithm = {"name": agent, "gamma": 0.99, "lr": 0.001, **changes}
    spec = {
        "agent": {
            "name": agent,
            "algorithm": algorithm,
            "memory": {"name": "OnPolicyReplay"},
            "net": {"type": "MLPNet"},
        },
        "env": {"name": env, "max_frame": 1000},
        "meta": {"version": 6, "max_session": len(sessions)},
    }
    layout.spec().write_text(json.dumps({name: spec}))
    info = {"mode": "train", "options": {}, "versions": {"slm_lab": "6.0.0", "torch": "2.15"}, "status": status}
    info |= {"git_commit": "0123abc", "command": ["slm-lab", "run"], "started": "2026-01-31T12:00:00", "ended": None}
    layout.run_file().write_text(json.dumps({**info, "resumed": []}))
    for i, returns in enumerate(sessions):
        frames = [step * (k + 1) for k in range(len(returns))]
        write_table(
            layout.session_df(0, i),
            {
                "total_reward": returns,
                "loss": [1 / f for f in frames],
                "frame": frames,
                "wall_t": [f / 50 for f in frames],
                "opt_step": [f // 10 for f in frames],
                "lr": [0.001] * len(frames),
                "episode_length": returns,
            },
        )
    return layout
