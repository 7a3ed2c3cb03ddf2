"""Run folders, as users name them."""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from slm_lab.experiment.records.runs import LATEST, find_run, list_layouts
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import FOLDER_NAME, TIMESTAMP, Layout
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.files import expand


def find_local_plugins() -> None:
    """Look for modules of `meta.plugins` in the working folder too; installed ones come first."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def locate(word: str, out: Path) -> str | Path:
    """`latest`, or the path that is meant: as given, or a folder's name inside `out`."""
    inside = out / word
    if word == LATEST or expand(word).exists():
        return word
    if inside.exists():
        return inside
    known = [LATEST, *(p.name for p in (out.iterdir() if out.is_dir() else ()))]
    of_spec = [layout.root.name for layout in list_layouts(out) if layout.name == word]
    hint = f", did you mean '{of_spec[-1]}'?" if of_spec else did_you_mean(Path(word).name, known)
    raise LabError(f"{word}: no such run folder, neither here nor in {out}{hint}")


def new_folder(spec_name: str) -> str:
    """Name of a run folder that begins now."""
    return f"{spec_name}_{datetime.now().strftime(TIMESTAMP)}"


def check_folder(folder: str, spec_name: str) -> None:
    """A name that is given to a run folder must be one that its run can be found by."""
    match = FOLDER_NAME.fullmatch(folder)
    if match is None or match["spec"] != spec_name:
        raise LabError(
            f"--folder: must be the spec's name and a time, such as {new_folder(spec_name)} (got '{folder}')"
        )


def find_folder(word: str, out: Path) -> Path:
    """A run folder by path, by its name inside `out`, or the latest finished run of a spec by the spec's name."""
    finished = [x.root for x in list_layouts(out) if x.name == word and x.trial_metrics(0).exists()]
    if finished and not Path(word).exists():
        return finished[-1]
    return find_run(locate(word, out), out).root


def find_folders(word: str, out: Path) -> list[Path]:
    """The run folders that a word means: one, as `find_folder` has it, or all that a pattern with * or ? matches.

    A pattern is looked for as a path, then among the names in `out`.
    """
    if not any(sign in word for sign in "*?[") or expand(word).exists():
        return [find_folder(word, out)]
    pattern = expand(word)
    start = Path(pattern.anchor) if pattern.is_absolute() else Path()
    places = [start.glob(str(pattern.relative_to(start)))]
    places += [] if pattern.is_absolute() else [out.glob(word)]
    for matches in places:
        if found := [path.resolve() for path in sorted(matches) if _is_run(path)]:
            return found
    raise LabError(f"{word}: matches no run folder, neither here nor in {out}")


def find_all(words: Sequence[str], out: Path) -> list[Layout]:
    """The run folders that several words mean, in their order."""
    folders: list[Path] = []
    faults = []
    for word in words:
        try:
            found = find_folders(word, out)
        except LabError as e:
            faults.append(str(e))
        else:
            # patterns may overlap; a run that is named twice by its name has two labels
            folders += found if len(found) == 1 else [folder for folder in found if folder not in folders]
    if faults:
        raise LabError("\n".join(faults))
    return [Layout.open(folder) for folder in folders]


def _is_run(path: Path) -> bool:
    try:
        Layout.open(path)
    except FileNotFoundError:
        return False
    return True
