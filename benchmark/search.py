"""What does early stopping save? One search, with ASHA and without, over the same configurations.

`uv run benchmark/search.py -o data/search.json`, on a machine that does nothing else.

The configurations are drawn once, at random, from the search block of the spec; both searches go through them in the
same order, and a trial has the same seed in both. So a trial learns the same, bit for bit, up to where it is stopped;
what can differ is which of them come to their end.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from slm_lab import api
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.search.journal import Journal, TrialStatus
from slm_lab.experiment.search.sampler import Sampler
from slm_lab.lib.cores import available_cores
from slm_lab.lib.layout import Layout
from slm_lab.lib.log import setup
from slm_lab.spec.model import Spec
from slm_lab.spec.search import apply
from slm_lab.spec.search_parse import parse_search

SIDES = ("asha", "full")
SEARCHED = "agent.algorithm"
"""What holds all searched keys; a configuration is one of these objects."""


def configurations(spec: Spec, count: int, seed: int) -> list[dict[str, Any]]:
    """Random draws from the search block, as the objects at SEARCHED.

    Raises:
        SystemExit: the block searches other keys too.
    """
    axes = parse_search(spec)
    if not all(axis.path.startswith(f"{SEARCHED}.") for axis in axes):
        raise SystemExit(f"a search of keys of {SEARCHED} alone can be compared")
    with tempfile.TemporaryDirectory() as folder:
        # it is never told how a trial ended, and so goes on drawing at random
        sampler = Sampler(axes, count, seed, Journal(Path(folder) / "search.json"))
        drawn = [sampler.suggest(str(i))["values"] for i in range(count)]
    return [apply(spec, values).to_dict()["agent"]["algorithm"] for values in drawn]


def fixed(spec: Spec, found: list[dict[str, Any]], frames: int, *, asha: bool) -> Spec:
    """The spec of one of the two searches.

    Args:
        spec: with a search_scheduler.
        found: configurations.
        frames: length of a trial; the grace period keeps its share of it.
        asha: stop poor trials early.
    """
    data = spec.to_dict()
    scheduler = data["meta"]["search_scheduler"]
    scheduler["grace_period"] *= frames / spec.env.max_frame
    data["env"]["max_frame"] = frames
    data["meta"] |= {"max_trial": 1, "search_max_session": 1, "search_scheduler": scheduler if asha else None}
    data["search"] = {f"{SEARCHED}__grid_search": found}
    return Spec.model_validate(data)


def run(spec: Spec, out: Path, seed: int) -> dict[str, Any]:
    """One search: the best metric, and what it cost."""
    begun = time.monotonic()
    done = api.run(spec, mode="search", out=str(out), seed=seed, device="cpu")
    seconds = time.monotonic() - begun
    layout = Layout.open(done.folder)
    records = Journal.open(layout.search_file()).records.values()
    ended = {r.trial: r.metric for r in records if r.status is TrialStatus.COMPLETED and r.metric is not None}
    best = max(ended, key=lambda trial: ended[trial])
    return {
        "best": ended[best],
        "trial": best,
        "frames": sum(record.frame for record in records),
        # with what a trial still did until it heard that it was stopped
        "stepped": sum(int(read_rows(layout.session_df(r.trial, 0))[-1]["frame"] or 0) for r in records),
        "stopped": sum(record.status is TrialStatus.STOPPED for record in records),
        "crashed": sum(record.status is TrialStatus.CRASHED for record in records),
        "seconds": seconds,
        "folder": str(done.folder),
    }


def main() -> None:
    """Run both searches and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("spec_file", nargs="?", default="ppo/ppo_cartpole.json")
    parser.add_argument("spec_name", nargs="?", default="ppo_cartpole")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--frames", type=int, help="of a trial; by default those of the spec")
    parser.add_argument("--seed", type=int, default=0, help="of the configurations and of the trials")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder for the run folders")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    setup("INFO")
    spec = api.load_spec(args.spec_file, args.spec_name)
    found = configurations(spec, args.trials, args.seed)
    frames = args.frames or spec.env.max_frame
    results = {side: run(fixed(spec, found, frames, asha=side == "asha"), args.out, args.seed) for side in SIDES}
    for side, result in results.items():
        words = [
            f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in result.items()
        ]
        print(f"{side}: {', '.join(words)}")
    asha, full = results["asha"], results["full"]
    ratios = {name: asha[name] / full[name] for name in ("best", "frames", "stepped", "seconds")}
    print("asha over full: " + ", ".join(f"{name} {value:.3f}" for name, value in ratios.items()))
    if args.output is not None:
        machine = {"cores": available_cores(), "python": platform.python_version(), "machine": platform.machine()}
        report = {"trials": args.trials, "frames": frames, "seed": args.seed, **results, "ratios": ratios, **machine}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
