"""Files that are either whole or not there: written beside their place under another name, then moved onto it."""

import fcntl
import json
import math
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from slm_lab.lib.errors import LabError


def write_atomic(path: Path, data: bytes | memoryview | str) -> None:
    """Write a file so that a reader, or whoever comes after a crash, finds the old content or the new, never a part.

    Args:
        path: its folder must exist.
        data: text is written as UTF-8.
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temp.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except BaseException as e:
        temp.unlink(missing_ok=True)
        if isinstance(e, OSError) and e.errno is not None and e.filename is None:
            e.filename = str(path)  # of a full disk, write does not say it
        raise
    sync_folder(path.parent)


def unnamed_file() -> IO[bytes]:
    """A file without a name, in memory where the system offers that; gone when the last process closes it."""
    folder = Path("/dev/shm")
    return tempfile.TemporaryFile(dir=folder if folder.is_dir() else None)


def sync_folder(folder: Path) -> None:
    """Make renames inside the folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def hold(path: Path, patience: float, refusal: Exception, *, shared: bool = False) -> Iterator[int]:
    """Hold a lock file. The system drops the lock when the last process that has it ends, however it ends.

    Args:
        path: its folder must exist.
        patience: seconds to wait.
        refusal: raised where another process holds it for longer.
        shared: together with others that hold it so.

    Yields:
        A file descriptor; a process that inherits it holds the lock too.
    """
    with path.open("w", encoding="utf-8") as file:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise refusal from None
                time.sleep(0.1)
        yield file.fileno()


def write_json(path: Path, obj: Any) -> None:
    """Write JSON atomically: keys in their order, indent 2, NaN and infinities as null, numpy values as plain ones."""
    write_atomic(path, json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        LabError: there is no such file, or it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise LabError(f"{path}: can't be read: {e.strerror}") from e
    except ValueError as e:
        raise LabError(f"{path}: damaged, it holds no JSON ({e})") from e
    if not isinstance(content, dict):
        raise LabError(f"{path}: damaged, it must hold an object")
    return content


def plain(obj: Any) -> Any:
    """What JSON can say: NaN and infinities become None, tuples lists, numpy arrays and scalars numbers, paths text.

    >>> plain({"a": float("nan"), "b": (1, 2.5)})
    {'a': None, 'b': [1, 2.5]}
    """
    if isinstance(obj, float):
        # a numpy float64 is a float as well
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, dict):
        return {str(k): plain(v) for k, v in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(v) for v in obj]
    if isinstance(obj, Path):
        return str(obj)
    if hasattr(obj, "tolist"):
        return plain(obj.tolist())
    return obj
