"""`slm-lab list-runs`."""

from dataclasses import asdict
from pathlib import Path

import pydash
from rich.console import Console
from rich.text import Text

from slm_lab.cli.report import fits, make_table, print_json, print_table
from slm_lab.experiment.records.history import RunLine, describe
from slm_lab.experiment.records.runs import list_layouts
from slm_lab.lib.layout import fitting
from slm_lab.lib.suggest import did_you_mean
from slm_lab.remote.card import number

_COLOURS = {"completed": "green", "running": "cyan", "stopped": "yellow", "killed": "yellow", "crashed": "bold red"}


def main(out: Path, pattern: str, *, as_json: bool) -> None:
    """Print the runs of a folder, the newest last."""
    layouts = {layout.root.name: layout for layout in list_layouts(out)}
    lines = [describe(layouts[name]) for name in fitting(layouts, pattern)]
    if as_json:
        print_json([{"folder": line.name, **pydash.omit(asdict(line), "name")} for line in lines])
        return
    if not lines:
        print(f"no run in {out}" + (f" fits '{pattern}'{did_you_mean(pattern, layouts)}" if pattern else ""))
        return
    table = make_table(("folder", "spec", "env", "algorithm"), ("sessions", "frames", "total_reward_ma"))
    table.add_column("status")
    for line in lines:
        numbers = map(number, (line.sessions, line.frames, line.total_reward_ma))
        words = [line.name, line.spec, line.env or "?", line.algorithm or "?", *numbers]
        table.add_row(*map(Text, words), _status(line))
    if fits(table):
        print_table(table)
        return
    console = Console(highlight=False)
    for line in lines:
        # the name alone on its line, so that it can be copied; nothing is broken
        console.print(Text(line.name), soft_wrap=True)
        frames = "" if line.frames is None else f"  {number(line.frames)} frames"
        count = f"  {line.sessions} session{'s' * (line.sessions != 1)}"
        told = Text.assemble("  ", _status(line), count, frames, f"  {number(line.total_reward_ma)}".rstrip())
        console.print(told, soft_wrap=True)


def _status(line: RunLine) -> Text:
    return Text(line.status or "?", style=_COLOURS.get(line.status or "", ""))
