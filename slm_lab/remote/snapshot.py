"""A run folder as it is at one moment, though a training may be writing to it.

Files that are replaced as a whole are linked, which costs nothing and keeps the old content; those that grow are
copied. Checkpoints come first: the tables are then as new as they or newer, and a resume cuts off what is too new.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slm_lab.remote.names import is_run_file

_REPLACED = frozenset({".json", ".png", ".prev", ".pt", ".safetensors"})
"""Kinds of file that are never written to, only replaced."""
_PREFIX = ".push-"


@contextmanager
def snapshot(root: Path) -> Iterator[dict[str, Path]]:
    """Hold still what travels of a run folder: no symbolic link, no hidden or temporary file.

    Yields:
        {path in the folder, with `/`: where the content is held}; gone afterwards.
    """
    _clear(root)
    held = root / f"{_PREFIX}{os.getpid()}"
    held.mkdir()
    try:
        files = {}
        for name in sorted(travelling(root), key=lambda name: (not name.endswith("_ckpt.pt"), name)):
            copy = held / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if _hold(root / name, copy):
                files[name] = copy
        yield files
    finally:
        shutil.rmtree(held, ignore_errors=True)


def travelling(root: Path) -> list[str]:
    """Paths of what is pushed of a run folder; a checkpoint's predecessor only where the checkpoint is missing."""
    found = []
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            path = Path(folder, name)
            inner = path.relative_to(root).as_posix()
            spare = name.endswith(".prev") and path.with_suffix("").exists()
            if is_run_file(inner) and not spare and _is_plain(path):
                found.append(inner)
    return found


def _hold(path: Path, copy: Path) -> bool:
    with suppress(FileNotFoundError):  # it may go at any moment
        if path.suffix in _REPLACED:
            with suppress(OSError, NotImplementedError):  # many file systems have no links
                os.link(path, copy, follow_symlinks=False)
        if not copy.exists():
            shutil.copyfile(path, copy, follow_symlinks=False)
    return _is_plain(copy)


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _clear(root: Path) -> None:
    """Remove what killed processes left."""
    for left in root.glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX)
        with suppress(ProcessLookupError, PermissionError):
            if pid.isdigit() and int(pid) != os.getpid():
                os.kill(int(pid), 0)
                continue
        if not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
