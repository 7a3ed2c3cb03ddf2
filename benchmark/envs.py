"""How fast are the envs alone? Ours with their wrappers and gymnasium's sync vector env with its own, alternately.

`uv run benchmark/envs.py -o data/envs.json`; `--modes` compares the ways to step an env, and what `auto` takes.

Everything runs in one process, in windows that take turns; the actions are random and drawn before. Nothing is learned.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from loguru import logger

from slm_lab.env.check import check_env
from slm_lab.env.make import make_env
from slm_lab.env.mujoco import warnings_to_log
from slm_lab.spec.model import EnvSpec
from slm_lab.types import Continuous

Stepper = Callable[[Any], object]

NORMALIZED = {"normalize_obs": True, "normalize_reward": True}
WORKLOADS: dict[str, dict[str, Any]] = {
    "CartPole-v1 x8": {"name": "CartPole-v1", "num_envs": 8},
    "Hopper-v5 x16": {"name": "Hopper-v5", "num_envs": 16, **NORMALIZED},
    "HalfCheetah-v5 x16": {"name": "HalfCheetah-v5", "num_envs": 16, **NORMALIZED},
    "ALE/Pong-v5 x16": {"name": "ALE/Pong-v5", "num_envs": 16},
}
"""Keys of `env` on our side; gymnasium gets wrappers of its own for the same."""

FAMILIES = (
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "LunarLander-v3",
    "BipedalWalker-v3",
    "CarRacing-v3",
    "Hopper-v5",
)
MODES: dict[str, list[dict[str, Any]]] = {name: [{"name": name, "num_envs": n} for n in (8, 16)] for name in FAMILIES}
"""What `--modes` compares: an example of each family."""

SECONDS = 1.0
"""Of a window."""


def ours(keys: dict[str, Any], **changes: Any) -> tuple[Stepper, Any]:
    """Our envs: their step, and the actions [T, N, *A]."""
    env = make_env(EnvSpec(max_frame=10_000_000, **{**keys, **changes}))
    env.reset(0)
    rng, n, space = np.random.default_rng(0), env.info.num_envs, env.info.action
    if isinstance(space, Continuous):
        return env.step, rng.uniform(-1, 1, (512, n, space.dim)).astype(np.float32)
    return env.step, rng.integers(getattr(space, "n", 2), size=(512, n))


def gymnasium_sync(keys: dict[str, Any]) -> tuple[Stepper, Any]:
    """gymnasium's: episodes counted, observations and rewards normalized and clipped by its wrappers."""
    wrappers = gym.wrappers.vector
    with warnings_to_log():
        env: Any = gym.make_vec(keys["name"], num_envs=keys["num_envs"], vectorization_mode="sync")
    env = wrappers.RecordEpisodeStatistics(env)
    if keys.get("normalize_obs"):
        env = wrappers.NormalizeObservation(env)
        env = wrappers.TransformObservation(env, lambda obs: np.clip(obs, -10, 10))
    if keys.get("normalize_reward"):
        env = wrappers.ClipReward(wrappers.NormalizeReward(env, gamma=0.99), -10, 10)
    env.reset(seed=0)
    env.action_space.seed(0)
    return env.step, np.stack([env.action_space.sample() for _ in range(512)])


def ale_one_thread(keys: dict[str, Any]) -> tuple[Stepper, Any]:
    """ale-py's vector env in one thread, bare."""
    from ale_py.vector_env import AtariVectorEnv

    game = keys["name"].removeprefix("ALE/").removesuffix("-v5").lower()
    env: Any = AtariVectorEnv(game, keys["num_envs"], num_threads=1, repeat_action_probability=0.25)
    env.reset(seed=0)
    env.action_space.seed(0)
    return env.step, np.stack([env.action_space.sample() for _ in range(512)])


def window(step: Stepper, actions: Any, seconds: float) -> float:
    """Frames per second over about so many seconds."""
    frames, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for action in actions[:16]:
            step(action)
        frames += 16 * len(actions[0])
    return frames / (time.perf_counter() - begin)


def alternate(sides: dict[str, tuple[Stepper, Any]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Frames per second of each side in each round; who is first changes from round to round."""
    for step, actions in sides.values():
        window(step, actions, seconds / 4)
    found: dict[str, list[float]] = {side: [] for side in sides}
    for i in range(rounds):
        for side in list(sides)[:: 1 if i % 2 == 0 else -1]:
            found[side].append(window(*sides[side], seconds))
    return found


def compare(workload: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Ours against the peer: medians, and the median of the rounds' ratios."""
    keys = WORKLOADS[workload]
    atari = keys["name"].startswith("ALE/")
    peer = ale_one_thread(keys) if atari else gymnasium_sync(keys)
    found = alternate({"slm_lab": ours(keys), "peer": peer}, rounds, seconds)
    return {
        "workload": workload,
        "peer": "AtariVectorEnv, 1 thread" if atari else "gymnasium sync",
        "fps": {side: statistics.median(rows) for side, rows in found.items()},
        "ratio": statistics.median(a / b for a, b in zip(found["slm_lab"], found["peer"], strict=True)),
        "rounds": found,
    }


def compare_modes(keys: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
    """The ways to step an env; `auto` over the best of them, from the medians."""
    modes = ["sync", "thread", "async", "native"]
    known = [m for m in modes if not check_env(EnvSpec(max_frame=1, vectorization=m, **keys))]  # type: ignore[arg-type]
    found = alternate({m: ours(keys, vectorization=m) for m in (*known, "auto")}, rounds, seconds)
    fps = {mode: statistics.median(rows) for mode, rows in found.items()}
    best = max(known, key=fps.__getitem__)
    return {
        "workload": f"{keys['name']} x{keys['num_envs']}",
        "best": best,
        "fps": fps,
        "ratio": statistics.median(a / b for a, b in zip(found["auto"], found[best], strict=True)),
        "rounds": found,
    }


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"parts of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--modes", action="store_true", help="compare sync, thread, async, native and auto")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each side; the medians count")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a window")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for all measurements")
    args = parser.parse_args()
    logger.remove()

    def wanted(workload: str) -> bool:
        return not args.names or any(name.lower() in workload.lower() for name in args.names)

    found = []
    if args.modes:
        for keys in (keys for name, many in MODES.items() if wanted(name) for keys in many):
            found.append(compare_modes(keys, args.rounds, args.seconds))
            fps = ", ".join(f"{mode} {value:.0f}" for mode, value in found[-1]["fps"].items())
            print(f"{found[-1]['workload']}: {fps}; auto / {found[-1]['best']} = {found[-1]['ratio']:.2f}", flush=True)
    else:
        print("| workload | slm-lab | peer | median ratio |\n|---|---|---|---|")
        for workload in filter(wanted, WORKLOADS):
            row = compare(workload, args.rounds, args.seconds)
            found.append(row)
            ours_fps, peer_fps = row["fps"]["slm_lab"], row["fps"]["peer"]
            print(
                f"| {workload} | {ours_fps:.0f} frames/s | {peer_fps:.0f} ({row['peer']}) | {row['ratio']:.2f}x |",
                flush=True,
            )
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        where = {"cores": os.cpu_count(), "system": platform.system(), "python": sys.version.split()[0]}
        args.output.write_text(json.dumps({"machine": where, "results": found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
