"""`slm-lab plot`."""

from pathlib import Path

from slm_lab.cli.runs import find_folder
from slm_lab.experiment.plot import plot_runs


def main(folders: list[str], title: str | None, legends: list[str] | None, output: Path, out: Path) -> None:
    """Draw the runs into one graph and say where it is.

    Raises:
        LabError: no such run, nothing to draw, a legend too many or too few.
    """
    found = [find_folder(folder, out) for folder in folders]
    print(plot_runs(found, title=title, legends=legends, output=output))
