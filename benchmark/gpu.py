"""What a GPU brings: every row of the table is a training of its own, eager, compiled, and beside Stable-Baselines3.

On a machine with an NVIDIA GPU, with `slm-lab[train]` installed and nothing else running:

    python benchmark/gpu.py -o data/gpu.json             # all rows, medians of 3 rounds: about half an hour
    python benchmark/gpu.py cartpole_4096 --rounds 1     # one row
    python benchmark/gpu.py --profile pong               # where its time goes, in place of the table

No row needs a network. SB3 and MuJoCo Playground are measured where their packages can be imported.
`--dry-run` plays a few frames of each row on the CPU, through the code that a GPU would run.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from sides import run_spec, steady
from workloads import WORKLOADS, slm_lab_spec

ROOT = Path(__file__).resolve().parent.parent
ENVS = (256, 1024, 4096, 16_384)
"""Numbers of tensor envs, for the table over N."""
DRY_FRAMES = 512
"""Least frames of a dry run; rows that play longer rollouts play one of them."""


def cartpoles(num_envs: int) -> dict[str, Any]:
    """PPO on so many CartPoles that live on the device."""
    spec = slm_lab_spec("W1", 60 * 32 * num_envs)
    spec["agent"]["algorithm"] |= {"time_horizon": 32, "minibatch_size": 8 * num_envs, "training_epoch": 4}
    spec["env"] |= {"num_envs": num_envs, "vectorization": "tensor"}
    return spec


def playground(num_envs: int = 2048) -> dict[str, Any]:
    """PPO on MuJoCo Playground."""
    spec = cartpoles(num_envs)
    spec["env"] |= {"name": "playground/CartpoleBalance", "vectorization": "native", "normalize_obs": True}
    spec["agent"]["net"]["log_std_init"] = 0.0
    return spec


def ppo_continuous() -> dict[str, Any]:
    """The settings of LeanRL's and CleanRL's ppo_continuous_action: 1 env, 2,048 steps, 10 epochs of 32 minibatches."""
    spec = slm_lab_spec("W4", 30 * 2048)
    spec["agent"]["algorithm"] |= {"time_horizon": 2048, "minibatch_size": 64, "training_epoch": 10}
    spec["env"] |= {"name": "HalfCheetah-v5", "num_envs": 1}
    return spec


def td3() -> dict[str, Any]:
    """TD3 with the nets and batches of W3."""
    spec = slm_lab_spec("W3", 20_000)
    kept = ("gamma", "training_frequency", "training_iter", "training_start_step")
    spec["agent"]["algorithm"] = {"name": "TD3", **{k: spec["agent"]["algorithm"][k] for k in kept}}
    return spec


ROWS: dict[str, tuple[dict[str, Any], str | None]] = {
    "pong": (slm_lab_spec("W5", 120 * 2048), "W5"),
    "sac_halfcheetah": (slm_lab_spec("W3", 20_000), "W3"),
    "td3_halfcheetah": (td3(), None),
    "ppo_halfcheetah": (ppo_continuous(), None),
    "ppo_hopper": (slm_lab_spec("W4", 60 * 2048), "W4"),
    "ppo_cartpole": (slm_lab_spec("W1b", 100 * 1024), "W1b"),
    **{f"cartpole_{n}": (cartpoles(n), None) for n in ENVS},
    "playground_2048": (playground(), None),
}
"""Spec of each row, and the workload under which `peer.py` knows it."""
SIDES = ("eager", "compiled", "sb3")


def can(row: str, side: str) -> bool:
    """Whether it can be measured with what is installed."""
    if side == "sb3":
        return ROWS[row][1] is not None and importlib.util.find_spec("stable_baselines3") is not None
    return not row.startswith("playground") or importlib.util.find_spec("mujoco_playground") is not None


def measure(row: str, side: str, seed: int, device: str, *, dry: bool) -> dict[str, Any]:
    """One training, in this process."""
    spec, peer_name = json.loads(json.dumps(ROWS[row][0])), ROWS[row][1]
    if side == "sb3":
        import peer

        assert peer_name is not None
        os.environ["PEER_DEVICE"] = device
        return steady(peer.run_sb3(peer_name, WORKLOADS[peer_name]["peer_frames"], seed)["marks"])
    if dry:
        algorithm, env = spec["agent"]["algorithm"], spec["env"]
        env["num_envs"] = min(env["num_envs"], 8)
        if "time_horizon" in algorithm:
            algorithm |= {"time_horizon": min(algorithm["time_horizon"], 32), "minibatch_size": 64}
        env["max_frame"], spec["meta"]["log_frequency"] = DRY_FRAMES, 64
    spec["meta"]["compile"] = "on" if side == "compiled" else "off"
    cores = len(os.sched_getaffinity(0))
    found = run_spec(spec, threads=max(1, cores // 2), seed=seed, device=device, cores=cores)
    return steady(found["marks"])


def apart(row: str, side: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own, where what is allocated and compiled spoils nothing else."""
    command = [sys.executable, __file__, row, "--one", side, str(seed), "--device", args.device]
    done = subprocess.run([*command, *["--dry-run"] * args.dry_run], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return {"failed": done.returncode}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def profile(row: str, args: argparse.Namespace) -> str:
    """Where the time of a compiled training goes: the operations that took most of it."""
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if args.device.startswith("cuda"):
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        key = "self_device_time_total"
    with torch.profiler.profile(activities=activities) as found:
        measure(row, "compiled", 0, args.device, dry=args.dry_run)
    return str(found.key_averages().table(sort_by=key, row_limit=25))


def table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Medians of frames per second as Markdown, one line per row; a side that failed in all rounds says so."""
    lines = ["| row | eager | compiled | compiled / eager | SB3 | compiled / SB3 |", "|---|---|---|---|---|---|"]
    for row, sides in found.items():
        speeds = {}
        for side, rounds in sides.items():
            good = [r["fps"] for r in rounds if "fps" in r]
            speeds[side] = statistics.median(good) if good else None

        def told(side: str, speeds: dict[str, Any] = speeds) -> str:
            return "-" if side not in speeds else "failed" if speeds[side] is None else f"{speeds[side]:,.0f}"

        def over(side: str, speeds: dict[str, Any] = speeds) -> str:
            ours, theirs = speeds.get("compiled"), speeds.get(side)
            return f"{ours / theirs:.2f}x" if ours and theirs else "-"

        cells = [row, told("eager"), told("compiled"), over("eager"), told("sb3"), over("sb3")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine(device: str) -> dict[str, Any]:
    """Card, driver, versions and command: what a figure is worth nothing without."""
    import torch

    from slm_lab.experiment.records import runs

    found = {**runs.machine(), **runs.versions(), "cuda": torch.version.cuda, "command": " ".join(sys.argv)}
    if device.startswith("cuda"):
        found["card"] = torch.cuda.get_device_name(device)
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each side; the medians count")
    parser.add_argument("--device", default="cuda", help="torch name; default cuda")
    parser.add_argument("--dry-run", action="store_true", help="a few frames on the CPU")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for all measurements; written after each row")
    args = parser.parse_args()
    for row in args.rows:
        if row not in ROWS:
            parser.error(f"unknown row '{row}' (known: {', '.join(ROWS)})")
    if args.dry_run:
        # an index: tensor envs then take the way of a GPU
        args.device, args.rounds = "cpu:0", 1
    return args


def main() -> None:
    """Measure and print."""
    args = arguments()
    if args.one:
        side, seed = args.one
        print(json.dumps(measure(args.rows[0], side, int(seed), args.device, dry=args.dry_run)))
        return
    if args.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("no NVIDIA GPU here: --dry-run tries the rows on the CPU, --device cpu measures there")
    rows = [row for row in args.rows or ROWS if can(row, "compiled")]
    if args.profile:
        for row in rows:
            print(f"{row}\n{profile(row, args)}")
        return
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        sides = [side for side in SIDES if can(row, side) and not (args.dry_run and side == "sb3")]
        found[row] = {side: [] for side in sides}
        for i in range(args.rounds):
            for side in (*sides[i % len(sides) :], *sides[: i % len(sides)]):
                found[row][side].append(apart(row, side, i, args))
                print(f"  {row} {side}: {json.dumps(found[row][side][-1])}", file=sys.stderr, flush=True)
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"machine": machine(args.device), "results": found}, indent=2)
            args.output.write_text(text + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
