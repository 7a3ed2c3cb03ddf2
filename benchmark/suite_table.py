"""The tables of BENCHMARKS.md, written from the results of a suite and from nothing else."""

import json
import math
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from suite_results import Result, Results
from suite_rows import Row, Suite

from slm_lab.experiment.records.baselines import baselines
from slm_lab.experiment.records.statistics import Estimate, estimate, iqm, mean, normalize
from slm_lab.lib.errors import SpecError

BENCHMARKS = Path(__file__).resolve().parent.parent / "BENCHMARKS.md"
SPECS = BENCHMARKS.parent / "specs"
LISTING = """# Bundled specs

One file per algorithm and family of environments. A spec with `...` in its command serves several envs:
`-s env=Hopper-v5`, say. Scores are means of `total_reward_ma` over seeds; [BENCHMARKS.md](../BENCHMARKS.md) has their
intervals. This page is written by `uv run benchmark/suite.py table`.

| algorithm | env | score | command |
|---|---|---|---|
{lines}
"""
FAILING_SHARE = 0.1
"""A solved row has no more than this share of seeds below its target."""
HEADER = (
    "| env | algorithm | spec | frames | seeds | score | 95 % interval | IQM | worst seed | solved "
    "| original (frames) | against it | greedy evaluation |\n" + "|---" * 13 + "|"
)


class Summary(NamedTuple):
    """What the sessions of one row say."""

    seeds: int
    frames: int
    score: Estimate
    """Mean over seeds of what `Row.score` names."""
    iqm: float
    worst: float
    failing: int
    """Seeds below the target."""
    evaluation: Estimate


def summarize(row: Row, results: list[Result]) -> Summary:
    """Statistics over the seeds of a row."""
    scores = [r.score_of(row) for r in results]
    return Summary(
        len(scores),
        max(r.frames for r in results),
        estimate(mean, [scores]),
        float(iqm([scores])),
        min(scores),
        0 if row.target is None else sum(s < row.target for s in scores),
        estimate(mean, [[r.evaluation for r in results]]),
    )


def solved(row: Row, found: Summary) -> bool | None:
    """The lower end of the interval passes the target, and no more than one seed in ten fails; None: no target."""
    if row.target is None:
        return None
    return found.score.low > row.target and found.failing <= FAILING_SHARE * found.seeds


def verdict(row: Row, found: Summary) -> str:
    """`solved` in words; a single seed has no interval, so that it can't decide unless it fails."""
    is_solved = solved(row, found)
    if is_solved is None:
        return ""
    if is_solved:
        return "yes"
    if found.seeds == 1 and found.failing == 0:
        return "open (one seed)"
    return f"no ({found.failing} below {row.target:g})"


def mark(reference: float | None, interval: Estimate) -> str:
    """ahead or behind where the interval does not hold the reference; level where it does.

    >>> mark(5.0, Estimate(7.0, 6.0, 8.0)), mark(5.0, Estimate(5.5, 4.0, 7.0)), mark(5.0, Estimate(3.0, 2.0, 4.0))
    ('ahead', 'level', 'behind')
    """
    if reference is None or math.isnan(interval.low):
        return ""
    return "ahead" if interval.low > reference else "behind" if interval.high < reference else "level"


def row_text(row: Row, results: list[Result]) -> str:
    """One line of the table."""
    original = "" if row.reference is None else f"{row.reference:,.1f} ({row.reference_frames or row.frames:,})"
    begin = f"| {row.env} | {row.algorithm} | `{row.spec_name}` "
    if not results:
        why = row.skip or "not run"
        return f"{begin}| | 0 | {why} | | | | | {original} | | |"
    found = summarize(row, results)
    number = partial(_number, row)

    def interval(of: Estimate) -> str:
        return f"[{number(of.low)}, {number(of.high)}]"

    is_solved = verdict(row, found)
    against = mark(row.reference, found.score)
    return (
        f"{begin}| {found.frames:,} | {found.seeds} | {number(found.score.value)} | {interval(found.score)} "
        f"| {number(found.iqm)} | {number(found.worst)} | {is_solved} | {original} | {against} "
        f"| {number(found.evaluation.value)} {interval(found.evaluation)} |"
    )


def short_table(rows: list[tuple[Row, list[Result]]]) -> str:
    """The scores of measured rows, for a page about their algorithm."""
    lines = ["| env | algorithm | spec | frames | seeds | score | 95 % interval | worst seed |", "|---" * 8 + "|"]
    for row, results in rows:
        found, number = summarize(row, results), partial(_number, row)
        lines.append(
            f"| {row.env} | {row.algorithm} | `{row.spec_file}` `{row.spec_name}` | {found.frames:,} "
            f"| {found.seeds} | {number(found.score.value)} | [{number(found.score.low)}, {number(found.score.high)}] "
            f"| {number(found.worst)} |"
        )
    return "\n".join(lines)


def aggregate(suite: Suite, results: list[Result]) -> str:
    """One sentence: the suite against the original, over the rows that both have.

    A score is put on the scale where a random policy is 0 and the original is 1.
    """
    tasks = []
    for row in suite.rows:
        own = [r.score_of(row) for r in results if r.key == row.key]
        zero = baselines().get(row.env)
        # where the original learned nothing to speak of, a share of it says nothing
        if (
            len(own) > 1  # a single session has no interval
            and row.reference is not None
            and zero is not None
            and row.reference > zero["mean"] + abs(zero["mean"]) / 10
        ):
            tasks.append(np.asarray(normalize(own, zero["mean"], row.reference)))
    if not tasks:
        return "No row was measured that the original has too."
    middle = estimate(iqm, tasks)
    count = sum(len(t) for t in tasks)
    return (
        f"Over {len(tasks)} rows and {count} sessions, with a random policy at 0 and the original at 1, the "
        f"interquartile mean is {middle.value:.3f} (95 % interval [{middle.low:.3f}, {middle.high:.3f}], stratified "
        "bootstrap)."
    )


def render(suite: Suite, results: list[Result]) -> str:
    """The table of a suite, with what it says as a whole."""
    by_key: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        by_key.setdefault(r.key, []).append(r)
    lines = [row_text(row, by_key.get(row.key, [])) for row in suite.rows]
    tried = [f"- {row.env}, {row.algorithm}: {row.tried}" for row in suite.rows if row.tried]
    seen = sorted({_versions(r) for r in results})
    commits = sorted({r.commit for r in results})
    about = (
        f"Reference: {suite.source}. Versions: {'; '.join(seen) or 'none'}. Commits: {', '.join(commits) or 'none'}."
    )
    notes = ["", "What was tried:", "", *tried] if tried else []
    return "\n".join([HEADER, *lines, "", aggregate(suite, results), "", about, *notes])


def _number(row: Row, x: float) -> str:
    # one digit does not tell 0.9 from 1
    digits = 2 if row.target is not None and abs(row.target) < 10 else 1
    return "-" if math.isnan(x) else f"{x:,.{digits}f}"


def _versions(result: Result) -> str:
    found = {"torch": result.torch, "gymnasium": result.gymnasium, "mujoco": result.mujoco, "ale-py": result.ale_py}
    words = [f"{package} {number}" for package, number in found.items() if number]
    return ", ".join([*words, result.packages] if result.packages else words)


def replaced(text: str, suite: Suite, results: list[Result]) -> str:
    """The document with the suite's table between its markers.

    Raises:
        SpecError: the markers are missing.
    """
    begin, end = f"<!-- suite {suite.name} -->", f"<!-- end {suite.name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SpecError([f"has no lines '{begin}' and '{end}' for the table"], "BENCHMARKS.md")
    return f"{before}{begin}\n\n{render(suite, results)}\n\n{end}{after}"


def spec_listing(suites: list[Suite]) -> str:
    """`specs/README.md`: every bundled spec, with its scores and the command that trains it."""
    scores: dict[tuple[str, str], list[str]] = {}
    suites = [suite for suite in suites if suite.listed]
    rows = [row for suite in suites for row in suite.rows]
    for suite in suites:
        results = Results(suite.csv).read()
        for row in suite.rows:
            own = [r for r in results if r.key == row.key]
            shown = "not measured" if not own else _number(row, summarize(row, own).score.value)
            alike = [r for r in rows if (r.spec_file, r.spec_name, r.env) == (row.spec_file, row.spec_name, row.env)]
            same_frames = len({r.frames for r in alike}) < len(alike)
            own_name = row.algorithm if same_frames else f"{row.frames:,} frames"
            where = f"{row.env} ({own_name})" if len(alike) > 1 else row.env
            scores.setdefault((row.spec_file, row.spec_name), []).append(f"{where}: {shown}")
    lines = []
    for path in sorted(SPECS.glob("*/*.json")):
        file = path.relative_to(SPECS).as_posix()
        for name, spec in json.loads(path.read_text(encoding="utf-8")).items():
            env, algorithm = spec["env"]["name"], spec["agent"]["algorithm"]["name"]
            found = "; ".join(scores.get((file, name), []))
            sets = "".join(f" -s {key}=..." for key in sorted(set(re.findall(r"\$\{(\w+)", json.dumps(spec)))))
            command = f"uv run slm-lab run {file} {name} train{sets}"
            lines.append(f"| {algorithm} | {env} | {found} | `{command}` |")
    return LISTING.format(lines="\n".join(lines))
