import json
from collections.abc import Callable
from pathlib import Path

from support.runs import make_run
from typer.testing import Result

Slm = Callable[..., Result]


def test_compare(slm: Slm, folder: Path) -> None:
    make_run(folder / "data", "ppo", [[10.0, 20.0], [30.0, 40.0]])
    make_run(folder / "data", "dqn", [[20.0, 40.0], [1.0, 2.0]], agent="DQN")
    done = slm("compare", "ppo*", "dqn*", "--legends", "mine,yours")
    assert done.exit_code == 0, done.stderr
    assert "mine" in done.stdout
    assert "25 [15, 35]" in done.stdout
    assert "coarse intervals" in done.stderr
    done = slm("compare", "*", "--at", "100", "--json")
    assert [m["scores"] for m in json.loads(done.stdout)["methods"]] == [[20.0, 1.0], [10.0, 30.0]]


def test_several_envs(slm: Slm, folder: Path) -> None:
    make_run(folder / "data", "a", [[475.0], [22.97]])
    make_run(folder / "data", "b", [[4.0], [8.0]], env="ALE/Adventure-v5")
    done = slm("compare", "a*", "b*")
    assert "over 2 envs, normalized" in done.stdout
    assert "ALE/Adventure-v5: 0 to 6 (the best method compared here)" in done.stdout


def test_faults(slm: Slm, folder: Path) -> None:
    make_run(folder / "data", "ppo", [[10.0]])
    empty = make_run(folder / "data", "sac", [[]])
    (folder / "cmp.html").touch()
    for words, told in (
        (("nix*", "nobody"), ("nix*: matches no run folder", "nobody: no such run folder")),
        (("cmp.html",), ("error: cmp.html: neither a run folder nor a checkpoint",)),
        ((str(empty.root),), ("not a row to show yet",)),
        (("ppo*", str(empty.root), "-l", "a,b"), ("not a row to show yet",)),
    ):
        done = slm("compare", *words)
        assert done.exit_code == 2
        for text in told:
            assert text in done.stderr
    done = slm("compare", "ppo*", str(empty.root))
    assert done.exit_code == 0
    assert "left out: " in done.stderr
    done = slm("compare", "ppo*", "--metric", "los")
    assert done.exit_code == 2
    assert "did you mean 'loss'" in done.stderr
