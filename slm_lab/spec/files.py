"""Where spec files are: the one that a path means, those that come with slm_lab, those in a folder."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from slm_lab.lib.errors import SpecError
from slm_lab.lib.suggest import nearest
from slm_lab.spec.parse import decode, parse_json, parse_yaml

SUFFIXES = (".json", ".yaml", ".yml")
OTHER = ("data", "node_modules", "site-packages", "venv", "build", "dist")
"""Folders that hold no spec files: results (each holds a copy of the spec), and what others made."""
_PREFIXES = ("slm_lab/spec/benchmark/", "slm_lab/specs/", "slm_lab/spec/", "specs/", "benchmark/")
_PACKAGE = Path(__file__).resolve().parent.parent


def bundled_folder() -> Path:
    """The folder of the specs that come with slm_lab."""
    checkout = _PACKAGE.parent
    return checkout / "specs" if (checkout / "pyproject.toml").is_file() else _PACKAGE / "specs"


def find_file(path: str | Path) -> Path:
    """The spec file meant by a path: absolute, relative to the working folder, or of a bundled spec.

    For a bundled spec the path in its folder will do (`ppo/ppo_cartpole.json`), or its name alone; the suffix may be
    left out, and `specs/` or `slm_lab/spec/` may precede it.

    Raises:
        SpecError: no such file; with the nearest name.
    """
    path = expand(path)
    if _is_file(path):
        return path
    if not path.is_absolute():
        found = _bundled(path.as_posix())
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(_bundled_name(p) for p in found)
            raise SpecError([f"more than one bundled spec file is called so: {names}"], str(path))
    raise SpecError([_why_no_file(path)], str(path))


def is_yaml(path: Path) -> bool:
    """Whether a file is YAML, by its name."""
    return path.suffix.lower() in (".yaml", ".yml")


def expand(path: str | Path) -> Path:
    """The path with ~ replaced; as it is where that can't be done."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):  # no such user; a NUL in it
        return Path(path)


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):  # too long a name; a NUL in it
        return path.is_file()
    return False


def _why_no_file(path: Path) -> str:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return "is a folder, must be a spec file"
    except PermissionError as e:
        return f"can't be read: {e.strerror}"
    except (OSError, ValueError):
        return f"no such spec file{_near_files(path)}"
    # a pipe, say, which gives what it holds only once
    return "is no ordinary file, must be a spec file"


def _bundled(name: str) -> list[Path]:
    folder = bundled_folder()
    name = name.removeprefix("./")
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    names = [name] if name.endswith(SUFFIXES) else [name + suffix for suffix in SUFFIXES]
    here = [folder / n for n in names if ".." not in Path(n).parts and _is_file(folder / n)]
    if here or "/" in name:
        return here
    return [p for p in bundled_files() if p.name in names]


def bundled_files() -> list[Path]:
    """All spec files that come with slm_lab."""
    return spec_files(bundled_folder())


def spec_files(folder: Path) -> list[Path]:
    """The JSON and YAML files in a folder and below.

    Left out are `schema.json`, names that begin with `_` or `.`, and below the folder itself the folders OTHER.
    """
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._" and name not in OTHER]
        named = (Path(where, name) for name in files if name[0] not in "._" and name != "schema.json")
        found += [path for path in named if path.suffix in SUFFIXES and _is_file(path)]
    return sorted(found)


def holds_specs(path: Path) -> bool:
    """Whether a file looks as if it were meant for specs: it is not some other JSON or YAML.

    What can't be read as such counts as meant, as long as it speaks of an agent.
    """
    try:
        text = decode(path.read_bytes(), str(path))
    except (OSError, SpecError):
        return True
    try:
        data = parse_yaml(text, str(path)) if is_yaml(path) else parse_json(text, str(path))
    except SpecError:
        return "agent" in text
    parts = {"agent", "env", "meta"}
    return isinstance(data, dict) and any(isinstance(d, dict) and parts & d.keys() for d in (data, *data.values()))


def _bundled_name(path: Path) -> str:
    return path.relative_to(bundled_folder()).as_posix()


def _near_files(path: Path) -> str:
    """A hint at the file name most like the path: beside where it would be, or among the bundled ones."""
    known = [_bundled_name(p) for p in bundled_files()]
    with suppress(OSError, ValueError):
        known += [p.as_posix() for p in path.parent.iterdir() if p.suffix in SUFFIXES and p.name[0] not in "._"]
    by_name = {Path(name).name: name for name in known}
    near = nearest(path.as_posix(), known, cutoff=0.75)
    near = near or by_name.get(nearest(path.name, by_name, cutoff=0.75) or "")
    return f", did you mean '{near}'?" if near else ""
