"""Upload a run folder: all of its files, its page and the list of runs, in one commit."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loguru import logger

from slm_lab.experiment.records.history import describe
from slm_lab.experiment.records.runs import best_trial
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.remote import catalog
from slm_lab.remote.card import repo_card, run_readme
from slm_lab.remote.hub import ConflictError, Hub
from slm_lab.remote.names import FOLDER, is_run_name
from slm_lab.remote.snapshot import snapshot

_CARD = "README.md"
_TRIES = 10
"""Commits that are tried while others come first."""


def push(hub: Hub, layout: Layout) -> str:
    """Upload a run folder; gives the address of its page.

    What is on the hub already is not sent again, and nothing there is deleted.

    Raises:
        LabError: the upload failed; the hub is then as it was.
    """
    name = layout.root.name
    if not is_run_name(name):
        raise LabError(f"{layout.root}: not the name of a run folder (<spec name>_<year>_<month>_<day>_<time>)")
    with snapshot(layout.root) as files:
        if not files:
            raise LabError(f"{layout.root}: nothing to upload")

        def held(path: Path) -> Any:
            copy = files.get(path.relative_to(layout.root).as_posix())
            return None if copy is None else catalog.loads(copy.read_text(encoding="utf-8", errors="replace"))

        mine = describe(layout)
        trial = best_trial(held(layout.trial_data())) or 0
        spec, scalars = held(layout.spec()), held(layout.trial_scalar(trial, top=True)) or {}
        page = run_readme(mine, spec, scalars, held(layout.run_file()) or {}, files, hub.account.repo)
        content: dict[str, Path | bytes] = {f"{FOLDER}/{name}/{path}": held for path, held in files.items()}
        content[f"{FOLDER}/{name}/{_CARD}"] = page.encode()
        for left in reversed(range(_TRIES)):
            head = hub.head()
            runs = {**catalog.read(hub, head), name: mine}
            content[catalog.FILE] = catalog.dump(runs).encode()
            card = repo_card(hub.read(_CARD, head), runs.values())
            if card is not None:
                content[_CARD] = card.encode()
            try:
                hub.commit(content, f"{name}: {mine.status}", head)
                break
            except ConflictError:
                if not left:
                    raise
    return f"{hub.account.url}/tree/main/{FOLDER}/{name}"


@contextmanager
def uploads(upload: Callable[[], object], every: float) -> Iterator[None]:
    """Upload now and then while the block is at work.

    A failure is told and tried again the next time; only what is uploaded at the end must not fail. `every`: seconds
    from the end of one to the next.
    """
    end = threading.Event()

    def work() -> None:
        while not end.wait(every):
            try:
                upload()
            except Exception as e:  # noqa: BLE001  the training must not fall with it
                logger.warning("not uploaded, will be tried again: {}", e)

    thread = threading.Thread(target=work, name="uploads", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
