"""Every notebook of the documentation runs from top to bottom, and has been saved with its outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["1_reinforce", "2_critic", "3_ppo_clip", "4_dqn_overestimation"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_saved_with_its_outputs(path: Path) -> None:
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output.output_type != "error" for output in outputs)
    assert path.stat().st_size < 250_000


@pytest.mark.ci
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    """What it claims is asserted in its own cells; those errors are CellExecutionErrors."""

    def run() -> None:
        place = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(read(path), timeout=600, kernel_name="python3", resources=place).execute()

    try:
        run()
    except (DeadKernelError, AssertionError):  # nbclient lost the kernel's process: seen once in fifty runs
        run()
