"""The measurement on a GPU, as far as a CPU can try it."""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
from workloads import WORKLOADS

from slm_lab.spec.load import load_spec

SCRIPT = Path(gpu.__file__)


@pytest.mark.parametrize("row", gpu.ROWS)
def test_every_row_is_a_spec(row: str) -> None:
    spec, peer = gpu.ROWS[row]
    assert peer is None or peer in WORKLOADS
    if not row.startswith("playground"):
        load_spec(spec)


@pytest.mark.ci
def test_a_dry_run_plays_tensor_envs_as_a_gpu_would(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "cartpole_256", "--dry-run", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPT.parent.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {"torch", "cores", "command"} <= set(found["machine"])
    speeds = found["results"]["cartpole_256"]
    assert set(speeds) == {"eager", "compiled"}
    assert all(rounds[0]["fps"] > 0 for rounds in speeds.values())
    assert done.stdout.splitlines()[2].startswith("| cartpole_256 |")


def test_a_card_is_needed_for_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="no NVIDIA GPU here: --dry-run tries the rows on the CPU"):
        gpu.main()


def test_a_table_of_medians_says_what_failed() -> None:
    fast, slow = [{"fps": f} for f in (3000.0, 5000.0, 4000.0)], [{"fps": 1000.0}, {"failed": 1}]
    text = gpu.table({"pong": {"eager": slow, "compiled": fast, "sb3": [{"failed": 1}]}, "td3": {"eager": slow}})
    assert text.splitlines()[2:] == [
        "| pong | 1,000 | 4,000 | 4.00x | failed | - |",
        "| td3 | 1,000 | - | - | - | - |",
    ]
