"""Download runs into a folder; each file is either the hub's or not there.

The names are of others. What is no run file is left out, nothing is written outside the run folder, and no link that
lies there is followed. What was changed here since is not overwritten.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger

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


class Watcher:
    """Called with the progress; this one does nothing with it."""

    def begin(self, name: str, count: int, size: int) -> None:
        """So many files and bytes of a run are to come."""

    def advance(self, count: int) -> None:
        """So many bytes have come."""


@dataclass(frozen=True)
class Plan:
    """What a run lacks here."""

    root: Path
    fetch: dict[str, RemoteFile]
    """Missing, or other than on the hub; by path in the run folder."""
    run_file: RemoteFile | None = None
    left_out: list[str] = field(default_factory=list)
    """Paths that are not taken."""


def pull(hub: Hub, name: str, out: Path, watcher: Watcher, *, force: bool = False) -> Path:
    """Make a run folder the same as on the hub. Files that are only here stay; `force` overwrites what differs.

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
            made = plan(hub, revision, root, force=force)
            if made.left_out:
                shown = ", ".join(repr(path) for path in made.left_out[:5])
                logger.warning("{}: left out {} files that no run holds: {}", name, len(made.left_out), shown)
            watcher.begin(name, len(made.fetch), sum(file.size for file in made.fetch.values()))
            _fetch(hub, revision, made, watcher)
    except OSError as e:
        raise LabError(f"{e.filename or out}: can't be written: {e.strerror or e}") from None
    return root


def plan(hub: Hub, revision: str, root: Path, *, force: bool = False) -> Plan:
    """What is to be fetched.

    Raises:
        LabError: no such run on the hub; a file was changed here.
    """
    prefix = f"{FOLDER}/{root.name}/"
    remote = hub.files(prefix.rstrip("/"), revision)
    if not remote:
        raise LabError(f"no run {root.name} in {hub.account.repo}")
    wanted: dict[str, RemoteFile] = {}
    left_out = []
    for file in remote:
        path = file.path.removeprefix(prefix)
        if file.path.startswith(prefix) and is_run_file(path):
            wanted[path] = file
        else:
            left_out.append(file.path)
    for path in wanted:
        _refuse_links(root, path)
    fetch = {path: file for path, file in wanted.items() if not file.is_at(root / path)}
    run_file = next((f for path, f in wanted.items() if path.startswith("info/") and path.endswith("_run.json")), None)
    changed = [path for path in fetch if (root / path).exists()]
    if changed and not force and not _is_as_pulled(root, prefix, run_file):
        raise LabError(
            f"{root}: was made or gone on with here, and {len(changed)} files differ from the hub's "
            f"({', '.join(sorted(changed)[:3])} ...). Nothing was changed; --force takes the hub's"
        )
    return Plan(root, fetch, run_file, left_out)


def _fetch(hub: Hub, revision: str, made: Plan, watcher: Watcher) -> None:
    root = made.root
    temp = root.parent / f".pull-{os.getpid()}"
    root.mkdir(exist_ok=True)
    mark = {"repo": hub.account.repo, "revision": revision, "run_file": made.run_file and made.run_file.digest}
    write_json(root / MARK, mark)

    def place(path: str) -> None:
        came = hub.download(made.fetch[path], revision, temp, watcher.advance)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        _refuse_links(root, path)
        came.replace(root / path)

    try:
        # a folder without the spec is no run folder: half of one is not taken for a whole
        last = [path for path in made.fetch if "/" not in path and path.endswith("_spec.json")]
        for paths in ([path for path in made.fetch if path not in last], last):
            with ThreadPoolExecutor(THREADS) as pool:
                try:
                    list(pool.map(place, paths))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _refuse_links(root: Path, path: str) -> None:
    """A link that lies in the way could lead anywhere."""
    place = root
    for part in Path(path).parts:
        place /= part
        if place.is_symlink():
            raise LabError(f"{place}: is a symbolic link, which is not followed; move it out of the way")


def _is_as_pulled(root: Path, prefix: str, run_file: RemoteFile | None) -> bool:
    """Whether the run came from the hub and was not gone on with: what differs is damaged, or older than the hub's."""
    try:
        mark: Any = json.loads((root / MARK).read_text(encoding="utf-8"))
        pulled = mark["run_file"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if run_file is None or pulled is None:
        return True
    here = root / run_file.path.removeprefix(prefix)
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
