"""The sides of a comparison, each in a process and an environment of its own.

`python sides.py SIDE WORKLOAD FRAMES SEED` is one measurement; its result is the last line of the output, as JSON.
"""

import json
import os
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads import WORKLOADS, slm_lab_spec, workload

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".peers"
BASE = "05e0cc9"
"""The commit that `base` is: this project before small graphs, acting and rollouts were compiled."""
TORCH = "torch==2.15.0 'gymnasium[mujoco]==1.4.0'"
SB3 = "stable-baselines3==2.9.2 sb3-contrib==2.9.0"
OWN = ("slm_lab", "base")
"""Sides that are this project."""
COMMANDS = {
    "base": [
        f"git worktree add .peers/base {BASE}",
        "uv sync --project .peers/base --no-default-groups --extra train",
    ],
    "sb3": [
        "uv venv .peers/sb3",
        f"uv pip install --python .peers/sb3 {SB3} {TORCH} ale-py==0.12.1 opencv-python-headless",
    ],
    "sbx": [
        "uv venv .peers/sbx",
        f"uv pip install --python .peers/sbx sbx-rl==0.28.0 jax==0.10.2 {TORCH}",
    ],
    "rejax": [
        "uv venv .peers/rejax",
        "uv pip install --python .peers/rejax rejax==0.1.3 jax==0.10.2 gymnax==0.0.9",
    ],
}
"""What makes the environment of a side, from the root of the repository."""
WARM_UP = 0.1
"""Share of the frames before the clock starts: imports, compilation and the first calls are not the steady state."""


@dataclass(frozen=True)
class Side:
    """One side."""

    name: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        if self.name == "slm_lab":
            return Path(sys.executable)
        return PEERS / self.name / (".venv/bin/python" if self.name == "base" else "bin/python")

    def can(self, workload_name: str) -> bool:
        """Whether it has this workload."""
        w = workload(workload_name)
        if self.name == "rejax":
            return w["algorithm"] == "ppo" and w["env"]["name"] == "CartPole-v1"
        if self.name == "sbx":
            return w["algorithm"] in ("ppo", "dqn", "sac") and w["net"] != "conv" and w["precision"] == "float32"
        return self.name != "base" or w["algorithm"] in ("ppo", "a2c", "dqn", "sac")

    def frames(self, workload_name: str) -> int:
        """Length of its runs."""
        w = workload(workload_name)
        if self.name == "rejax":
            return int(w["frames"])
        return int(w["frames" if self.name == "slm_lab" else "peer_frames"])


SIDES = {name: Side(name) for name in ("slm_lab", *COMMANDS)}


def steady(marks: list[tuple[float, float]]) -> dict[str, float]:
    """Speed of the steady state, and what came before it.

    Args:
        marks: (frame, seconds), ascending; the first is the start of the training

    Returns:
        fps: frames per second from the first mark behind the warm-up to the last one. compile_s: seconds to that mark
        beyond those that its frames take at that speed, which is compilation and the first calls
    """
    (begin, start), *later = marks
    first = next((m for m in later if m[0] >= begin + WARM_UP * (marks[-1][0] - begin) and m != marks[-1]), marks[0])
    fps = (marks[-1][0] - first[0]) / (marks[-1][1] - first[1])
    return {"fps": fps, "compile_s": max(first[1] - start - (first[0] - begin) / fps, 0.0)}


def peak_rss_mb() -> float:
    """Most memory this process ever held, without its children."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_slm_lab(name: str, frames: int, seed: int, *, eager: bool) -> dict[str, Any]:
    """One session of this project, in this process."""
    spec = slm_lab_spec(name, frames, compile_mode="off" if eager else "on")
    return run_spec(spec, threads=workload(name)["threads"], seed=seed)


def run_spec(
    raw: dict[str, Any], *, threads: int, seed: int, device: str = "cpu", cores: int | None = None
) -> dict[str, Any]:
    """One session of a spec, in this process.

    Args:
        raw: the spec
        threads: of torch
        seed: of the session
        device: torch name
        cores: of the trial; None: of the machine
    """
    import csv

    import torch
    from loguru import logger

    try:
        from slm_lab.experiment.session.run import Mode, Options, Run
        from slm_lab.experiment.session.session import Session
    except ImportError:  # the side `base`, from before `experiment` had rooms
        from slm_lab.experiment.run import Mode, Options, Run

        from slm_lab.experiment.session import Session
    from slm_lab.lib.layout import Layout
    from slm_lab.spec.load import load_spec

    spec = load_spec(raw)
    torch.set_num_threads(threads)
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    # as in the process of any session
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout.new(Path(folder), spec.name)
        layout.make_folders()
        options = Options(out=Path(folder), seed=seed, device=device, log_level="WARNING", progress=False)
        own = {} if cores is None else {"cores": cores}
        Session(Run(spec, Mode.TRAIN, layout, threads=threads, options=options, **own)).run()
        with layout.session_df(0, 0).open(newline="") as file:
            rows = list(csv.DictReader(file))
        saved = layout.checkpoint(0, 0).exists()
    if torch.get_num_threads() != threads or not saved:
        raise SystemExit("not a fair run: another number of torch threads, or no checkpoint written")
    marks = [(0.0, 0.0), *((float(row["frame"]), float(row["wall_t"])) for row in rows)]
    return {"marks": marks, "score": float(rows[-1]["total_reward"] or "nan")}


def main() -> None:
    """One measurement."""
    side, name, frames, seed, *flags = sys.argv[1:]
    if name not in WORKLOADS:
        raise SystemExit(f"unknown workload '{name}'")
    cores = workload(name)["cores"]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if side in OWN:
        found = run_slm_lab(name, int(frames), int(seed), eager="--eager" in flags)
    else:
        import peer

        found = {"sb3": peer.run_sb3, "sbx": peer.run_sbx, "rejax": peer.run_rejax}[side](name, int(frames), int(seed))
    result = steady(found.pop("marks")) | found
    print(json.dumps({**result, "peak_rss_mb": peak_rss_mb()}))


if __name__ == "__main__":
    main()
