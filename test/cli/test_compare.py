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
    assert "unreliable" in done.stderr
    done = slm("compare", "*", "--at", "100", "--json")
    assert [m["scores"] for m in json.loads(done.stdout)["methods"]] == [[20.0, 1.0], [10.0, 30.0]]


def test_times_of_sessions_that_did_not_get_there(slm: Slm, folder: Path) -> None:
    make_run(folder / "data", "ppo", [[10.0], [40.0]])
    told = "(1 of 2): one session of two reached 30; -: too few for a median"
    assert told in " ".join(slm("compare", "ppo*", "--target", "30").stdout.split())
    assert "too few" not in slm("compare", "ppo*", "--target", "5").stdout
    # where no episode ended there is no target to speak of
    make_run(folder / "data", "new", [[None]])
    assert "reached" not in slm("compare", "new*").stdout


def test_many_methods_have_numbers(slm: Slm, folder: Path) -> None:
    for name in "abcd":
        make_run(folder / "data", name, [[10.0], [40.0]])
    lines = [line.rstrip() for line in slm("compare", "*").stdout.splitlines()]
    at = lines.index("P(row beats column)")
    assert lines[at + 1].split() == ["1", "2", "3", "4"]
    assert [line.split()[:2] for line in lines[at + 2 : at + 6]] == [["1", "a"], ["2", "b"], ["3", "c"], ["4", "d"]]


def test_an_env_is_called_as_it_is_today(slm: Slm, folder: Path) -> None:
    make_run(folder / "data", "old", [[-900.0], [-800.0]], env="Pendulum")
    make_run(folder / "data", "new", [[-900.0], [-800.0]], env="Pendulum-v1")
    assert json.loads(slm("compare", "*", "--json").stdout)["references"].keys() == {"Pendulum-v1"}
    assert [line["env"] for line in json.loads(slm("list-runs", "--json").stdout)] == ["Pendulum-v1", "Pendulum-v1"]


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
        ((str(empty.root),), ("no data yet",)),
        (("ppo*", str(empty.root), "-l", "a,b"), ("no data yet",)),
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
