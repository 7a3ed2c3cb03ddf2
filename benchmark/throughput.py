"""How fast is the whole training loop? This project beside other labs and its own past, alternately, in one run.

Once: an environment for each side, see benchmark/README.md, or `uv run benchmark/throughput.py --setup`.
Then `uv run benchmark/throughput.py -o data/throughput.json`.

Each measurement is a process of its own, on as many cores on every side. Env, nets and hyper-parameters are the same;
on our side log rows, tracking and checkpoints are on.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sides import COMMANDS, OWN, ROOT, SIDES
from workloads import WORKLOADS, slm_lab_spec, workload

SESSIONS = 4
"""Of the whole-command comparison; two run at a time on every side."""
COMMAND_FRAMES = 200_000
COMMAND_SIDES = ("slm_lab", "base", "sb3")
BATCH = "batch"
"""This project with meta.batch_sessions; of the whole-command comparison alone."""


def start(side: str, name: str, frames: int, seed: int, *, cache: Path | None, eager: bool = False) -> Any:
    """One measurement in a process of its own.

    Args:
        side: which
        name: of the workload
        frames: length of the run
        seed: of the run
        cache: of compiled graphs; None: the user's
        eager: without compilation, on our side
    """
    script = Path(__file__).with_name("sides.py")
    command = [str(SIDES[side].python), str(script), side, name, str(frames), str(seed), *["--eager"] * eager]
    threads = str(workload(name)["threads"])
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if cache is not None:
        env["SLM_LAB_CACHE"] = str(cache)
    # the peer's environment must not see this project's packages
    env.pop("PYTHONPATH", None)
    env.pop("VIRTUAL_ENV", None)
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)


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


def alternate(measure: Callable[[str, int], Any], sides: Sequence[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Call measure(side, round) for all sides in each round; the order changes from round to round."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for i in range(rounds):
        first = i % len(sides)
        for side in (*sides[first:], *sides[:first]):
            found[side].append(measure(side, i))
            print(f"  round {i + 1}/{rounds} {side}: {json.dumps(found[side][-1])}", file=sys.stderr, flush=True)
    return found


def compare(found: dict[str, list[dict[str, Any]]], key: str) -> dict[str, float]:
    """Medians of the rounds' ratios: ours over each other side's."""
    ours = [row[key] for row in found["slm_lab"]]
    return {
        side: statistics.median(a / row[key] for a, row in zip(ours, rows, strict=True))
        for side, rows in found.items()
        if side != "slm_lab"
    }


def compare_loops(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Frames per second of the steady state, seconds of compilation, peak memory, and score of all sides."""
    sides = [side for side in args.sides if SIDES[side].can(name)]

    def measure(side: str, seed: int) -> dict[str, Any]:
        asked = args.frames if side == "slm_lab" else args.peer_frames
        frames = asked or SIDES[side].frames(name)
        eager = args.eager and side == "slm_lab"
        with tempfile.TemporaryDirectory() as empty:
            return result(start(side, name, frames, seed, cache=Path(empty) if args.cold else None, eager=eager))

    found = alternate(measure, sides, args.rounds)
    return {
        "workload": name + (" eager" if args.eager else ""),
        "median": {side: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for side, rows in found.items()},
        "ratio": compare(found, "fps"),
        "rss_ratio": compare(found, "peak_rss_mb"),
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
        if side == BATCH:
            spec["meta"]["batch_sessions"] = True
        file = Path(folder) / "spec.json"
        file.write_text(json.dumps({spec.pop("name"): spec}))
        cache = warm or Path(folder) / "cache"
        begin = time.perf_counter()
        if side in (*OWN, BATCH):
            env = {**os.environ, "SLM_LAB_CACHE": str(cache / side)}
            python = SIDES["slm_lab" if side == BATCH else side].python
            command = [str(python.with_name("slm-lab")), "run", str(file), "throughput_w1", "train"]
            subprocess.run(
                command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        else:
            for pair in range(0, SESSIONS, 2):
                for process in [start(side, "W1", frames, seed, cache=None) for seed in (pair, pair + 1)]:
                    result(process)
        return {"seconds": time.perf_counter() - begin}


def compare_commands(args: argparse.Namespace) -> dict[str, Any]:
    """Wall time of `slm-lab run` on four sessions, start included, against the same four seeds elsewhere."""
    frames = args.frames or COMMAND_FRAMES
    sides = [side for side in args.sides if side in COMMAND_SIDES] + [BATCH] * args.batch
    with tempfile.TemporaryDirectory() as cache:
        warm = Path(cache) if args.warm else None
        for side in set(sides).intersection((*OWN, BATCH)) if warm else ():
            time_command(side, frames, warm=warm)
        found = alternate(lambda side, _: time_command(side, frames, warm=warm), sides, args.rounds)
    return {
        "command": f"{SESSIONS} x {frames} frames of W1, {'warm' if args.warm else 'cold'} start",
        "median": {side: {"seconds": statistics.median(r["seconds"] for r in rows)} for side, rows in found.items()},
        "ratio": compare(found, "seconds"),
        "rounds": found,
    }


def table(found: list[dict[str, Any]]) -> str:
    """The results as Markdown, a line for each other side."""
    if "command" in found[0]:
        lines = ["| command | side | slm-lab | side | our time over theirs |", "|---|---|---|---|---|"]
    else:
        head = ("workload", "side", "slm-lab", "side", "median ratio", "compile", "peak memory", "ratio")
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found:
        ours = row["median"]["slm_lab"]
        for side, ratio in row["ratio"].items():
            peer = row["median"][side]
            if "command" in row:
                cells = [row["command"], side, f"{ours['seconds']:.1f} s", f"{peer['seconds']:.1f} s", f"{ratio:.2f}"]
            else:
                memory = f"{ours['peak_rss_mb']:.0f} / {peer['peak_rss_mb']:.0f} MB"
                compiling = f"{ours['compile_s']:.1f} / {peer['compile_s']:.1f} s"
                speeds = [f"{x['fps']:,.0f} frames/s" for x in (ours, peer)]
                cells = [row["workload"], side, *speeds, f"{ratio:.2f}x", compiling, memory]
                cells.append(f"{row['rss_ratio'][side]:.2f}x")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine(sides: Sequence[str]) -> dict[str, Any]:
    """Where and with what it was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    code = (
        "import json, platform, importlib.metadata as m\n"
        "found = {d.name: d.version for d in m.distributions()}\n"
        "known = ('torch', 'gymnasium', 'stable-baselines3', 'sbx-rl', 'jax', 'rejax', 'gymnax', 'slm-lab')\n"
        "print(json.dumps({'python': platform.python_version()} | {k: found[k] for k in known if k in found}))"
    )
    versions = {}
    for side in sides:
        asked = subprocess.run([SIDES[side].python, "-c", code], capture_output=True, text=True, check=True)
        versions[side] = json.loads(asked.stdout)
    return {"cores": os.cpu_count(), "cpu": model, "system": platform.system(), **versions}


def set_up(sides: Sequence[str]) -> None:
    """Make the environments that are missing."""
    for side in sides:
        if not SIDES[side].python.exists():
            for command in COMMANDS[side]:
                print(command, flush=True)
                subprocess.run(command, shell=True, cwd=ROOT, check=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--sides", nargs="*", choices=list(COMMANDS), default=list(COMMANDS), help="all by default")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side; the medians count")
    parser.add_argument("--eager", action="store_true", help="without compilation on our side")
    parser.add_argument("--cold", action="store_true", help="an empty cache of compiled graphs for each measurement")
    parser.add_argument("--command", action="store_true", help="time the whole command instead of the loop")
    parser.add_argument("--warm", action="store_true", help="with --command: compiled graphs are cached already")
    parser.add_argument("--batch", action="store_true", help="with --command: beside it with meta.batch_sessions")
    parser.add_argument("--setup", action="store_true", help="make the environments of the sides, and nothing else")
    parser.add_argument("--frames", type=int, help="of our side (with --command: of all); for a quick look")
    parser.add_argument("--peer-frames", type=int, help="of the other sides")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for all measurements")
    args = parser.parse_args()
    for name in args.workloads:
        if name not in WORKLOADS:
            parser.error(f"unknown workload '{name}' (known: {', '.join(WORKLOADS)})")
    args.sides = ["slm_lab", *args.sides]
    return args


def main() -> None:
    """Measure and print."""
    args = arguments()
    if args.setup:
        set_up(args.sides)
        return
    for side in args.sides:
        if not SIDES[side].python.exists():
            raise SystemExit(f"no environment for {side}: --setup makes it, or\n" + "\n".join(COMMANDS[side]))
    if args.command:
        found = [compare_commands(args)]
    else:
        found = [compare_loops(name, args) for name in args.workloads or WORKLOADS]
    print(table(found))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({"machine": machine(args.sides), "results": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
