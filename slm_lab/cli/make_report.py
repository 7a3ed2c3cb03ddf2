"""`slm-lab report`."""

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_lab.cli.report import show
from slm_lab.cli.runs import find_all, find_local_plugins
from slm_lab.experiment.report.write import watch, write_report
from slm_lab.lib.log import setup


def main(
    words: Sequence[str], out: Path, output: Path | None, *, open_it: bool, watch_every: float | None, **options: Any
) -> None:
    """Write the page, print where it is, and open it where that is asked for.

    Raises:
        LabError: no such run, a run without a row, a file that can't be written.
    """
    setup("WARNING")
    find_local_plugins()
    layouts = find_all(words, out)
    if watch_every is None:
        path = write_report(layouts, output, **options)
        if open_it:
            _open(path)
    else:
        path = watch(layouts, output, every=watch_every, on_first=_open if open_it else None, **options)
    print(path)


def _open(path: Path) -> None:
    try:
        opened = webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    if not opened:
        show("note", f"no browser was found here; open {path.resolve()} in one", "bold cyan")
