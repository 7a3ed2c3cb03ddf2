"""`slm-lab eval`."""

import json
from collections.abc import Callable
from pathlib import Path

from support.runs import make_run
from typer.testing import Result

Slm = Callable[..., Result]


def test_a_table_and_json(slm: Slm, finished_run: Path) -> None:
    shown = slm("eval", str(finished_run), "--episodes", "5", "--num-envs", "3")
    assert shown.exit_code == 0, shown.output
    head, line = shown.stdout.splitlines()
    assert head.split()[:3] == ["session", "frame", "episodes"]
    small = ("--episodes", "5", "--num-envs", "3", "--json")
    found = json.loads(slm("eval", finished_run.name, "--out", str(finished_run.parent), *small).stdout)
    [session] = found["sessions"]
    assert len(session["returns"]) == len(session["lengths"]) == 5
    assert found["low"] <= found["mean"] <= found["high"]
    assert f"{found['mean']:.4g}" in line


def test_a_checkpoint_that_was_not_kept(slm: Slm, finished_run: Path) -> None:
    done = slm("eval", str(finished_run), "--checkpoint", "123")
    assert done.exit_code == 2
    told = "has no checkpoint '123' (known: best, latest; no frame was kept, see meta.keep_checkpoints)\n"
    assert done.stderr.endswith(told)


def test_no_such_run(slm: Slm) -> None:
    done = slm("eval", "nothing")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: nothing: no such run folder")


def test_the_name_of_a_spec_leads_to_its_newest_run(slm: Slm, folder: Path) -> None:
    for _ in range(2):
        newest = make_run(folder / "data", "residual")
    done = slm("eval", "residual")
    assert done.exit_code == 2
    assert done.stderr.endswith(f"neither here nor in data, did you mean '{newest.root.name}'?\n")
