"""`slm-lab report`."""

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_lab.cli.runs import find_all, find_local_plugins
from slm_lab.experiment.report.write import report, watch
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import setup


def main(
    words: Sequence[str], out: Path, output: Path | None, *, open_it: bool, watch_every: float | None, **options: Any
) -> None:
    """Write the page, print where it is, and open it where that is asked for."""
    setup("WARNING")
    find_local_plugins()
    layouts = find_all(words, out)
    if watch_every is None:
        path = report([layout.root for layout in layouts], output, **options)
    else:
        path = watch(layouts, output, every=watch_every, on_first=open_page if open_it else None, **options)
    print(path)
    if open_it and watch_every is None:
        open_page(path)


def open_page(path: Path) -> None:
    """Show a page in the browser."""
    try:
        opened = webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    if not opened:
        raise LabError(f"--open: no browser was found here; the page is {path.resolve()}")
