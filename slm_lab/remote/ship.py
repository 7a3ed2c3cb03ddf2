"""What travels to a remote machine: the package, the spec, the plugins it names, and the exact versions of all else."""

import gzip
import importlib.util
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydash

from slm_lab.lib.errors import LabError
from slm_lab.remote.dstack import LIMIT_VARIABLE, upload_limit
from slm_lab.spec.files import bundled_folder

ARCHIVE = "job.tar.gz"
_PACKAGE = Path(__file__).resolve().parent.parent
_LOCK = "requirements.lock"
_CODE = frozenset({".json", ".py", ".typed"})
_LARGEST = 5
"""Files that are named where the archive is too large."""


def pack(spec_file: Path, raw: dict[str, Any], folder: Path) -> dict[str, Path]:
    """What a job needs. The file of the spec travels as `job/<its name>`; its plugins are looked for in a folder.

    Returns:
        {path in the archive: file}

    Raises:
        LabError: a plugin that is not in the working folder.
    """
    files = {_LOCK: bundled_folder().parent / _LOCK, f"job/{spec_file.name}": spec_file}
    own = {p.relative_to(_PACKAGE): p for p in _code(_PACKAGE) if p.suffix in _CODE}
    # the bundled specs are in the wheel's package; the job brings its own
    files |= {f"slm_lab/{inner.as_posix()}": p for inner, p in own.items() if inner.parts[0] != "specs"}
    plugins = pydash.get(raw, "meta.plugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        top = str(plugin).partition(".")[0]
        if not top.isidentifier():  # the folder itself would travel for an empty one
            raise LabError(f"meta.plugins: must be names of Python modules (got {plugin!r})")
        module, package = folder / f"{top}.py", folder / top
        if module.is_file():
            files[module.name] = module
        elif package.is_dir():
            files |= {f"{top}/{p.relative_to(package).as_posix()}": p for p in _code(package)}
        else:
            installed = importlib.util.find_spec(top) is not None
            why = "is installed here, but would not be there" if installed else "is not there"
            raise LabError(f"meta.plugins: {plugin} {why}; it must be in the working folder to travel with the job")
    return files


def archive(files: dict[str, Path]) -> bytes:
    """The files as a tar.gz that is the same for the same content.

    Raises:
        LabError: larger than the server takes.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in sorted(files.items()):
            data = path.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    packed = gzip.compress(raw.getvalue(), mtime=0)
    limit = upload_limit()
    if len(packed) > limit:
        large = sorted(files.items(), key=lambda item: -item[1].stat().st_size)[:_LARGEST]
        named = ", ".join(f"{name} ({size(path.stat().st_size)})" for name, path in large)
        raise LabError(
            f"the code is {size(len(packed))} packed, the server takes {size(limit)}. The largest files: {named}. "
            f"Move data out of the plugins' folders; or raise {LIMIT_VARIABLE} at the server, and set it here too"
        )
    return packed


def size(count: int) -> str:
    """Bytes for people.

    >>> size(500), size(2 << 20)
    ('500 B', '2.0 MiB')
    """
    if count < 1 << 10:
        return f"{count} B"
    return f"{count / (1 << 10):.0f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def _code(folder: Path) -> Iterable[Path]:
    """Files below a folder but for caches, data and what is hidden; no symbolic links."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        left_out = any(part.startswith(".") or part in ("__pycache__", "data") for part in parts)
        linked = any(p.is_symlink() for p in (path, *path.parents) if folder in p.parents)
        if path.is_file() and not left_out and not linked:
            yield path
