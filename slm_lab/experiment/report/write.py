"""Reads runs and writes their page."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import slm_lab
from slm_lab.experiment.records.compare import compare
from slm_lab.experiment.records.history import History, NoRowError, Targets, read_histories, read_status
from slm_lab.experiment.records.runs import find_run
from slm_lab.experiment.report.page import Page, Section, render
from slm_lab.experiment.report.policy import final_evaluation, video_section
from slm_lab.experiment.report.search import search_page
from slm_lab.experiment.report.several import several_page
from slm_lab.experiment.report.single import run_page
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_atomic
from slm_lab.lib.layout import Layout

PAGE = "report.html"
"""Of one run, in its folder; of several in the working folder."""


def report(
    targets: Targets,
    output: str | Path | None = None,
    *,
    out: str | Path = "data",
    video: bool = True,
    evaluate: int | None = None,
    metric: str = "total_reward",
    at: int | None = None,
    target: float | None = None,
    labels: Sequence[str] | None = None,
    refresh: int | None = None,
) -> Path:
    """Write a run, a search, or several runs as one HTML page that works offline; gives the file.

    Args:
        targets: a run folder or several, or `latest` of `out`.
        output: the HTML file; None: `report.html` in the run folder, of several runs in the working folder.
        out: folder of the run folders.
        video: film the best policy of a run that has no film.
        evaluate: episodes that the best policy of each session of a run plays for the page.
        metric: see `compare`; of several runs, as the next three.
        at: see `compare`.
        target: see `compare`.
        labels: see `compare`.
        refresh: seconds after which a browser loads the page again.

    Raises:
        LabError: no such run, a run without a row, a file that can't be written.
    """
    words = [targets] if isinstance(targets, str | Path) else list(targets)
    if not words:
        raise LabError("report: no run given")
    runs = [find_run(word, Path(out).expanduser()).root for word in words]
    compared = {"metric": metric if metric != "total_reward" else None, "at": at, "target": target, "legends": labels}
    if len(runs) == 1 and (given := [f"--{name}" for name, value in compared.items() if value is not None]):
        raise LabError(
            f"report: {', '.join(given)}: only a page that compares several runs takes this; 1 run was given"
        )
    if output is None:
        output = PAGE if len(runs) > 1 else runs[0] / PAGE
    with _page_file(Path(output)) as path:
        if len(runs) > 1:
            page = several_page(compare(runs, metric=metric, at=at, target=target, labels=labels))
        else:
            [history], _ = read_histories(runs, strict=True)
            page = _one(history, path, video=video, evaluate=evaluate)
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        footer = f"Made by slm-lab {slm_lab.__version__} on {now}, from the tables in info/."
        try:
            write_atomic(path, render(page, footer=footer, refresh=refresh))
        except OSError as e:
            raise LabError(f"report: {path} can't be written: {e.strerror}") from e
    return path


@contextmanager
def _page_file(output: Path) -> Iterator[Path]:
    """The file of a page, known to be writable before the work begins; a new one is removed if the work fails."""
    if output.is_dir():
        output /= PAGE
    if output.suffix.lower() not in (".html", ".htm"):
        raise LabError(f"report: {output} must be an .html file")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.open("ab").close()
    except OSError as e:
        raise LabError(f"report: {output} can't be written: {e.strerror}") from e
    new = output.stat().st_size == 0
    try:
        yield output
    except BaseException:
        if new:
            output.unlink(missing_ok=True)
        raise


def watch(
    layouts: Sequence[Layout],
    output: Path | None = None,
    *,
    every: float = 10.0,
    on_first: Callable[[Path], None] | None = None,
    **options: Any,
) -> Path:
    """Write the page repeatedly while a run continues, then a last time without the reload; returns the file.

    Each page is written `every` so many seconds, and loaded as often by the browser; `on_first` is called with the file
    once there is one. The rest is as `report` takes it.
    """
    folders = [layout.root for layout in layouts]
    while any(read_status(layout) == "running" for layout in layouts):
        with suppress(NoRowError):
            path = report(
                folders, output, **{**options, "video": False, "evaluate": None}, refresh=max(1, round(every))
            )
            if on_first is not None:
                on_first(path)
                on_first = None
        time.sleep(every)
    path = report(folders, output, **options)
    if on_first is not None:
        on_first(path)
    return path


def _one(history: History, output: Path, *, video: bool, evaluate: int | None) -> Page:
    page = search_page(history) if history.is_search else run_page(history)
    at = 1
    try:
        if film := video_section(history.layout, output, make=video and history.status != "running"):
            page.sections.insert(at, film)
            at += 1
    except LabError as e:
        page.missing.append(str(e))
    if not history.is_search:
        own = next((s for s in page.sections if s.title == "Evaluation"), None)
        try:
            parts = final_evaluation(history.layout, evaluate)
            if own is not None:
                own.parts += parts
            elif parts:
                page.sections.insert(at + 1, Section("Evaluation", [*parts]))
        except LabError as e:
            page.missing.append(str(e))
    return page
