"""`slm-lab plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_lab.cli.report import show
from slm_lab.cli.runs import find_all
from slm_lab.experiment.graphs.plot_runs import plot_runs
from slm_lab.experiment.records.history import read_histories
from slm_lab.lib.errors import LabError


def main(words: Sequence[str], out: Path, **options: Any) -> None:
    """Draw the runs into one file and say where it is.

    Raises:
        LabError: no such run, nothing to draw, a legend too many or too few.
    """
    if not words:
        raise LabError("plot: no run given; name folders, patterns or specs")
    histories, left_out = read_histories(find_all(words, out), strict=options["legends"] is not None)
    print(plot_runs(histories, **options))
    for note in left_out:
        show("note", note, "bold cyan")
