"""The commands as they are, on a run of a second or so."""

import json
import os
import pstats
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slm_lab import __version__
from slm_lab.cli.app import app
from slm_lab.experiment.records.runs import RunFile, Status, locked
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.lib.layout import Layout
from slm_lab.lib.log import setup

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
    found = slm("list-runs", "*to?_*", *out).stdout.splitlines()
    assert found == [head, row]
    assert slm("list-runs", "nothing*", *out).stdout == f"no run in {trained / 'data'} fits 'nothing*'\n"
    assert slm("list-runs", f"{name}0", *out).stdout.endswith(f"fits '{name}0', did you mean '{name}'?\n")


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
    layout.session_df(0, 2).write_text("total_reward,total_reward_ma,frame\n")
    assert json.loads(slm("list-runs", "--json").stdout)[0]["sessions"] == 2
    for columns in ("20", "40", "80"):
        text = re.sub(r"\x1b\[[\d;]*m", "", slm("list-runs", FORCE_COLOR="1", COLUMNS=columns).stdout)
        assert layout.root.name in text.splitlines()[0].split()
        assert "stopped" in text


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
    open_ = {**raw, "env": {"name": "${env}", "num_envs": 2, "max_frame": "${max_frame}"}}
    optim = {**raw, "agent": {**raw["agent"], "net": {**raw["agent"]["net"], "optim_spec": {"name": "Adam", "lrr": 1}}}}
    (folder / "specs").mkdir()
    (folder / "specs" / "a.json").write_text(json.dumps({"good": raw, "open": open_}))
    (folder / "specs" / "b.json").write_text(json.dumps({"bad": bad, "optim": optim}))
    (folder / "specs" / "c.yaml").write_text("agent: [")
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


def test_validate_does_not_log(slm: Any, folder: Path, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_lab.lib.log._noted", set())
    monkeypatch.setattr("slm_lab.lib.log._filed", set())
    setup()
    spec = {**raw, "env": {"name": "Taxi-v3", "num_envs": 2, "max_frame": 200}}
    (folder / "old.json").write_text(json.dumps({"old": spec}))
    done = slm("validate", "old.json")
    assert done.exit_code == 0
    assert done.stderr == ""


def test_validate_says_of_a_key_that_no_spec_has(slm: Any, spec_file: Path) -> None:
    done = slm("validate", "toy.json", "-s", "envv=CartPole-v1", "-s", "max_frame=10", "--json")
    assert done.exit_code == 2
    notes = {v["spec"]: v["notes"][0] for v in json.loads(done.stdout)}
    assert notes["template"] == "-s envv: no ${envv} in this spec, did you mean 'env'? (variables: env, max_frame)"
    assert notes["toy"].startswith("-s envv: this spec has no variables")


def test_validate_leaves_out_what_is_no_spec_file(slm: Any, folder: Path, raw: dict[str, Any]) -> None:
    text = json.dumps({"toy": raw})
    others = {
        "package.json": '{"name": "x"}',
        "list.json": "[1]",
        "tsconfig.json": "{ // a comment\n}",
        "ci.yaml": "on: [push]",
        **{f"{name}/toy_spec.json": text for name in ("data/run", "node_modules/x", ".hidden")},
        "sub/toy.json": text,
        "bare.json": json.dumps(raw),
        "broken.json": '{"x": {"agent": ',
    }
    for name, content in others.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    files = [v["file"] for v in json.loads(slm("validate", ".", "--json").stdout)]
    assert files == ["bare.json", "broken.json", "sub/toy.json"]
    # but who asks for a folder of results gets it
    assert [v["file"] for v in json.loads(slm("validate", "data", "--json").stdout)] == ["data/run/toy_spec.json"]


def test_validate_tells_keys_without_effect(slm: Any, folder: Path, raw: dict[str, Any]) -> None:
    raw = {**raw, "agent": {**raw["agent"], "net": {**raw["agent"]["net"], "update_type": "polyak"}}}
    old = {**raw, "meta": {**raw["meta"], "distributed": False, "max_session": 1, "max_trial": 1}}
    (folder / "toy.json").write_text(json.dumps({"toy": raw, "old": old}))
    done = slm("validate", "toy.json", "--json")
    assert done.exit_code == 2
    new, old = json.loads(done.stdout)
    why = "has no effect: PPO with the net MLPNet and the memory OnPolicyBatchReplay does not use it"
    assert (new["status"], new["notes"]) == ("cannot run", [f"agent.net.update_type: {why}"])
    assert old["status"] == "runs after migration"
    assert "agent.net.update_type: left out: it has no effect here" in old["notes"]


def test_validate_looks_at_the_search_too(slm: Any, folder: Path, raw: dict[str, Any]) -> None:
    good = {**raw, "search": {"agent.algorithm.gamma__uniform": [0.9, 0.99]}}
    meta = {**raw["meta"], "max_session": 2, "search_scheduler": {"grace_period": 2}}
    bad = {**raw, "meta": meta, "search": {"agent.algorithm.gama__uniform": [0.9, 0.99]}}
    (folder / "toy.json").write_text(json.dumps({"good": good, "bad": bad}))
    done = slm("validate", "toy.json", "--json")
    assert done.exit_code == 2
    verdicts = {v["spec"]: (v["status"], v["notes"]) for v in json.loads(done.stdout)}
    assert verdicts["good"] == ("runs", [])
    status, notes = verdicts["bad"]
    assert status == "trains, cannot be searched"
    assert ["did you mean 'agent.algorithm.gamma'?" in note for note in notes] == [True, False]
    assert "search_max_session to 1" in notes[1]


def test_a_fault_found_only_when_built_leaves_no_run(slm: Any, folder: Path, raw: dict[str, Any]) -> None:
    raw = {**raw, "agent": {**raw["agent"], "net": {**raw["agent"]["net"], "init_fn": "constant_"}}}
    (folder / "toy.json").write_text(json.dumps({"toy": raw}))
    done = slm("toy.json", "toy", "train", "--device", "cpu", "--log-level", "error")
    assert done.exit_code == 2
    assert done.stderr.startswith(
        "error: toy.json: toy\n  agent.net.init_fn: constant_ can't be used here: it needs val"
    )
    assert "crashed" not in done.stderr
    assert not (folder / "data").exists()


def test_both_checkpoints_are_damaged(slm: Any, trained: Path, folder: Path) -> None:
    shutil.copytree(trained / "data", folder / "data")
    [run] = (folder / "data").iterdir()
    [path] = run.glob("model/*_ckpt.pt")
    for name in (path.name, f"{path.name}.prev"):
        path.with_name(name).write_bytes(b"PK")
    RunFile.open(Layout.open(run)).ended(Status.STOPPED)
    done = slm("dev@latest", "--log-level", "error")
    assert done.exit_code == 2
    assert "no readable checkpoint" in done.stderr
    assert "Traceback" not in done.output
    assert run.is_dir()


def test_ctrl_c_while_libraries_are_imported(folder: Path) -> None:
    """At once, without a traceback: here the first of them takes forever."""
    (folder / "typer.py").write_text("import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(60)")
    env = {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen([sys.executable, "-m", "slm_lab"], stderr=subprocess.PIPE, env=env, cwd=folder) as process:
        assert process.stderr is not None
        while not (folder / "here").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == b"interrupted\n"


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


@pytest.mark.parametrize(("closed", "code"), [(">&-", 2), ("2>&-", 2), ("<&- >&- 2>&-", 2), ("", 2)])
def test_streams_that_are_closed_or_know_few_letters(folder: Path, closed: str, code: int) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    line = f'"{SCRIPT}" validate münze.json {closed}'
    done = subprocess.run(line, shell=True, capture_output=True, env=env, check=False)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    if not closed:
        assert b"m\\xfcnze.json" in done.stdout


def test_a_pipe_is_no_spec_file(slm: Any, folder: Path) -> None:
    os.mkfifo(folder / "pipe.json")
    done = slm("pipe.json", "toy", "dev")
    assert (done.exit_code, done.stderr) == (2, "error: pipe.json\n  is no ordinary file, must be a spec file\n")


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


@pytest.mark.parametrize(
    ("end", "code", "gpu", "torn_down"),
    [
        ("raise SystemExit(3)", 3, False, False),
        ("raise SystemExit(3)", 3, True, True),
        ("raise SystemExit('no')", 1, False, True),
        ("1 / 0", 1, False, True),
        ("", 0, False, True),
    ],
)
def test_the_end_of_a_process_that_has_loaded_torch(end: str, code: int, gpu: bool, torn_down: bool) -> None:
    """Exit code, output, and whoever wants to be told of the end are as of any process; torch is not taken apart."""
    torch = f"""
import atexit, sys
from types import SimpleNamespace as N
sys.modules['torch'] = N(cuda=N(is_initialized=lambda: {gpu}))
class Torch:
    def __del__(self, print=print):
        print('torn down')
kept = Torch()
atexit.register(print, 'told')
print('x' * 9999)
{end}"""
    run = f"import __main__; import slm_lab.cli.app as a; a.main = lambda: exec({torch!r}, vars(__main__))"
    script = f"{run}; from slm_lab.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    expected = "x" * 9999 + "\ntold\n" + "torn down\n" * torn_down
    assert (done.returncode, done.stdout) == (code, expected), done.stderr
