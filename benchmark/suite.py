"""Measure every row of a published table, one resumable command; see benchmark/README.md.

uv run benchmark/suite.py run classic --parallel 2      # what is missing or changed, on every core
uv run benchmark/suite.py status classic                # what is done, what it will take
uv run benchmark/suite.py table                         # writes the tables of BENCHMARKS.md
uv run benchmark/suite.py curves classic                # keeps the curves of the run folders, which the docs draw
uv run benchmark/suite.py try classic --only CartPole-v1,DQN -s agent.net.optim_spec.lr=1e-3   # on seeds of tuning
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import suite_curves
import suite_jobs
import suite_table
import typer
from suite_results import Results, commit, sessions
from suite_rows import FIRST_SCORING_SEED, Suite

from slm_lab.lib.errors import LabError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Name = Annotated[str, typer.Argument(help="name or file of a suite")]
Only = Annotated[str | None, typer.Option(help="rows of these envs and algorithms: CartPole-v1,PPO")]
Parallel = Annotated[int | None, typer.Option(min=1, help="sessions at a time; by default one a core")]
Out = Annotated[Path, typer.Option(help="folder for the run folders")]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@app.command()
def run(
    suite: Name,
    only: Only = None,
    parallel: Parallel = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="of each row, the first so many")] = None,
    keep_changed: Annotated[bool, typer.Option(help="results of another spec or code count as done")] = False,
    ray_address: Annotated[str | None, typer.Option(help="run on this Ray cluster")] = None,
    out: Out = Path("data/suites"),
) -> None:
    """Measure what is missing, resume what was killed, repeat what changed."""
    plan = Suite.read(suite)
    todo = [
        s
        for s in sessions(plan, plan.only(only))
        if s.state == "missing" or (s.state == "changed" and not keep_changed)
        if seeds is None or s.seed < FIRST_SCORING_SEED + seeds
    ]
    typer.echo(f"{plan.name}: {len(todo)} sessions to run")
    at, results = commit(), Results(plan.csv)
    jobs = [suite_jobs.job(s.row, s.seed, out / plan.name, plan.episodes) for s in todo]
    failed = 0
    for i, (job, found) in enumerate(suite_jobs.run(jobs, parallel or _cores(), ray_address), 1):
        label = f"[{i}/{len(jobs)}] {job.row.env} {job.row.algorithm} seed {job.seed}:"
        if isinstance(found, str):
            failed += 1
            typer.echo(f"{label} failed: {found}", err=True)
            continue
        results.add(suite_jobs.result(found, job, at))
        suite_jobs.tidy(job)
        typer.echo(f"{label} {suite_jobs.describe(found)}")
    if failed:
        raise typer.Exit(1)


@app.command(name="try")
def try_(
    suite: Name,
    only: Only = None,
    sets: Annotated[list[str] | None, typer.Option("--set", "-s", help="key=value, as for slm-lab run")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=FIRST_SCORING_SEED)] = 4,
    parallel: Parallel = None,
    out: Out = Path("data/suites"),
) -> None:
    """Try other settings on the seeds of tuning, which no score uses. Prints the scores and keeps none."""
    plan = Suite.read(suite)
    given = dict(_pair(text) for text in sets or [])
    rows = [row for row in plan.only(only) if not row.skip]
    place = out / f"{plan.name}_try"
    jobs = [suite_jobs.job(row, seed, place, plan.episodes, given) for row in rows for seed in range(seeds)]
    scores: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job, found in suite_jobs.run(jobs, parallel or _cores()):
        if isinstance(found, str):
            typer.echo(found, err=True)
            continue
        suite_jobs.tidy(job)
        scores.setdefault(job.row.key, []).append(found)
        typer.echo(f"{job.row.env} {job.row.algorithm} seed {job.seed}: {suite_jobs.describe(found)}")
    for (env, algorithm), found_all in scores.items():
        by = {name: sorted(x[name] for x in found_all) for name in ("score", "final_return", "evaluation")}
        words = [f"{name} {fmean(x):.1f} (worst {x[0]:.1f})" for name, x in by.items()]
        typer.echo(f"{env} {algorithm} {given}: {', '.join(words)}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set {text}: must be key=value")
    return key, value


@app.command()
def status(suite: Name, only: Only = None, parallel: Parallel = None) -> None:
    """What is done, what is open and why, and how long it will take."""
    plan = Suite.read(suite)
    rows = plan.only(only)
    found = sessions(plan, rows)
    wide = [max(map(len, column)) for column in zip(("env", "algorithm"), *(row.key for row in rows), strict=True)]
    names = "{:{}} {:{}}".format
    typer.echo(
        f"{names('env', wide[0], 'algorithm', wide[1])} {'done':>5} {'changed':>8} {'missing':>8} {'hours left':>11}"
    )
    total = 0.0
    unknown = 0
    for row in rows:
        own = [s for s in found if s.row.key == row.key]
        count = {state: sum(s.state == state for s in own) for state in ("done", "changed", "missing")}
        known = [s.found.seconds for s in own if s.found is not None]
        left = count["changed"] + count["missing"]
        hours = left * fmean(known) / 3600 if known else None
        total += hours or 0.0
        unknown += left if hours is None else 0
        shown = row.skip or ("" if not left else "?" if hours is None else f"{hours:.2f}")
        key = names(row.env, wide[0], row.algorithm, wide[1])
        typer.echo(f"{key} {count['done']:5} {count['changed']:8} {count['missing']:8} {shown:>11}")
    workers = parallel or _cores()
    typer.echo(f"about {total / workers:.1f} hours with {workers} at a time, and {unknown} sessions of unknown length")


@app.command()
def table(
    check: Annotated[bool, typer.Option(help="write nothing; fail where a table is not what the results say")] = False,
) -> None:
    """Write the tables of BENCHMARKS.md, and specs/README.md, from the results."""
    suites = [Suite.read(name) for name in Suite.names()]
    text = suite_table.BENCHMARKS.read_text(encoding="utf-8")
    for plan in suites:
        text = suite_table.replaced(text, plan, Results(plan.csv).read())
    pages = {suite_table.BENCHMARKS: text, suite_table.SPECS / "README.md": suite_table.spec_listing(suites)}
    for path, content in pages.items():
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        if check:
            typer.echo(f"{path}: is not what the results say; write it: uv run benchmark/suite.py table", err=True)
            raise typer.Exit(1)
        path.write_text(content, encoding="utf-8")


@app.command()
def curves(suite: Name, only: Only = None, out: Out = Path("data/suites")) -> None:
    """Keep the learning curves of the run folders: one small CSV, from which the docs draw."""
    plan = Suite.read(suite)
    path = suite_curves.path_of(plan)
    kept = suite_curves.read(path)
    for row in plan.only(only):
        if (found := suite_curves.row_curve(row, plan, out)) is not None:
            kept[row.key] = found
            typer.echo(f"{row.env} {row.algorithm}: {found[0]} sessions")
    suite_curves.write(path, kept)


@app.command()
def command(suite: Name, only: Only = None, seed: int = FIRST_SCORING_SEED) -> None:
    """Print the command that repeats one session of each row."""
    for row in Suite.read(suite).only(only):
        typer.echo(row.command(seed))


def main(call: Callable[[], Any] = app) -> None:
    """Wrong input ends with one message and exit code 2."""
    try:
        call()
    except LabError as e:
        typer.echo(str(e), err=True)
        sys.exit(2)


if __name__ == "__main__":
    # as an error does, it stops the sessions with it
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    main()
