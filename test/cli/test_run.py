"""`slm-lab run`: what is handed to the experiment, exit codes and messages. The experiment itself is replaced here."""

import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import Calls, run_dir

from slm_lab.cli import run
from slm_lab.experiment import launch
from slm_lab.experiment.session.run import Crash, Options, RunResult
from slm_lab.lib.errors import LabError


def test_a_resume_has_imported_all_before_it_catches_signals(
    slm: Any, folder: Path, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first signal only sets a flag, which nobody would read after the import."""
    run_dir(folder, "toy", "2026_01_31_120000", raw)
    seen = []

    def look(every: float) -> None:
        seen.append("slm_lab.experiment.launch" in sys.modules)
        raise LabError("no hub")

    monkeypatch.setattr("slm_lab.cli.upload.Upload", look)
    monkeypatch.setattr("slm_lab.experiment.launch", launch)
    monkeypatch.delitem(sys.modules, "slm_lab.experiment.launch")
    assert slm("train@latest", "--upload-hf").exit_code == 2
    assert seen == [True]


@pytest.mark.parametrize("words", [["toy.json", "toy", "dev"], ["run", "toy.json", "toy", "dev"]])
def test_with_and_without_the_word_run(slm: Any, spec_file: Path, calls: Calls, words: list[str]) -> None:
    done = slm(*words)
    assert (done.exit_code, done.stderr) == (0, "")
    [(what, spec, mode, options)] = calls
    assert (what, spec.name, mode, options) == ("run_spec", "toy", "dev", Options())
    assert done.stdout == f"{spec_file.parent / 'data' / 'run'}\n"


def test_run_alone_trains_ppo_on_cartpole(slm: Any, calls: Calls) -> None:
    assert slm("run").exit_code == 0
    [(_, spec, mode, _)] = calls
    assert (spec.name, spec.env.name, mode) == ("ppo_cartpole", "CartPole-v1", "train")


@pytest.mark.parametrize(
    "line",
    [
        "-s env=ALE/Pong-v5 -s max_frame=1e3 toy.json template dev",
        "run toy.json template dev -s env=ALE/Pong-v5 --set max_frame=1e3",
        "-s env=ALE/Pong-v5 run toy.json -s max_frame=1e3 template dev",
    ],
)
def test_sets_stand_anywhere(slm: Any, spec_file: Path, calls: Calls, line: str) -> None:
    assert slm(*line.split()).exit_code == 0
    [(_, spec, _, _)] = calls
    assert (spec.name, spec.env.name, spec.env.max_frame) == ("template_pong", "ALE/Pong-v5", 1000)


def test_options(slm: Any, spec_file: Path, calls: Calls) -> None:
    line = "toy.json toy train --seed 7 --render --device cuda:1 --cuda-offset 2 --log-level warning --log-metrics"
    assert slm(*line.split(), "--out", "elsewhere", KEEP_TRIALS="-1").exit_code == 0
    assert calls[0][3] == Options(
        out=Path("elsewhere"),
        seed=7,
        device="cuda:1",
        cuda_offset=2,
        render=True,
        log_level="WARNING",
        log_metrics=True,
        keep=-1,
    )


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("toy train --keep 3 --upload-every 5", ["--keep belongs to the mode search", "--upload-every goes with"]),
        ("toy dev --video x.gif --episodes 3", ["--video belongs to the mode enjoy", "--episodes belongs to"]),
    ],
)
def test_options_without_effect(slm: Any, spec_file: Path, calls: Calls, line: str, faults: list[str]) -> None:
    done = slm("toy.json", *line.split())
    assert done.exit_code == 2
    told = done.stderr.removeprefix("error: ").splitlines()
    assert [a.startswith(b) for a, b in zip(told, faults, strict=True)] == [True, True]
    assert calls == []


@pytest.mark.parametrize(
    ("env", "field", "value"),
    [
        ({"LOG_METRICS": "true"}, "log_metrics", True),
        ({"LOG_EXTRA": "true"}, "log_metrics", True),
        ({"LOG_METRICS": "false"}, "log_metrics", False),
        ({"LOG_LEVEL": "debug"}, "log_level", "DEBUG"),
        ({"RENDER": "true"}, "render", True),
        ({"CUDA_OFFSET": "3"}, "cuda_offset", 3),
        ({"KEEP_TRIALS": "5"}, "keep", 5),
    ],
)
def test_env_variables(slm: Any, spec_file: Path, calls: Calls, env: dict[str, str], field: str, value: Any) -> None:
    assert slm("toy.json", "toy", "dev", **env).exit_code == 0
    assert getattr(calls[0][3], field) == value


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (RunResult(Path("x"), {}, crashed=[Crash(0, "why")]), 1),
        (RunResult(Path("x"), {}, crashed=[Crash(0, "why", misuse=True)]), 2),
        (RunResult(Path("x"), {}, crashed=[Crash(0, "why", misuse=True), Crash(1, "bug")]), 1),
        (RunResult(Path("x"), {}, stopped=True), 130),
        (RunResult(Path("x"), {}, crashed=[Crash(0, "why")], stopped=True), 130),
    ],
)
def test_exit_codes(slm: Any, spec_file: Path, monkeypatch: pytest.MonkeyPatch, result: RunResult, code: int) -> None:
    monkeypatch.setattr(launch, "run_spec", lambda *args, **kwargs: result)
    assert slm("toy.json", "toy", "train").exit_code == code


def test_a_second_interrupt(slm: Any, spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "run_spec", interrupted)
    assert slm("toy.json", "toy", "train").exit_code == 130


def test_what_the_system_refuses_is_told(slm: Any, spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.json")

    monkeypatch.setattr(launch, "run_spec", full)
    done = slm("toy.json", "toy", "train")
    assert (done.exit_code, done.stderr) == (2, "error: x.json: No space left on device\n")


def test_a_data_folder_that_can_not_be(slm: Any, spec_file: Path) -> None:
    done = slm("toy.json", "toy", "train", "--out", "toy.json/data")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: toy.json/data: run folders can't be made there: Not a directory\n",
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is always a display")
def test_a_window_without_a_display(slm: Any, spec_file: Path, calls: Calls) -> None:
    nowhere = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "SDL_VIDEODRIVER": ""}
    line = ("toy.json", "toy", "train", "--render")
    assert slm(*line, **nowhere).stderr.startswith("note: --render: no display here")
    assert slm(*line, **nowhere | {"DISPLAY": ":0"}).stderr == ""


def test_other_exceptions_keep_their_traceback(slm: Any, spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(launch, "run_spec", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        slm("toy.json", "toy", "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("toy.jso toy dev", "error: toy.jso\n  no such spec file, did you mean 'toy.json'?\n"),
        ("toy.json toi dev", "error: toy.json\n  no spec 'toi', did you mean 'toy'? (in this file: toy, template)\n"),
        ("toy.json", "error: toy.json\n  which of the specs? toy, template\n"),
        (
            "toy.json toy trian",
            "error: unknown mode 'trian', did you mean 'train'? (known: dev, train, search, enjoy)\n",
        ),
        (
            "toy.json toy search",
            'error: toy\n  search: missing, such as "search": {"agent.algorithm.lr__loguniform": [1e-4, 1e-2]}\n',
        ),
        ("validat", "error: 'validat' is neither a command nor a spec file, did you mean 'validate'?\n"),
        ("frobnicate x", "error: 'frobnicate' is neither a command nor a spec file\n"),
        (
            "toy.json toy dev -s agent.algorithm.name=A2C",
            "error: toy.json: toy\n  agent.algorithm.name: unknown algorithm 'A2C', did you mean 'ActorCritic'?",
        ),
        (
            "ppo_cartpoll x",
            "error: 'ppo_cartpoll' is neither a command nor a spec file, did you mean 'ppo/ppo_cartpole.json'?\n",
        ),
        ("toy.json toy dev --video a.mp4", "error: --video belongs to the mode enjoy\n"),
        (
            "toy.json toy dev --device gpu",
            "error: --device: unknown 'gpu' (known: auto, cpu, cuda, cuda:0 ..., mps, xpu)\n",
        ),
        ("train@latst", "error: latst: no such run folder, neither here nor in data, did you mean 'latest'?\n"),
        (
            "toy.json toy dev -s agent.algorithm.action_policy=boltzman",
            "error: toy.json: toy\n  agent.algorithm.action_policy: must be 'default' (got 'boltzman')\n",
        ),
        ("train@nowhere", "error: nowhere: no such run folder, neither here nor in data\n"),
        ("toy.json toy dev --job toy.json", "error: --job says what to run: give either"),
        (
            "toy.json toy dev -s agent.algorithm.gama=0.9",
            "error: toy.json: toy\n  agent.algorithm.gama: unknown key, did you mean 'gamma'? (got 0.9)\n",
        ),
        (
            "toy.json toy dev -s env.name=CartPol-v1 -s env.num_envs=0",
            "error: toy.json: toy\n  env.num_envs: must be at least 1 (got 0)\n",
        ),
    ],
)
def test_user_errors(slm: Any, spec_file: Path, calls: Calls, line: str, message: str) -> None:
    done = slm(*line.split())
    assert done.exit_code == 2
    assert done.stderr.startswith(message)
    assert done.stdout == ""
    assert calls == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("toy.json toy dev -s x", "Invalid value for '-s' / '--set': 'x' is not of the form key=value"),
        (
            "toy.json toy dev --lr 3",
            "No such option: --lr; a key of the spec is set with -s, such as -s agent.algorithm.gamma=0.98",
        ),
        ("compare x --att 3", "No such option: --att (Possible option"),
        ("a b c d", "Got unexpected extra argument"),
        ("run --seed -1", "Invalid value for '--seed': must be at least 0 (got '-1')\n"),
        ("compare x --at abc", "Invalid value for '--at': must be a whole number (got 'abc')\n"),
        ("eval x --episodes 1.5", "Invalid value for '--episodes': must be a whole number (got '1.5')\n"),
        ("compare x --target abc", "Invalid value for '--target': must be a number (got 'abc')\n"),
        ("run --log-level loud", "Invalid value for '--log-level' (env var: 'LOG_LEVEL'): 'loud' is not one of "),
    ],
)
def test_usage_errors(slm: Any, spec_file: Path, calls: Calls, line: str, message: str) -> None:
    done = slm(*line.split())
    assert done.exit_code == 2
    assert f"Error: {message}" in done.stderr
    assert calls == []


def test_brackets_in_a_message_are_no_markup(slm: Any, folder: Path) -> None:
    (folder / "[red]x.json").write_text("[1")
    assert slm("[red]x.json").stderr.startswith("error: [red]x.json:1:3\n")


def test_plugins_in_the_working_folder(slm: Any, calls: Calls, folder: Path, raw: dict[str, Any]) -> None:
    (folder / "plugin_of_cli_test.py").write_text("loaded = True\n")
    spec = {**raw, "meta": {**raw["meta"], "plugins": ["plugin_of_cli_test"]}}
    (folder / "x.json").write_text(json.dumps({"x": spec}))
    assert slm("x.json").exit_code == 0
    assert calls[0][1].meta.plugins == ["plugin_of_cli_test"]


def test_what_is_imported_is_frozen_once_and_what_a_run_leaves_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(run.gc, "freeze", lambda: done.append("frozen"))
    monkeypatch.setattr(run, "find_local_plugins", lambda: None)
    monkeypatch.setattr(run, "_requests", lambda command: ([], []))
    monkeypatch.setattr(run, "_check_options", lambda command, requests: None)

    def task() -> int:
        done.append(f"run, collected: {run.gc.isenabled()}")
        return 0

    monkeypatch.setattr(run, "_prepare_all", lambda *args: [task, task])
    assert run.main(run.Command(words=[])) == 0
    assert done == ["frozen", "run, collected: True", "run, collected: True"]
