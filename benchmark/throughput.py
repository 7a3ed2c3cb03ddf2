"""How fast is the whole training loop? This project and Stable-Baselines3, alternately, in one run.

Once: an environment of its own for the peer, see benchmark/README.md.
Then `uv run benchmark/throughput.py -o data/throughput.json`.

Each measurement is a process of its own, with as many torch threads on either side. Env, nets and hyper-parameters are
the same; on our side log rows, tracking and checkpoints are on. A side prints its result as its last line of output.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workloads import WORKLOADS, slm_lab_spec, workload

ROOT = Path(__file__).resolve().parent.parent
PEER_PYTHON = ROOT / ".peers" / "bin" / "python"
SIDES = ("slm_lab", "sb3")
SESSIONS = 4
"""Of the whole-command comparison; two run at a time on either side."""
COMMAND_FRAMES = 200_000

WARM_UP = 0.1
"""Share of the frames before the clock starts: imports, compilation and the first calls are not the steady state."""


def steady(marks: list[tuple[float, float]], frames: int) -> float:
    """Frames per second from the first mark behind the warm-up to the last one.

    Args:
        marks: (frame, seconds), ascending.
        frames: length of the whole run.
    """
    first = next(mark for mark in marks if mark[0] >= WARM_UP * frames)
    return (marks[-1][0] - first[0]) / (marks[-1][1] - first[1])


def peak_rss_mb() -> float:
    """Most memory this process ever held, without its children."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_slm_lab(name: str, frames: int, seed: int, *, eager: bool) -> dict[str, Any]:
    """One session of this project, in this process."""
    import csv

    import torch

    from slm_lab.experiment.run import Mode, Options, Run
    from slm_lab.experiment.session import Session
    from slm_lab.lib.layout import Layout
    from slm_lab.spec.load import load_spec

    spec, threads = (
        load_spec(slm_lab_spec(name, frames, compile_mode="off" if eager else "on")),
        workload(name)["threads"],
    )
    torch.set_num_threads(threads)
    # as in the process of any session
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout.new(Path(folder), spec.name)
        layout.make_folders()
        options = Options(out=Path(folder), seed=seed, device="cpu", log_level="WARNING", progress=False)
        Session(Run(spec, Mode.TRAIN, layout, threads=threads, options=options)).run()
        with layout.session_df(0, 0).open(newline="") as file:
            rows = list(csv.DictReader(file))
        saved = layout.checkpoint(0, 0).exists()
    if torch.get_num_threads() != threads or not saved:
        raise SystemExit("not a fair run: another number of torch threads, or no checkpoint written")
    marks = [(float(row["frame"]), float(row["wall_t"])) for row in rows]
    return {"fps": steady(marks, frames), "score": float(rows[-1]["total_reward"])}


def run_peer(name: str, frames: int, seed: int) -> dict[str, Any]:
    """The same workload in Stable-Baselines3, in this process."""
    from peer import run_sb3

    marks, score = run_sb3(name, frames, seed)
    return {"fps": steady(marks, frames), "score": score}


def start(side: str, name: str, frames: int, seed: int, *, eager: bool = False) -> subprocess.Popen[str]:
    """One measurement in a process of its own."""
    python = sys.executable if side == "slm_lab" else str(PEER_PYTHON)
    command = [python, __file__, "--side", side, "--workload", name, "--frames", str(frames), "--seed", str(seed)]
    threads = str(workload(name)["threads"])
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    # the peer's environment must not see this project's packages
    env.pop("PYTHONPATH", None)
    env.pop("VIRTUAL_ENV", None)
    return subprocess.Popen(command + ["--eager"] * eager, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the process printed last.

    Raises:
        SystemExit: it failed.
    """
    out, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"a side failed ({process.returncode}): {process.args}")
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def alternate(measure: Any, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Call measure(side, round) for both sides in each round; who is first changes from round to round."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for i in range(rounds):
        for side in SIDES if i % 2 == 0 else SIDES[::-1]:
            found[side].append(measure(side, i))
            print(f"  round {i + 1}/{rounds} {side}: {json.dumps(found[side][-1])}", file=sys.stderr, flush=True)
    return found


def compare_loops(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Steady-state frames per second and peak memory of both sides."""
    w = WORKLOADS[name]
    frames = {"slm_lab": args.frames or w["frames"], "sb3": args.peer_frames or w["peer_frames"]}
    found = alternate(
        lambda side, i: result(start(side, name, frames[side], i, eager=args.eager and side == "slm_lab")),
        args.rounds,
    )
    ours, peer = found["slm_lab"], found["sb3"]
    middle = {side: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for side, rows in found.items()}
    return {
        "workload": name + (" eager" if args.eager else ""),
        "slm_lab": middle["slm_lab"],
        "sb3": middle["sb3"],
        "ratio": statistics.median(a["fps"] / b["fps"] for a, b in zip(ours, peer, strict=True)),
        "rss_ratio": statistics.median(a["peak_rss_mb"] / b["peak_rss_mb"] for a, b in zip(ours, peer, strict=True)),
        "rounds": found,
    }


def time_command(side: str, frames: int, *, warm: Path | None) -> dict[str, Any]:
    """Wall time of training four seeds, two at a time, from the shell's point of view.

    Args:
        side: which.
        frames: of each seed.
        warm: a cache of compiled graphs to use; None: an empty one.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = slm_lab_spec("W1", frames, sessions=SESSIONS)
        file = Path(folder) / "spec.json"
        file.write_text(json.dumps({spec.pop("name"): spec}))
        begin = time.perf_counter()
        if side == "slm_lab":
            env = {**os.environ, "SLM_LAB_CACHE": str(warm or Path(folder) / "cache")}
            command = [str(Path(sys.executable).with_name("slm-lab")), "run", str(file), "throughput_w1", "train"]
            subprocess.run(
                command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        else:
            for pair in range(0, SESSIONS, 2):
                for process in [start("sb3", "W1", frames, seed) for seed in (pair, pair + 1)]:
                    result(process)
        return {"seconds": time.perf_counter() - begin}


def compare_commands(args: argparse.Namespace) -> dict[str, Any]:
    """Wall time of `slm-lab run` on four sessions, start included, against the same four seeds in the peer."""
    frames = args.frames or COMMAND_FRAMES
    with tempfile.TemporaryDirectory() as cache:
        warm = Path(cache) if args.warm else None
        if warm:
            time_command("slm_lab", frames, warm=warm)
        found = alternate(lambda side, _: time_command(side, frames, warm=warm), args.rounds)
    pairs = list(zip(found["slm_lab"], found["sb3"], strict=True))
    return {
        "command": f"{SESSIONS} x {frames} frames of W1, {'warm' if args.warm else 'cold'} start",
        **{side: {"seconds": statistics.median(r["seconds"] for r in rows)} for side, rows in found.items()},
        "ratio": statistics.median(a["seconds"] / b["seconds"] for a, b in pairs),
        "rounds": found,
    }


def table(found: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    if "command" in found[0]:
        lines = ["| command | slm-lab | SB3 | our time over theirs |", "|---|---|---|---|"]
    else:
        lines = ["| workload | slm-lab | SB3 | median ratio | peak memory | ratio |", "|---|---|---|---|---|---|"]
    for row in found:
        ours, peer = row["slm_lab"], row["sb3"]
        if "command" in row:
            cells = [row["command"], f"{ours['seconds']:.1f} s", f"{peer['seconds']:.1f} s", f"{row['ratio']:.2f}"]
        else:
            memory = f"{ours['peak_rss_mb']:.0f} / {peer['peak_rss_mb']:.0f} MB"
            speeds = [f"{side['fps']:.0f} frames/s" for side in (ours, peer)]
            cells = [row["workload"], *speeds, f"{row['ratio']:.2f}x", memory, f"{row['rss_ratio']:.2f}x"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    code = "import gymnasium, sys, torch; print(sys.version.split()[0], torch.__version__, gymnasium.__version__)"
    ask = {"slm_lab": [sys.executable, "-c", code], "sb3": [str(PEER_PYTHON), "-c", code]}
    versions = {k: subprocess.run(c, capture_output=True, text=True, check=True).stdout.split() for k, c in ask.items()}
    named = {k: dict(zip(("python", "torch", "gymnasium"), v, strict=True)) for k, v in versions.items()}
    return {"cores": os.cpu_count(), "cpu": model, "system": platform.system(), **named}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side; the medians count")
    parser.add_argument("--eager", action="store_true", help="without compilation on our side")
    parser.add_argument("--command", action="store_true", help="time the whole command instead of the loop")
    parser.add_argument("--warm", action="store_true", help="with --command: compiled graphs are cached already")
    parser.add_argument("--frames", type=int, help="of our side (with --command: of both); for a quick look")
    parser.add_argument("--peer-frames", type=int, help="of the peer")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for all measurements")
    for name, kind in (("side", str), ("workload", str), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.workloads:
        if name not in WORKLOADS:
            parser.error(f"unknown workload '{name}' (known: {', '.join(WORKLOADS)})")
    return args


def main() -> None:
    """Measure and print."""
    args = arguments()
    if args.side == "slm_lab":
        print(
            json.dumps(
                {**run_slm_lab(args.workload, args.frames, args.seed, eager=args.eager), "peak_rss_mb": peak_rss_mb()}
            )
        )
        return
    if args.side == "sb3":
        print(json.dumps({**run_peer(args.workload, args.frames, args.seed), "peak_rss_mb": peak_rss_mb()}))
        return
    if not PEER_PYTHON.exists():
        raise SystemExit("no .peers environment: see the first lines of this file for the command that makes it")
    if args.command:
        found = [compare_commands(args)]
    else:
        found = [compare_loops(name, args) for name in args.workloads or WORKLOADS]
    print(table(found))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({"machine": machine(), "results": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
