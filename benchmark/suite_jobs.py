"""Runs the sessions of a suite, several at a time, each in a process of its own; killed ones are resumed."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import suite_results
from suite_results import Result
from suite_rows import Row

PRELOAD = ["slm_lab.api", "slm_lab.experiment.session.session", "torch", "gymnasium"]
"""Imported once, before the processes of the sessions are forked."""


@dataclass(frozen=True)
class Job:
    """One session as plain data."""

    row: Row
    seed: int
    sets: dict[str, str]
    """Beyond those of the row: what is being tried."""
    episodes: int
    folder: Path
    """Where its run folder lies, until the result is taken."""
    prints: tuple[str, str]
    """Fingerprints of spec and code: a folder that was begun with others is begun anew."""


def job(row: Row, seed: int, out: Path, episodes: int, sets: dict[str, str] | None = None) -> Job:
    """How to measure one seed of a row."""
    sets = sets or {}
    row.check_packages()
    prints = suite_results.fingerprints(row.load(sets))
    return Job(row, seed, sets, episodes, out / f"{row.slug}_{seed}_{prints[0]}", prints)


def measure(job: Job) -> dict[str, Any]:
    """Train, or resume a killed training, and evaluate; gives the fields of a Result."""
    from slm_lab import api

    stamp, prints = job.folder / "fingerprints", " ".join(job.prints)
    if job.folder.exists() and (not stamp.exists() or stamp.read_text() != prints):
        shutil.rmtree(job.folder)
    job.folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text(prints)
    begun = sorted(p for p in job.folder.iterdir() if p.is_dir() and (p / "info").is_dir())
    started = time.monotonic()
    done = api.resume(begun[-1]) if begun else api.run(job.row.load(job.sets), out=job.folder, seed=job.seed)
    if done.crashed or done.stopped:
        why = done.crashed[0].reason if done.crashed else "it was stopped"
        raise RuntimeError(f"{job.row.env} {job.row.algorithm} seed {job.seed}: {why} ({done.folder})")
    return _harvest(job, done.folder, done.metrics, time.monotonic() - started)


def _harvest(job: Job, folder: Path, metrics: dict[str, float], seconds: float) -> dict[str, Any]:
    from slm_lab import api
    from slm_lab.agent.sinks import read_rows
    from slm_lab.lib.layout import Layout

    layout = Layout.open(folder)
    rows = read_rows(layout.session_df(0, 0))
    by_success = job.row.score == "success"
    target = None if by_success else job.row.target
    reached = [] if target is None else [r["frame"] for r in rows if (r["total_reward"] or -1e300) >= target]
    policy = api.load_agent(layout.checkpoint(0, 0))
    returns = policy.evaluate(job.episodes, num_envs=min(16, job.episodes), seed=job.seed)
    wall = rows[-1].get("wall_t") if rows else None
    return {
        "env": job.row.env,
        "algorithm": job.row.algorithm,
        "spec_name": job.row.spec_name,
        "seed": job.seed,
        "frames": int(rows[-1]["frame"] or 0),
        "score": round(metrics["total_reward_ma"], 4),
        "final_return": round(metrics["final_total_reward"], 4),
        "evaluation": round(sum(returns) / len(returns), 4),
        "frames_to_target": int(reached[0] or 0) if reached else None,
        "seconds": round(float(wall if wall is not None else seconds), 1),
        "success": success_rate(policy, job.episodes, job.seed) if by_success else None,
    }


def success_rate(policy: Any, episodes: int, seed: int) -> float:
    """Share of greedy episodes whose last step says `info["is_success"]`."""
    env, succeeded = policy.make_env(), 0
    for episode in range(episodes):
        policy.reset()
        obs, info = env.reset(seed=seed + episode)
        ended = False
        while not ended:
            obs, _, terminated, truncated, info = env.step(policy.act(obs))
            ended = bool(terminated or truncated)
        succeeded += bool(info["is_success"])
    env.close()
    return succeeded / episodes


def shares(cores: list[int], parallel: int) -> list[list[int]]:
    """The cores of each of so many sessions: no core is another's, as long as there are enough.

    >>> shares([0, 1, 2, 3], 2), shares([0, 1], 3)
    ([[0, 2], [1, 3]], [[0], [1], [0]])
    """
    if parallel >= len(cores):
        return [[cores[i % len(cores)]] if cores else [] for i in range(parallel)]
    return [cores[i::parallel] for i in range(parallel)]


def _measure_on(cores: list[int], job: Job) -> dict[str, Any]:
    """Measure on these cores alone: sessions that share cores spin while they wait for each other's threads."""
    if cores:
        os.sched_setaffinity(0, cores)
    return measure(job)


def run(jobs: list[Job], parallel: int, ray_address: str | None = None) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """Measure; gives each job as it ends, with the fields of its result or the reason why it has none."""
    if ray_address is not None:
        yield from _run_on_ray(jobs, ray_address)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    free = shares(sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [], parallel)
    with ProcessPoolExecutor(parallel, mp_context=context, max_tasks_per_child=1) as pool:
        waiting: dict[Future[dict[str, Any]], tuple[Job, list[int]]] = {}
        todo = iter(jobs)
        try:
            while True:
                # not all at once: what is interrupted has few sessions to wait for
                while len(waiting) < parallel and (job := next(todo, None)) is not None:
                    own = free.pop()
                    waiting[pool.submit(_measure_on, own, job)] = job, own
                if not waiting:
                    return
                ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    job, own = waiting.pop(future)
                    free.append(own)
                    error = future.exception()
                    yield job, f"{error}" if error is not None else future.result()
        except BaseException as e:
            if not isinstance(e, KeyboardInterrupt):  # the terminal sends a Ctrl-C to the sessions, too
                _interrupt(multiprocessing.active_children())
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _interrupt(sessions: list[multiprocessing.process.BaseProcess]) -> None:
    """They save a checkpoint and end, as after a Ctrl-C."""
    for session in sessions:
        if session.pid is not None:
            os.kill(session.pid, signal.SIGINT)


def _run_on_ray(jobs: list[Job], address: str) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """The same on the machines of a cluster; the project must be installed there, in the same place."""
    import ray

    ray.init(address=address, runtime_env={"working_dir": str(Path(__file__).parent)}, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1, max_retries=2)(measure)
        waiting = {remote.remote(job): job for job in jobs}
        while waiting:
            (ended, *_), _ = ray.wait(list(waiting))
            job = waiting.pop(ended)
            try:
                yield job, ray.get(ended)
            except ray.exceptions.RayError as e:
                yield job, str(e).strip().splitlines()[-1]
    finally:
        ray.shutdown()


def result(fields: dict[str, Any], job: Job, commit: str) -> Result:
    """A line for the CSV."""
    spec, code = job.prints
    packages = ", ".join(p.replace("==", " ") for p in job.row.packages)
    return Result(**fields, **suite_results.versions(), commit=commit, spec=spec, code=code, packages=packages)


def tidy(job: Job) -> None:
    """The result is taken: keep the tables and graphs of the run, drop what takes much room."""
    for models in job.folder.glob("*/model"):
        shutil.rmtree(models, ignore_errors=True)


def describe(fields: dict[str, Any]) -> str:
    """One line for the terminal."""
    return json.dumps({k: v for k, v in fields.items() if k not in ("env", "algorithm", "spec_name")})
