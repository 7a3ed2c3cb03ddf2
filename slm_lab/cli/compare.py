"""`slm-lab compare`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from slm_lab.cli.report import print_table, show
from slm_lab.cli.runs import find_folders
from slm_lab.experiment.compare import AGGREGATES, Comparison, compare, to_json
from slm_lab.experiment.history import History, read_history
from slm_lab.experiment.statistics import Estimate
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import plain
from slm_lab.lib.layout import Layout


def main(
    words: Sequence[str],
    out: Path,
    *,
    metric: str,
    at: int | None,
    target: float | None,
    labels: list[str] | None,
    as_json: bool,
) -> None:
    """Print scores with intervals.

    Raises:
        LabError: no such run or metric, a run without a row.
    """
    found = compare(read_runs(words, out), metric=metric, at=at, target=target, labels=labels)
    if as_json:
        print(json.dumps(plain(to_json(found)), indent=2, ensure_ascii=False))
        return
    for env in found.envs:
        print_table(_env_table(found, env))
    if len(found.envs) > 1 and found.aggregates:
        print_table(_aggregate_table(found))
    if found.improvement:
        print_table(_improvement_table(found))
    for note in found.notes:
        show("note", note, "bold cyan")


def read_runs(words: Sequence[str], out: Path) -> list[History]:
    """The runs that are meant, each once.

    Raises:
        LabError: one of them is not there, or has no row: all that is wrong at once.
    """
    folders: dict[Path, None] = {}
    faults = []
    for word in words:
        try:
            folders |= dict.fromkeys(find_folders(word, out))
        except LabError as e:
            faults.append(str(e))
    histories = []
    for folder in folders:
        try:
            histories.append(read_history(Layout.open(folder)))
        except LabError as e:
            faults.append(str(e))
    if faults:
        raise LabError("\n".join(faults))
    return histories


def number(value: float) -> str:
    """Four digits that count, none of them cut off before the point.

    >>> number(12345.6), number(0.12345), number(float("inf")), number(float("nan"))
    ('12,346', '0.1235', 'never', '-')
    """
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def interval(e: Estimate) -> str:
    """An estimate and its interval.

    >>> interval(Estimate(1.0, 0.5, 1.25)), interval(Estimate(1.0, float("nan"), float("nan")))
    ('1 [0.5, 1.25]', '1')
    """
    return number(e.value) + ("" if math.isnan(e.low) else f" [{number(e.low)}, {number(e.high)}]")


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _env_table(found: Comparison, env: str) -> Table:
    at = f" at {found.at:,} frames" if found.at is not None else ""
    title = f"{env}: {found.metric}{at}, 95 % intervals"
    target = f"frames to {number(found.targets[env])}"
    table = _table(title, "method", ("sessions", "mean", "median", "IQM", "worst", target, "seconds to it"))
    for m in found.of(env):
        worst = min(m.scores, default=math.nan)
        reached = [_reached(values) for values in (m.frames_to_target, m.seconds_to_target)]
        words = [str(len(m.scores)), *map(interval, (m.mean, m.median, m.iqm)), number(worst), *reached]
        table.add_row(Text(m.label), *words)
    return table


def _reached(values: Sequence[float]) -> str:
    """The median over sessions, and how many of them got there."""
    got = sorted(v for v in values if math.isfinite(v))
    middle = sorted(values)[(len(values) - 1) // 2] if values else math.nan
    return number(middle) + ("" if len(got) == len(values) else f" ({len(got)} of {len(values)})")


def _aggregate_table(found: Comparison) -> Table:
    title = f"over {len(found.envs)} envs, normalized: 0 is random, 1 the reference"
    names = [name.replace("_", " ").replace("iqm", "IQM") for name in AGGREGATES]
    table = _table(title, "method", names)
    for label, estimates in found.aggregates.items():
        table.add_row(Text(label), *(interval(estimates[name]) for name in AGGREGATES))
    for env, r in found.references.items():
        table.caption = f"{table.caption or ''}{env}: {number(r.low)} to {number(r.high)} ({r.source})\n"
    table.caption_justify = "left"
    return table


def _improvement_table(found: Comparison) -> Table:
    table = _table("probability that a run of the row beats one of the column", "", found.labels)
    for a in found.labels:
        cells = [interval(found.improvement[a, b]) if (a, b) in found.improvement else "" for b in found.labels]
        table.add_row(Text(a), *cells)
    return table
