"""`slm-lab validate`: what runs, and what does not for which reasons."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from slm_lab.cli.report import make_table, print_json, print_table
from slm_lab.cli.runs import find_local_plugins
from slm_lab.experiment.trial.check import check_spec
from slm_lab.lib.errors import SpecError
from slm_lab.spec.files import bundled_folder, expand, holds_specs, spec_files
from slm_lab.spec.load import open_file, read_file
from slm_lab.spec.migrate import sweep
from slm_lab.spec.variables import variables

RUNS, MIGRATES, TRAINS, FAILS = "runs", "runs after migration", "trains, cannot be searched", "cannot run"
_STYLES = {RUNS: "green", MIGRATES: "yellow", TRAINS: "red", FAILS: "bold red"}


@dataclass(frozen=True)
class Verdict:
    """Of one spec."""

    file: str
    spec: str | None
    """None: the file itself can't be read."""
    status: str
    """`runs`, `runs after migration`, `trains, cannot be searched` or `cannot run`"""
    notes: list[str]
    """Why it can't run; or what was changed, why it can't be searched, and which variables it needs."""


def main(paths: list[Path], sets: dict[str, str], *, as_json: bool) -> int:
    """Check the specs of files and folders and print a table or a JSON list.

    Returns:
        Exit code: 2 where a spec can't run or be searched, or there is none.
    """
    find_local_plugins()
    files = [(path, _files(path)) for path in paths]
    known = {name for _, found in files for file in found for name in _variables(file)}
    verdicts: list[Verdict] = []
    for path, found in files:
        verdicts += [verdict for file in found for verdict in _file_verdicts(file, sets, known)]
        if not found:
            verdicts.append(Verdict(str(path), None, FAILS, ["no spec file in this folder"]))
    if as_json:
        print_json([asdict(v) for v in verdicts])
    else:
        _print(verdicts)
    return 0 if verdicts and all(v.status in (RUNS, MIGRATES) for v in verdicts) else 2


def _files(path: Path) -> list[Path]:
    """The file itself; or those in a folder, `specs/...` also for the bundled ones, that look as if they held specs."""
    folder = expand(path)
    if not folder.exists() and path.parts[:1] == ("specs",):
        folder = bundled_folder().joinpath(*path.parts[1:])
    return [file for file in spec_files(folder) if holds_specs(file)] if folder.is_dir() else [path]


def _variables(path: Path) -> set[str]:
    with suppress(SpecError):
        return {name for raw in read_file(path).values() for name in variables(raw)}
    return set()


def _file_verdicts(path: Path, sets: dict[str, str], known: Collection[str]) -> Iterator[Verdict]:
    """The verdicts on all specs of a file; of `sets`, a variable that only others have is no fault of a spec."""
    try:
        file = open_file(path)
    except SpecError as e:
        place = e.source.removeprefix(str(path)).lstrip(":")
        yield Verdict(str(path), None, FAILS, [f"{place}: {fault}" if place else fault for fault in e.faults])
        return
    if not file.specs:
        yield Verdict(str(path), None, FAILS, ["holds no spec"])
    for name, raw in file.specs.items():
        own = variables(raw)
        mine = {key: value for key, value in sets.items() if "." in key or key in own or key not in known}
        yield _verdict(path, name, raw, mine, file.notes.get(name, []))


def _verdict(path: Path, name: str, raw: dict[str, Any], sets: dict[str, str], odd: list[str]) -> Verdict:
    swept = sweep(raw, name, sets)
    faults: list[str] = []
    told = [*odd, *([f"spec_params: stands for {len(swept)} specs: {', '.join(swept)}"] if len(swept) > 1 else [])]
    rest: list[str] = []
    unsearchable: list[str] = []
    for one in swept.values():
        checked = check_spec(one, name, sets=sets)
        faults += checked.faults
        unsearchable += checked.unsearchable
        told += checked.notes
        rest += checked.left_out
        needs = " ".join(f"-s {key}=..." for key in checked.open_variables)
        rest += [f"needs {needs}"] if needs else []
    rest = [*(f"can't be searched: {fault}" for fault in unsearchable), *rest]
    # of an older version: it trains all the same
    status = FAILS if faults else MIGRATES if told else TRAINS if unsearchable else RUNS
    return Verdict(str(path), name, status, list(dict.fromkeys(faults or [*told, *rest])))


def _print(verdicts: list[Verdict]) -> None:
    table = make_table(("file", "spec", "status", "notes"))
    for v in verdicts:
        status = Text(v.status, style=_STYLES[v.status])
        table.add_row(Text(v.file), Text(v.spec or ""), status, Text("\n".join(v.notes)))
    bad = sum(v.status == FAILS for v in verdicts)
    print_table(table)
    print(f"{len(verdicts) - bad} of {len(verdicts)} can run")
