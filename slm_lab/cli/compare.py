"""`slm-lab compare`."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from slm_lab.cli.report import make_table, print_json, print_table, show_notes
from slm_lab.cli.runs import find_all
from slm_lab.experiment.records.compare import Comparison, compare, to_json
from slm_lab.experiment.records.wording import aggregate_table, env_table, interval, number

WIDE = 3
"""Methods whose names fit beside each other as headers of columns; more of them have numbers."""


def main(words: Sequence[str], out: Path, *, as_json: bool, **settings: Any) -> None:
    """Print scores with intervals; the settings are those of `records.compare`."""
    found = compare([layout.root for layout in find_all(words, out)], **settings)
    if as_json:
        print_json(to_json(found))
        return
    for title, headers, rows, caption in _tables(found):
        # a title may be wider than its table
        heading = Text(title, style="bold", justify="left", no_wrap=True, overflow="ignore")
        table = make_table(headers[:1], headers[1:], title=heading, caption=caption, caption_justify="left")
        for label, *cells in rows:
            table.add_row(Text(label), *cells)
        print_table(table)
    show_notes(found.notes)


def _tables(found: Comparison) -> Iterator[tuple[str, list[str], list[list[str]], str | None]]:
    """Title, headers, rows and caption of each table."""
    at = f" at {found.at:,} frames" if found.at is not None else ""
    for env in found.envs:
        yield f"{env}: {found.metric}{at}, 95 % intervals", *env_table(found, env), _on_times(found, env)
    if len(found.references) > 1 and found.aggregates:
        title = f"over {len(found.references)} envs, normalized: 0 is random, 1 the reference"
        scales = [f"{env}: {number(r.low)} to {number(r.high)} ({r.source})\n" for env, r in found.references.items()]
        yield title, *aggregate_table(found), "".join(scales)
    if pairs := {pair: interval(e) for pair, e in found.improvement.items()}:
        names = {
            label: f"{i} {label}" if len(found.labels) > WIDE else label for i, label in enumerate(found.labels, 1)
        }
        rows = [[names[a], *(pairs.get((a, b), "") for b in found.labels)] for a in found.labels]
        heads = [name.partition(" ")[0] if len(names) > WIDE else name for name in names.values()]
        yield "P(row beats column)", ["", *heads], rows, None


def _on_times(found: Comparison, env: str) -> str | None:
    """What the times mean where not all sessions reached the target."""
    if math.isnan(found.targets[env]) or all(math.isfinite(t) for m in found.of(env) for t in m.frames_to_target):
        return None
    target = number(found.targets[env])
    return (
        f"frames and seconds to {target}: median over sessions; (1 of 2): one session of two reached {target}; "
        "-: too few for a median"
    )
