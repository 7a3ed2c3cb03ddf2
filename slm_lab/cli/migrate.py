"""`slm-lab migrate`: spec files of older versions, written in the present format."""

from pathlib import Path
from typing import Any

from slm_lab.cli.report import is_core_only, show
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.spec.files import find_file, is_yaml, spec_files
from slm_lab.spec.load import SpecFile, open_file
from slm_lab.spec.migrate import Migrated, migrate, sweep
from slm_lab.spec.past.rewrite import json_text, yaml_text


def main(old: Path, new: Path | None) -> int:
    """Migrate a file, or the files of a folder, and report the changes.

    Returns:
        Exit code: 2 where a spec asks for what no longer exists; the others are written all the same.
    """
    if not old.is_dir():
        return _migrate_file(find_file(old), new)
    if new is None:
        raise LabError("-o: a folder of spec files needs a folder to write to")
    files = spec_files(old)
    if not files:
        raise LabError(f"{old}: no spec file in this folder")
    return max(_migrate_file(path, new / path.relative_to(old)) for path in files)


def _migrate_file(path: Path, target: Path | None) -> int:
    file = open_file(path)
    if not file.specs:
        show("left out", f"{path}: holds no spec", "bold red")
        return 2
    specs: dict[str, dict[str, Any]] = {}
    """What each spec of the file becomes: one, several, or none."""
    code = 0
    for name, raw in file.specs.items():
        swept = sweep(raw, name)
        try:
            done = {key: _effective(migrate(one), key) for key, one in swept.items()}
        except SpecError as e:
            code, specs[name] = 2, {}
            show("left out", f"{path}: {name}: {'; '.join(e.faults)}", "bold red")
            continue
        notes = dict.fromkeys(note for one in done.values() for note in one.notes)
        if len(swept) > 1:
            notes = {f"spec_params: one spec for each of its {len(swept)} combinations": None, **notes}
        for note in [*file.notes.get(name, ()), *notes]:
            show("note", f"{path}: {name}: {note}", "yellow")
        specs[name] = {key: one.spec for key, one in done.items()}
    text = _text(path, file, specs)
    if target is None:
        print(text, end="")
    elif is_yaml(target) != is_yaml(path):
        kind = "YAML" if is_yaml(path) else "JSON"
        raise LabError(f"{target}: {path} is {kind}, and is written as {kind}")
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return code


def _effective(migrated: Migrated, name: str) -> Migrated:
    """Without keys that have no effect, which the present format refuses; they are known where torch is installed."""
    if not migrated.notes:
        return migrated
    try:
        from slm_lab.experiment.trial.check import without_idle
    except ModuleNotFoundError as e:
        if not is_core_only(e):
            raise
        return migrated
    spec, notes = without_idle(migrated.spec, name)
    return Migrated(spec, [*migrated.notes, *notes])


def _text(path: Path, file: SpecFile, specs: dict[str, dict[str, Any]]) -> str:
    """The whole file: what is no spec stays as it is."""
    content = file.content
    new: dict[str, Any] = {}
    if content.keys() & specs.keys():
        for key, value in content.items():
            new |= specs.get(key, {key: value})
    else:  # one bare spec
        [made] = specs.values()
        new = made if len(made) != 1 else {k: v for k, v in content.items() if k[:1] == "$"} | next(iter(made.values()))
    return yaml_text(file.text, content, new) if is_yaml(path) else json_text(new) + "\n"
