"""The commands as they are, on a run of a second or so."""

import json
import os
import pstats
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slm_lab import __version__
from slm_lab.cli.app import app
from slm_lab.experiment.run import Mode, Options
from slm_lab.experiment.runs import RunFile, Status, locked
from slm_lab.lib.layout import Layout

SCRIPT = Path(sys.executable).with_name("slm-lab")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, raw: dict[str, Any]) -> Path:
    """A folder with toy.json, and in data/ a profiled dev run of its spec."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "toy.json").write_text(json.dumps({"toy": raw}))
    args = [str(folder / "toy.json"), "toy", "train", "--profile", "--out", str(folder / "data")]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "note: --profile: runs in dev mode" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("/profiler")
    return folder


def run_folder(trained: Path) -> Path:
    [folder] = (trained / "data").iterdir()
    return folder


def test_profile(trained: Path) -> None:
    folder = run_folder(trained) / "profiler"
    stats = pstats.Stats(str(folder / "profile.pstats"))
    assert any(name == "maybe_update" for _, _, name in stats.stats)  # type: ignore[attr-defined]
    assert (folder / "profile.txt").read_text().startswith("Time in the function itself\n")
    layout = Layout.open(run_folder(trained))
    assert RunFile.open(layout).mode == "dev"


def test_enjoy(slm: Any, trained: Path, folder: Path) -> None:
    (folder / "data").symlink_to(trained / "data")
    done = slm(str(trained / "toy.json"), "enjoy", "--episodes", "2", "--log-level", "warning")
    assert done.exit_code == 0
    assert all(1 <= float(word) <= 500 for word in done.stdout.split())
    assert len(done.stdout.split()) == 2


def test_list_runs(slm: Any, trained: Path) -> None:
    name = run_folder(trained).name
    out = ["--out", str(trained / "data")]
    [line] = json.loads(slm("list-runs", "--json", *out).stdout)
    assert 1 <= line.pop("total_reward_ma") <= 500
    assert line == {
        "folder": name,
        "spec": "toy",
        "env": "CartPole-v1",
        "algorithm": "PPO",
        "sessions": 1,
        "frames": 256,
        "status": "completed",
    }
    head, row = slm("list-runs", *out).stdout.splitlines()
    assert head.split() == ["folder", "spec", "env", "algorithm", "sessions", "frames", "total_reward_ma", "status"]
    assert row.split()[:6] == [name, "toy", "CartPole-v1", "PPO", "1", "256"]
    assert slm("list-runs", "nothing", *out).stdout.startswith("no run in ")


def test_list_runs_of_a_run_without_results(slm: Any, folder: Path, raw: dict[str, Any]) -> None:
    """It is running while a process holds it, and killed when none does; what can't be read is left open."""
    layout = Layout.new(folder / "data", "toy")
    layout.make_folders()
    layout.spec().write_text(json.dumps({**raw, "name": "toy"}))

    def status() -> tuple[Any, ...]:
        [line] = json.loads(slm("list-runs", "--json").stdout)
        return line["status"], line["frames"], line["total_reward_ma"]

    assert status() == ("?", None, None)
    file = RunFile.create(layout, Mode.TRAIN, Options())
    assert status() == ("killed", None, None)
    with locked(layout):
        assert status() == ("running", None, None)
    file.ended(Status.STOPPED)
    layout.session_df(0, 0).write_text("total_reward,total_reward_ma,frame\n1.0,2.5,64\n1.0,3.5,128\n")
    layout.session_df(0, 1).write_text("total_reward,total_reward_ma,frame\n1.0,4.5,64\n")
    assert status() == ("stopped", 128, 4.0)


@pytest.mark.parametrize("word", ["toy", "latest", "name"])
def test_plot(slm: Any, trained: Path, folder: Path, word: str) -> None:
    words = f"{run_folder(trained).name if word == 'name' else word},{run_folder(trained)}"
    done = slm("plot", "-f", words, "-l", "a, b", "-o", "x.png", "--out", str(trained / "data"))
    assert (done.exit_code, done.stdout) == (0, "x.png\n")
    assert (folder / "x.png").read_bytes().startswith(b"\x89PNG")


def test_plot_faults(slm: Any, trained: Path) -> None:
    name = run_folder(trained).name
    done = slm("plot", "-f", name[:-1], "--out", str(trained / "data"))
    assert done.exit_code == 2
    assert done.stderr.endswith(f"did you mean '{name}'?\n")


def test_validate(slm: Any, folder: Path, raw: dict[str, Any]) -> None:
    bad = {**raw, "env": {"name": "CartPol-v1", "max_frame": 0}}
    open_ = {**raw, "env": {"name": "${env}", "max_frame": "${max_frame}"}}
    optim = {**raw, "agent": {**raw["agent"], "net": {**raw["agent"]["net"], "optim_spec": {"name": "Adam", "lrr": 1}}}}
    (folder / "specs").mkdir()
    (folder / "specs" / "a.json").write_text(json.dumps({"good": raw, "open": open_}))
    (folder / "specs" / "b.json").write_text(json.dumps({"bad": bad, "optim": optim}))
    (folder / "specs" / "c.yaml").write_text("a: [")
    (folder / "specs" / "_data.json").write_text("7")
    done = slm("validate", "specs", "--json")
    assert done.exit_code == 2
    verdicts = {(v["file"], v["spec"]): (v["status"], v["notes"]) for v in json.loads(done.stdout)}
    assert verdicts[("specs/a.json", "good")] == ("runs", [])
    assert verdicts[("specs/a.json", "open")] == ("runs", ["needs -s env=... -s max_frame=..."])
    assert verdicts[("specs/b.json", "bad")] == (
        "cannot run",
        [
            "env.max_frame: must be at least 1 (got 0)",
            "env.name: unknown env 'CartPol-v1', did you mean 'CartPole-v1'?",
        ],
    )
    status, [note] = verdicts[("specs/b.json", "optim")]
    assert status == "cannot run"
    assert "lrr" in note
    assert verdicts[("specs/c.yaml", None)][0] == "cannot run"
    assert len(verdicts) == 5

    done = slm("validate", "specs/a.json", "-s", "env=CartPole-v1", "-s", "max_frame=10")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "2 of 2 can run"
    assert "needs" not in done.stdout
    assert slm("validate", "specs/a.json", "-s", "env=CartPol-v1").exit_code == 2


def test_validate_names_what_is_not_there(slm: Any, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "none.json").write_text("{}")
    done = slm("validate", "ppo/ppo_cartpol.json", "empty", "none.json", "--json")
    assert done.exit_code == 2
    assert [(v["file"], v["status"], v["notes"]) for v in json.loads(done.stdout)] == [
        ("ppo/ppo_cartpol.json", "cannot run", ["no such spec file, did you mean 'ppo/ppo_cartpole.json'?"]),
        ("empty", "cannot run", ["no spec file in this folder"]),
        ("none.json", "cannot run", ["holds no spec"]),
    ]


def test_schema(slm: Any, folder: Path) -> None:
    printed = slm("schema").stdout
    assert json.loads(printed)["title"] == "slm_lab spec file"
    assert slm("schema", "-o", "x.json").stdout == ""
    assert (folder / "x.json").read_text() == printed
    done = slm("schema", "-o", "no/such/folder/x.json")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: no/such/folder/x.json: can't be written: No such file or directory\n",
    )


def test_version_and_help(slm: Any) -> None:
    assert slm("--version").stdout == f"slm-lab {__version__}\n"
    assert slm().stdout == slm("--help").stdout == slm("-h").stdout
    assert "list-runs" in slm().stdout
    assert "--cuda-offset" in slm("spec.json", "name", "--help").stdout


def test_a_reader_that_goes_away() -> None:
    """As in `slm-lab schema | head -1`: no traceback, and the exit code a shell reports of SIGPIPE."""
    with subprocess.Popen([SCRIPT, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait() == 141
    assert errors == b""


def test_a_wrong_file_name_does_not_wait_for_torch() -> None:
    code = (
        "import sys\n"
        "from slm_lab.cli.app import main\n"
        "sys.argv = ['slm-lab', 'no_such_file.json', 'x', 'dev']\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    print(stop.code, 'torch' in sys.modules, 'gymnasium' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "2 False False\n"
