"""Run in an environment that has an env's package: `python package_run.py FOLDER begin|resume`.

FOLDER/env.json holds the `env` of a spec. `begin` trains once without a break, and once until it is stopped on its way;
`resume`, a process of its own, goes on with the latter, compares the two to the bit and plays. Both print what came of
it.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from safetensors.torch import load_file

from slm_lab import api
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.session.run import Mode, Options, Run
from slm_lab.experiment.session.session import Session
from slm_lab.lib.files import write_json
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec

FRAMES, STOP_AT, STOP_AT_ROLLOUT = 200, 55, 3
"""Frames of a run; vector steps until it is stopped, or rollouts where these are played at once."""


def spec_of(env: dict[str, Any]) -> dict[str, Any]:
    """Some updates of PPO, over episodes of at most 25 steps."""
    return {
        "name": "package",
        "agent": {
            "name": "PPO",
            "algorithm": {
                "name": "PPO",
                "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
                "time_horizon": 16,
                "minibatch_size": 16,
                "training_epoch": 1,
            },
            "memory": {"name": "OnPolicyBatchReplay"},
            "net": {"type": "auto", "hid_layers": [16]},
        },
        "env": {"num_envs": 2, "max_t": 25, "max_frame": FRAMES, "vectorization": "sync", **env},
        "meta": {"max_session": 1, "log_frequency": 50, "checkpoint_interval": 3600, "compile": "off"},
    }


def new_run(folder: Path, spec: Any) -> Run:
    layout = Layout.new(folder, spec.name)
    layout.make_folders()
    write_json(layout.spec(), spec.to_dict())
    return Run(spec, Mode.TRAIN, layout, threads=1, options=Options(device="cpu"))


def tables(layout: Layout) -> list[dict[str, Any]]:
    rows = read_rows(layout.session_df(0, 0))
    return [{k: v for k, v in row.items() if k not in ("fps", "wall_t")} for row in rows]


def main(folder: Path, part: str) -> None:
    torch.set_num_threads(1)
    spec = load_spec(spec_of(json.loads((folder / "env.json").read_text(encoding="utf-8"))))
    if part == "begin":
        Session(new_run(folder / "whole", spec)).run()
        steps, stop_at = itertools.count(), STOP_AT_ROLLOUT if spec.env.name.startswith("playground/") else STOP_AT
        stopped = Session(new_run(folder / "parts", spec), stop=lambda: next(steps) >= stop_at).run()
        print(json.dumps({"stopped": stopped.stopped}))
        return
    warnings: list[str] = []
    logger.add(lambda line: warnings.append(str(line).strip()), level="WARNING", format="{message}")
    [parts], [whole] = ([Layout.open(p) for p in (folder / name).iterdir()] for name in ("parts", "whole"))
    Session(Run(spec, Mode.TRAIN, parts, threads=1, options=Options(device="cpu"))).run()
    ours, theirs = (load_file(layout.weights(0, 0)) for layout in (whole, parts))
    exact = tables(whole) == tables(parts) and all(torch.equal(ours[k], theirs[k]) for k in ours)
    episodes = tables(whole)[-1]["epi"]
    returns = api.evaluate(parts.root, 2)
    print(json.dumps({"exact": exact, "episodes": episodes, "returns": returns, "warnings": warnings}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
