"""`slm-lab eval`."""

import statistics
from pathlib import Path
from typing import Any

from rich.table import Table

from slm_lab.cli.report import make_table, print_json, print_table, show_notes
from slm_lab.cli.runs import find_local_plugins, locate
from slm_lab.experiment.play.measure import Evaluation, evaluate
from slm_lab.experiment.records.wording import coarse, interval, number
from slm_lab.lib.log import setup


def main(run: str, episodes: int, out: Path, *, which: str, all_sessions: bool, as_json: bool, **settings: Any) -> None:
    """Play and print what came of it."""
    setup("WARNING")
    find_local_plugins()
    where = locate(run, out)
    found = evaluate(where, episodes, out=out, checkpoint=which, all_sessions=all_sessions, **settings)
    if as_json:
        print_json({**found.to_dict(), "which": which, **settings})
        return
    print_table(_table(found))
    if len(found.policies) > 1 and (note := coarse(len(found.policies))):
        show_notes([note.strip()])


def _table(found: Evaluation) -> Table:
    """A line a session; below them their mean, where there are several."""
    numbers = ("frame", "episodes", "total_reward [95 %]", "median", "lowest", "highest", "length")
    table = make_table(["session"], numbers)
    for p in found.policies:
        rets = (statistics.median(p.returns), min(p.returns), max(p.returns), statistics.fmean(p.lengths))
        table.add_row(str(p.session), f"{p.frame:,}", str(len(p.returns)), interval(p.estimate), *map(number, rets))
    if len(found.policies) > 1:
        rets = (statistics.median(found), min(found), max(found), statistics.fmean(found.lengths))
        table.add_row("all", "", str(len(found)), interval(found.estimate), *map(number, rets), style="bold")
    return table
