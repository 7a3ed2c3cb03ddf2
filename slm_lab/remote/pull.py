"""Download runs into a folder; each file is either the hub's or not there.

The names are of others. What is no run file is left out, nothing is written outside the run folder, and no link that
lies there is followed. What was changed here since is not overwritten.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger
from rich.progress import Progress

from slm_lab.experiment.records.runs import locked
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_json
from slm_lab.lib.layout import Layout
from slm_lab.remote.hub import Hub, RemoteFile, digest
from slm_lab.remote.names import FOLDER, is_run_file, is_run_name

MARK = ".pulled.json"
"""In a run folder: what it was when it was pulled."""
THREADS = 4
"""Files that come at the same time."""


def pull(hub: Hub, name: str, out: Path, progress: Progress, *, force: bool = False) -> Path:
    """Make a run folder in `out` the same as on the hub. Files that are only here stay.

    `progress` gets a task, the bytes that come; with `force`, what was changed here is overwritten.

    Raises:
        LabError: no such run, changed here, in use, or it could not be fetched. What was fetched until then stays; the
            next time only the rest is.
    """
    if not is_run_name(name):
        raise LabError(f"{name!r}: not the name of a run folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        root = out.resolve() / name
        if root.is_symlink() or (root.exists() and not root.is_dir()):
            raise LabError(f"{root}: is not a folder; move it out of the way")
        revision = hub.head()
        with _held(root):
            wanted = _wanted(hub, revision, root)
            run_file = next((f for p, f in wanted.items() if p.startswith("info/") and p.endswith("_run.json")), None)
            lacking = {path: file for path, file in wanted.items() if not file.is_at(root / path)}
            changed = [path for path in lacking if (root / path).exists()]
            if changed and not force and not _is_as_pulled(root, run_file):
                raise LabError(
                    f"{root}: was made or gone on with here, and {len(changed)} files differ from the hub's "
                    f"({', '.join(sorted(changed)[:3])} ...). Nothing was changed; --force takes the hub's"
                )
            root.mkdir(exist_ok=True)
            mark = {"repo": hub.account.repo, "revision": revision, "run_file": run_file and run_file.digest}
            write_json(root / MARK, mark)
            label = f"{name}: {len(lacking)} files" if lacking else f"{name}: complete"
            task = progress.add_task(label, total=sum(file.size for file in lacking.values()))
            _fetch(hub, revision, root, lacking, partial(progress.advance, task))
    except OSError as e:
        raise LabError(f"{e.filename or out}: can't be written: {e.strerror or e}") from None
    return root


def _wanted(hub: Hub, revision: str, root: Path) -> dict[str, RemoteFile]:
    """The files of a run on the hub that may be written here, by path in the run folder."""
    prefix = f"{FOLDER}/{root.name}/"
    remote = hub.files(prefix.rstrip("/"), revision)
    if not remote:
        raise LabError(f"no run {root.name} in {hub.account.repo}")
    wanted: dict[str, RemoteFile] = {}
    left_out = []
    for file in remote:
        path = file.path.removeprefix(prefix)
        if file.path.startswith(prefix) and is_run_file(path):
            _refuse_links(root, path)
            wanted[path] = file
        else:
            left_out.append(file.path)
    if left_out:
        shown = ", ".join(map(repr, left_out[:5]))
        logger.warning("{}: left out {} files that no run holds: {}", root.name, len(left_out), shown)
    return wanted


def _fetch(hub: Hub, revision: str, root: Path, lacking: dict[str, RemoteFile], advance: Callable[[int], None]) -> None:
    temp = root.parent / f".pull-{os.getpid()}"

    def place(path: str) -> None:
        came = hub.download(lacking[path], revision, temp, advance)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        _refuse_links(root, path)
        came.replace(root / path)

    try:
        # a folder without the spec is no run folder: half of one is not taken for a whole
        last = [path for path in lacking if "/" not in path and path.endswith("_spec.json")]
        for paths in ([path for path in lacking if path not in last], last):
            with ThreadPoolExecutor(THREADS) as pool:
                try:
                    list(pool.map(place, paths))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _refuse_links(root: Path, path: str) -> None:
    """A link in the way could lead anywhere."""
    place = root
    for part in Path(path).parts:
        place /= part
        if place.is_symlink():
            raise LabError(f"{place}: is a symbolic link, which is not followed; move it out of the way")


def _is_as_pulled(root: Path, run_file: RemoteFile | None) -> bool:
    """Whether the run came from the hub and was not gone on with: what differs is damaged, or older than the hub's."""
    try:
        mark: Any = json.loads((root / MARK).read_text(encoding="utf-8"))
        pulled = mark["run_file"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if run_file is None or pulled is None:
        return True
    here = root / run_file.path.removeprefix(f"{FOLDER}/{root.name}/")
    return not here.exists() or digest(here, like=str(pulled)) == pulled


@contextmanager
def _held(root: Path) -> Iterator[None]:
    """No other process may be working on the run meanwhile."""
    try:
        layout = Layout.open(root)
    except FileNotFoundError:
        layout = None
    with locked(layout) if layout is not None and layout.run_file().exists() else nullcontext():
        yield
