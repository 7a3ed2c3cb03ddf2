import json
import subprocess
import sys
from pathlib import Path

import pytest

from slm_lab.experiment.records.runs import RunFile, Status, find_run, git_commit, list_layouts, locked
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout


def make(out: Path, name: str, stamp: str) -> Layout:
    layout = Layout(out / f"{name}_{stamp}", name)
    layout.root.mkdir(parents=True)
    layout.make_folders()
    layout.spec().write_text("{}", encoding="utf-8")
    return layout


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "data"
    make(out, "ppo_zzz", "2026_01_01_100000")
    make(out, "ppo", "2026_01_02_100000")
    make(out, "a2c", "2026_01_03_100000")
    make(out, "a2c", "2026_01_03_100000_10")
    make(out, "a2c", "2026_01_03_100000_9")
    (out / "other_2027_01_01_100000").mkdir()
    (out / "notes.txt").write_text("x", encoding="utf-8")
    return out


def test_runs_are_in_the_order_of_time(out: Path) -> None:
    assert [layout.root.name for layout in list_layouts(out)] == [
        "ppo_zzz_2026_01_01_100000",
        "ppo_2026_01_02_100000",
        "a2c_2026_01_03_100000",
        "a2c_2026_01_03_100000_9",
        "a2c_2026_01_03_100000_10",
    ]


def test_latest_is_by_time_not_by_name(out: Path) -> None:
    assert find_run("latest", out).root.name == "a2c_2026_01_03_100000_10"
    assert find_run("latest", out, "ppo").root.name == "ppo_2026_01_02_100000"


def test_a_renamed_folder_is_a_run_still(out: Path) -> None:
    first, *_, last = list_layouts(out)
    for layout in (first, last):
        RunFile.create(layout, Mode.TRAIN, Options(out=out))
    # also that of a trial, and a best spec, lie there
    last.trial_spec(0).write_text("{}", encoding="utf-8")
    last.best_spec().write_text("{}", encoding="utf-8")
    moved = last.root.rename(out / "baseline")
    assert Layout.open(moved) == Layout(moved, "a2c")
    # it was begun just now, the others in January
    assert list_layouts(out)[-1].root == moved
    assert find_run("latest", out).root == moved
    (out / "no run").mkdir()
    assert len(list_layouts(out)) == 5


def test_latest_of_nothing(out: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no run in"):
        find_run("latest", tmp_path / "nowhere")
    with pytest.raises(LabError, match=r"no run of 'ppoo' .*did you mean 'ppo'\? \(runs of: a2c, ppo, ppo_zzz\)"):
        find_run("latest", out, "ppoo")
    with pytest.raises(LabError, match=r"latest: no search among the \d runs in"):
        find_run("latest", out, fits=lambda layout: False, kind="search")


def test_a_run_by_its_folder_or_a_file_in_it(out: Path) -> None:
    layout = list_layouts(out)[1]
    assert find_run(layout.root, out) == layout
    assert find_run(layout.spec(), out) == layout
    file = layout.checkpoint(0, 0)
    file.touch()
    assert find_run(file, out) == layout


@pytest.mark.parametrize(("target", "word"), [("nowhere", "no such run folder"), (".", "not a run folder")])
def test_what_is_no_run(out: Path, target: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out)
    with pytest.raises(LabError, match=word):
        find_run(target, out)


def test_the_run_file_says_what_was_run(out: Path) -> None:
    layout = list_layouts(out)[0]
    options = Options(out=out, seed=7, device="cpu", log_metrics=True)
    file = RunFile.create(layout, Mode.TRAIN, options)
    assert (file.mode, file.status, file.options) == (Mode.TRAIN, Status.RUNNING, options)
    again = RunFile.open(layout).ended(Status.STOPPED).resumed().ended(Status.COMPLETED)
    assert RunFile.open(layout) == again
    content = json.loads(layout.run_file().read_text(encoding="utf-8"))
    assert content["status"] == "completed"
    assert content["versions"].keys() == {"slm_lab", "torch", "python", "numpy", "gymnasium", "mujoco", "ale_py"}
    assert content["machine"]["cores"] >= 1
    assert content["command"] == sys.argv
    assert len(content["resumed"]) == 1


def test_a_run_file_that_is_missing_or_foreign(out: Path) -> None:
    layout = list_layouts(out)[0]
    with pytest.raises(LabError, match="has no info"):
        RunFile.open(layout)
    layout.run_file().write_text('{"mode": "sing"}', encoding="utf-8")
    with pytest.raises(LabError, match="not a run file"):
        RunFile.open(layout)


def test_the_commit_of_the_working_folder(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40


def test_a_run_is_held_by_one_process(out: Path) -> None:
    layout = list_layouts(out)[0]
    with locked(layout), pytest.raises(LabError, match="another process"), locked(layout):
        pass
    with locked(layout):
        pass


def test_a_child_that_has_the_lock_keeps_it_until_it_ends(out: Path) -> None:
    layout = list_layouts(out)[0]
    with locked(layout) as held:
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(1.5)"], pass_fds=held, stdin=subprocess.DEVNULL
        )
    try:
        with pytest.raises(LabError, match="another process"), locked(layout):
            pass
        with locked(layout, patience=30):
            assert child.wait(5) == 0
    finally:
        child.kill()
        child.wait()
