"""`slm-lab compare`."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from slm_lab.cli.report import make_table, print_json, print_table, show_notes
from slm_lab.cli.runs import find_all
from slm_lab.experiment.records.compare import Comparison, compare, to_json
from slm_lab.experiment.records.wording import NAMES, env_table, interval, number


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
    """Print scores with intervals."""
    folders = [layout.root for layout in find_all(words, out)]
    found = compare(folders, metric=metric, at=at, target=target, labels=labels)
    if as_json:
        print_json(to_json(found))
        return
    for env in found.envs:
        print_table(_env_table(found, env))
    if len(found.references) > 1 and found.aggregates:
        print_table(_aggregate_table(found))
    if found.improvement:
        print_table(_improvement_table(found))
    show_notes(found.notes)


def _table(title: str, first: str, *columns: str) -> Table:
    look = {"title": title, "title_justify": "left", "title_style": "bold", "caption_justify": "left"}
    return make_table([first], columns, **look)


def _env_table(found: Comparison, env: str) -> Table:
    at = f" at {found.at:,} frames" if found.at is not None else ""
    title = f"{env}: {found.metric}{at}, 95 % intervals"
    headers, rows = env_table(found, env)
    table = _table(title, *headers)
    for label, *cells in rows:
        table.add_row(Text(label), *cells)
    return table


def _aggregate_table(found: Comparison) -> Table:
    title = f"over {len(found.references)} envs, normalized: 0 is random, 1 the reference"
    table = _table(title, "method", *(NAMES[name] for name in next(iter(found.aggregates.values()))))
    for label, estimates in found.aggregates.items():
        table.add_row(Text(label), *map(interval, estimates.values()))
    scales = [f"{env}: {number(r.low)} to {number(r.high)} ({r.source})\n" for env, r in found.references.items()]
    table.caption = "".join(scales)
    return table


def _improvement_table(found: Comparison) -> Table:
    table = _table("probability that a run of the row beats one of the column", "", *found.labels)
    for a in found.labels:
        cells = [interval(found.improvement[a, b]) if (a, b) in found.improvement else "" for b in found.labels]
        table.add_row(Text(a), *cells)
    return table
