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
    search: Mapping[str, Any] | None = None,
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
        **({"search": search} if search else {}),
    }
    layout.spec().write_text(json.dumps({name: spec}))
    info = {"mode": "train", "options": {}, "versions": {"slm_lab": "6.0.0", "torch": "2.15"}, "status": status}
    info |= {"git_commit": "0123abc", "command": ["slm-lab", "run"], "started": "2026-01-31T12:00:00", "ended": None}
    layout.run_file().write_text(json.dumps({**info, "resumed": []}))
    for i, returns in enumerate(sessions):
        write_session(layout, 0, i, returns, step)
    return layout


def write_session(layout: Layout, trial: int, session: int, returns: Sequence[float | None], step: int = 100) -> None:
    """The table of a session."""
    frames = [step * (k + 1) for k in range(len(returns))]
    write_table(
        layout.session_df(trial, session),
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


def make_search(out: Path, trials: int = 9) -> Layout:
    """A search over a learning rate (log), a discount and a choice; every third trial stopped early, one crashed."""
    name = "ppo_cartpole"
    block = {
        "agent.algorithm.lr__loguniform": [1e-4, 1e-1],
        "agent.algorithm": {"gamma__uniform": [0.9, 0.999]},
        "agent.net.hid_layers__choice": [[64], [64, 64]],
    }
    layout = make_run(out, name, [], search=block)
    info = json.loads(layout.run_file().read_text())
    layout.run_file().write_text(json.dumps({**info, "mode": "search"}))
    records = []
    rows = {}
    for t in range(trials):
        values = {
            "agent.algorithm.lr": 10 ** (-4 + 3 * t / trials),
            "agent.algorithm.gamma": 0.9 + 0.011 * ((5 * t) % 9),
            "agent.net.hid_layers": [64] if t % 2 else [64, 64],
        }
        status = "crashed" if t == 4 else "stopped early" if t % 3 == 2 else "completed"
        length = 4 if status == "stopped early" else 10
        returns = [20.0 + (k + 1) * (3 + t) for k in range(length)]
        write_session(layout, t, 0, returns)
        score = sum(returns) / length
        record = {"trial": t, "values": values, "status": status, "frame": 100 * length, "metric": score}
        records.append({**record, "reason": None, "misuse": False, "crashed_sessions": 0})
        if status != "crashed":
            rows[t] = {"trial": t, "strength": score - 22, "status": status}
    layout.crash(4, 0).write_text("ValueError: no luck\n")
    layout.search_file().write_text(json.dumps({"trials": records, "events": [], "scheduler": {}}))
    layout.trial_data().write_text(json.dumps(rows))
    layout.best_spec().write_text(json.dumps({name: {"agent": {"name": "PPO"}}}))
    return layout
