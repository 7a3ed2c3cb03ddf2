"""`slm-lab validate`: what runs, and what does not for which reasons."""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from slm_lab.agent.net.check import idle_keys
from slm_lab.cli.build import build_faults
from slm_lab.cli.report import print_table
from slm_lab.cli.runs import find_local_plugins
from slm_lab.env.make import check_env
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import bundled_folder, check, expand, find_file, holds_specs, read_file, spec_files
from slm_lab.spec.variables import variables

RUNS, FAILS = "runs", "cannot run"


@dataclass(frozen=True)
class Verdict:
    """Of one spec."""

    file: str
    spec: str | None
    """None: the file itself can't be read."""
    status: str
    """`runs` or `cannot run`"""
    notes: list[str]
    """Faults; keys without effect; of a spec that runs, the variables it needs."""


def main(paths: list[Path], sets: dict[str, str], *, as_json: bool) -> int:
    """Check the specs of files and folders and print a table or a JSON list.

    Returns:
        Exit code: 2 where a spec can't run, or there is none.
    """
    find_local_plugins()
    known = {name for path in paths for name in _variables(path)}
    verdicts = [verdict for path in paths for verdict in verdicts_of(path, sets, known)]
    if as_json:
        print(json.dumps([asdict(v) for v in verdicts], indent=2, ensure_ascii=False))
    else:
        _print(verdicts)
    return 0 if verdicts and all(v.status == RUNS for v in verdicts) else 2


def verdicts_of(path: Path, sets: dict[str, str], known: Collection[str] = ()) -> Iterator[Verdict]:
    """The verdicts on all specs of a file, or of the files of a folder.

    Args:
        path: as `find_file` takes it; or a folder, `specs/...` also for the bundled ones
        sets: dotted key paths are used everywhere
        known: variables of which some spec is known to have each: used where it has. Any other is a fault.
    """
    files = _files(path)
    if not files:
        yield Verdict(str(path), None, FAILS, ["no spec file in this folder"])
    for file in files:
        yield from _file_verdicts(file, sets, known)


def _files(path: Path) -> list[Path]:
    """The file itself; or those in a folder that look as if they held specs."""
    folder = expand(path)
    if not folder.exists() and path.parts[:1] == ("specs",):
        folder = bundled_folder().joinpath(*path.parts[1:])
    return [file for file in spec_files(folder) if holds_specs(file)] if folder.is_dir() else [path]


def _variables(path: Path) -> set[str]:
    found: set[str] = set()
    for file in _files(path):
        with suppress(SpecError):
            found |= {name for raw in read_file(find_file(file)).values() for name in variables(raw)}
    return found


def _file_verdicts(path: Path, sets: dict[str, str], known: Collection[str]) -> Iterator[Verdict]:
    try:
        specs = read_file(find_file(path))
    except SpecError as e:
        place = e.source.removeprefix(str(path)).lstrip(":")
        yield Verdict(str(path), None, FAILS, [f"{place}: {fault}" if place else fault for fault in e.faults])
        return
    if not specs:
        yield Verdict(str(path), None, FAILS, ["holds no spec"])
    for name, raw in specs.items():
        own = variables(raw)
        mine = {key: value for key, value in sets.items() if "." in key or key in own or key not in known}
        checked = check(raw, name, sets=mine, check_env=check_env)
        faults, idle = checked.faults, []
        if checked.spec is not None:
            faults, idle = build_faults(checked.spec), idle_keys(checked.spec.agent)
        needs = " ".join(f"-s {key}=..." for key in checked.open_variables)
        notes = [*faults, *idle, *([f"needs {needs}"] if needs else [])]
        yield Verdict(str(path), name, FAILS if faults else RUNS, notes)


def _print(verdicts: list[Verdict]) -> None:
    table = Table("file", "spec", "status", "notes", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[:3]:
        column.overflow = "fold"
    for v in verdicts:
        status = Text(v.status, style="green" if v.status == RUNS else "bold red")
        table.add_row(Text(v.file), Text(v.spec or ""), status, Text("\n".join(v.notes)))
    bad = sum(v.status != RUNS for v in verdicts)
    print_table(table)
    print(f"{len(verdicts) - bad} of {len(verdicts)} can run")
