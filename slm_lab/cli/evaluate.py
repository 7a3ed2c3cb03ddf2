"""`slm-lab eval`."""

from pathlib import Path
from typing import Any

from slm_lab.cli.report import make_table, print_json, print_table, show_notes
from slm_lab.cli.runs import find_local_plugins, locate
from slm_lab.experiment.play.measure import evaluate
from slm_lab.experiment.records.wording import coarse
from slm_lab.lib.log import setup


def main(run: str, episodes: int, out: Path, *, which: str, all_sessions: bool, as_json: bool, **settings: Any) -> None:
    """Play and print the returns."""
    setup("WARNING")
    find_local_plugins()
    where = locate(run, out)
    found = evaluate(where, episodes, out=out, checkpoint=which, all_sessions=all_sessions, **settings)
    if as_json:
        print_json({**found.to_dict(), "which": which, **settings})
        return
    (first, *others), rows = found.table()
    table = make_table([first], others)
    for row in rows:
        table.add_row(*row, style="bold" if row[0] == "all" else None)
    print_table(table)
    if len(rows) > 1 and (note := coarse(len(found.policies))):
        show_notes([note.strip()])
