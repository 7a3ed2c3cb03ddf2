"""`slm-lab run`: what is handed to the experiment, exit codes and messages. The experiment itself is replaced here."""

import errno
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from slm_lab.cli import run
from slm_lab.experiment import launch
from slm_lab.experiment.session.run import Crash, Options, RunResult
from slm_lab.lib.errors import LabError

Calls = list[tuple[Any, ...]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Calls:
    """What of `experiment.launch` was called, with which arguments."""
    made: Calls = []
    result = RunResult(folder / "data" / "run", {})

    def note(name: str, answer: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            usual = {"folder": None, "beside": nullcontext, "mode": "train", "sets": {}}
            told = {k: v for k, v in kwargs.items() if k not in usual or v != usual[k]}
            if given := launch.TAKEN_OVER.intersection(told.pop("given", ())):
                told["given"] = given
            made.append((name, *args, told) if told else (name, *args))
            return answer

        return call

    monkeypatch.setattr(launch, "run_spec", note("run_spec", result))
    monkeypatch.setattr(launch, "resume", note("resume", result))
    monkeypatch.setattr(launch, "enjoy", note("enjoy", [1.5, 200.0]))
    return made


def run_dir(folder: Path, name: str, stamp: str, raw: dict[str, Any]) -> Path:
    path = folder / "data" / f"{name}_{stamp}"
    path.mkdir(parents=True)
    (path / f"{name}_spec.json").write_text(json.dumps({**raw, "name": name}))
    return path


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


class TestResume:
    def test_latest_of_any(self, slm: Any, calls: Calls) -> None:
        assert slm("train@latest").exit_code == 0
        assert slm("search@latest", "--ray-address", "auto").exit_code == 0
        assert calls == [
            ("resume", "latest", Options(), None),
            ("resume", "latest", Options(ray_address="auto"), None, {"mode": "search"}),
        ]

    def test_the_latest_search_where_there_is_none(self, slm: Any, folder: Path, raw: dict[str, Any]) -> None:
        for stamp in ("2026_01_01_000000", "2026_01_03_000000"):
            run_dir(folder, "toy", stamp, raw)
        done = slm("search@latest")
        assert done.exit_code == 2
        assert done.stderr == f"error: latest: no search among the 2 runs in {folder / 'data'}\n"

    def test_latest_of_a_spec(self, slm: Any, calls: Calls, spec_file: Path) -> None:
        slm("toy.json", "toy", "train@latest")
        slm("toy.json", "template", "train@latest", "-s", "env=ALE/Pong-v5")
        assert [call[3] for call in calls] == ["toy", "template_pong"]

    def test_a_folder(self, slm: Any, calls: Calls, folder: Path, raw: dict[str, Any]) -> None:
        path = run_dir(folder, "toy", "2026_01_01_000000", raw)
        slm("run", f"train@{path}")
        slm(f"dev@{path.name}")
        assert [call[1] for call in calls] == [str(path), Path("data") / path.name]
        assert calls[1][-1] == {"mode": "dev"}

    def test_options_that_count_are_passed_on(self, slm: Any, calls: Calls) -> None:
        assert slm("train@latest", "--device", "cpu", "--log-metrics", CUDA_OFFSET="2").exit_code == 0
        assert slm("search@latest", "--keep", "-1").exit_code == 0
        options = Options(device="cpu", log_metrics=True, cuda_offset=2)
        assert calls == [
            ("resume", "latest", options, None, {"given": {"device", "log_metrics", "cuda_offset"}}),
            ("resume", "latest", Options(keep=-1), None, {"mode": "search", "given": {"keep"}}),
        ]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("train@latest --profile", "error: --profile belongs to a new run: a resumed one is not profiled\n"),
            ("train@latest --ray-address auto", "error: --ray-address belongs to the mode search\n"),
            ("train@latest -s env=X-v1", "error: -s env: a run keeps its env (got 'X-v1'); name the spec, too, to "),
            ("enjoy@latest -s env=X-v1", "error: -s env: a run keeps its env (got 'X-v1'); name the spec, too, to "),
            ("toy.json toy train@latest -s env=X-v1", "error: toy.json: toy\n  -s env: this spec has no variables "),
            ("nix.json toy train@latest", "error: nix.json\n  no such spec file\n"),
            ("toy.json toi train@latest", "error: toy.json\n  no spec 'toi', did you mean 'toy'? (in this file: "),
        ],
    )
    def test_what_can_not_be_done_is_refused(
        self, slm: Any, calls: Calls, spec_file: Path, line: str, message: str
    ) -> None:
        done = slm(*line.split())
        assert (done.exit_code, calls) == (2, [])
        assert done.stderr.startswith(message)

    def test_a_variable_of_the_spec_is_the_key_of_the_run(self, slm: Any, calls: Calls, spec_file: Path) -> None:
        line = "toy.json template train@latest -s env=CartPole-v1 -s max_frame=800 -s agent.algorithm.gamma=0.5"
        assert slm(*line.split()).exit_code == 0
        sets = {"env.name": "CartPole-v1", "env.max_frame": "800", "agent.algorithm.gamma": "0.5"}
        assert [call[-1] for call in calls] == [{"sets": sets}]

    def test_a_named_folder_that_exists(self, slm: Any, calls: Calls, spec_file: Path, raw: dict[str, Any]) -> None:
        path = run_dir(spec_file.parent, "toy", "2026_01_01_000000", raw)
        path.joinpath("info").mkdir()
        path.joinpath("info", "toy_run.json").touch()
        words = ["toy.json", "toy", "train", "--folder", path.name]
        done = slm(*words, "-s", "env.max_frame=800", "--device", "cpu", "--seed", "5", "--from", path.name)
        assert done.exit_code == 0
        assert "note: a resumed run keeps its seed" in done.stderr
        assert "note: a resumed run keeps its weights" in done.stderr
        [(what, target, _, name, told)] = calls
        assert (what, target, name) == ("resume", Path("data") / path.name, "toy")
        assert told == {"sets": {"env.max_frame": "800"}, "given": {"device"}}
        assert slm(*words, "--profile").exit_code == 2

    def test_a_run_of_another_spec(self, slm: Any, spec_file: Path, raw: dict[str, Any]) -> None:
        path = run_dir(spec_file.parent, "other", "2026_01_01_000000", raw)
        for word in ("train", "enjoy"):
            done = slm("toy.json", "toy", f"{word}@{path}")
            assert (done.exit_code, done.stderr) == (2, f"error: {path}: is a run of 'other' (got 'toy')\n")

    def test_changes_of_the_spec_are_passed_on(self, slm: Any, calls: Calls) -> None:
        slm("train@latest", "-s", "agent.algorithm.gamma=0.5")
        assert calls == [("resume", "latest", Options(), None, {"sets": {"agent.algorithm.gamma": "0.5"}})]


class TestEnjoy:
    def test_latest_run_of_the_spec(
        self, slm: Any, calls: Calls, spec_file: Path, folder: Path, raw: dict[str, Any]
    ) -> None:
        """By the time in the folder's name; runs of other specs do not count."""
        for stamp in ("2026_01_01_000000", "2026_01_03_000000", "2026_01_02_000000"):
            run_dir(folder, "toy", stamp, raw)
        run_dir(folder, "toy_pong", "2026_01_04_000000", raw)
        done = slm("toy.json", "toy", "enjoy", "--episodes", "2", "--video", "a.mp4", "--seed", "4")
        assert (done.exit_code, done.stdout) == (0, "1.5 200\n")
        target = (folder / "data" / "toy_2026_01_03_000000").resolve()
        assert calls == [("enjoy", target, Options(seed=4), {"episodes": 2, "video": Path("a.mp4")})]

    def test_a_path(self, slm: Any, calls: Calls, spec_file: Path, folder: Path, raw: dict[str, Any]) -> None:
        path = run_dir(folder, "toy", "2026_01_01_000000", raw)
        slm(f"enjoy@{path}")
        slm("toy.json", "toy", f"enjoy@{path / 'toy_spec.json'}")
        assert [call[1] for call in calls] == [str(path), str(path / "toy_spec.json")]
        assert calls[0][3] == {"episodes": 10, "video": None}

    def test_no_run_yet(self, slm: Any, calls: Calls, spec_file: Path) -> None:
        done = slm("toy.json", "toy", "enjoy")
        assert done.exit_code == 2
        assert done.stderr.startswith("error: latest: no run in ")


class TestJob:
    def job(self, folder: Path, data: Any) -> str:
        (folder / "job.json").write_text(data if isinstance(data, str) else json.dumps(data))
        return "--job=job.json"

    def test_one_after_the_other(self, slm: Any, calls: Calls, spec_file: Path, folder: Path) -> None:
        mine, bundled = '{"toy": "dev", "template": "train@latest",}', '{"ppo_cartpole": "train"}'
        job = f'{{"toy.json": {mine}, "ppo/ppo_cartpole.json": {bundled},}}'
        assert slm("run", self.job(folder, job), "--seed", "3").exit_code == 0
        assert [call[0] for call in calls] == ["run_spec", "resume", "run_spec"]
        assert [call[1].name for call in calls[::2]] == ["toy", "ppo_cartpole"]
        assert all(call[-1].seed == 3 for call in calls[::2])

    def test_nothing_is_run_if_one_can_not(self, slm: Any, calls: Calls, spec_file: Path, folder: Path) -> None:
        done = slm(self.job(folder, {"toy.json": {"toy": "dev", "toi": "dev"}, "nix.json": {"x": "dev"}}))
        assert done.exit_code == 2
        assert calls == []
        assert done.stderr.splitlines() == [
            "error: job.json: nothing was run",
            "toy.json",
            "  no spec 'toi', did you mean 'toy'? (in this file: toy, template)",
            "nix.json",
            "  no such spec file",
        ]

    def test_one_failure_does_not_stop_the_others(
        self, slm: Any, spec_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, raw: dict[str, Any]
    ) -> None:
        (folder / "more.json").write_text(json.dumps({"a": raw, "b": raw, "c": raw}))
        seen = []

        def run_spec(spec: Any, mode: Any, options: Any, **kwargs: Any) -> RunResult:
            seen.append(spec.name)
            if spec.name == "a":
                raise LabError("disk full")
            return RunResult(Path("x"), {}, crashed=[Crash(0, "why")] if spec.name == "b" else [])

        monkeypatch.setattr(launch, "run_spec", run_spec)
        done = slm(self.job(folder, {"more.json": {"a": "train", "b": "train", "c": "train"}}))
        assert seen == ["a", "b", "c"]
        assert done.exit_code == 2
        assert done.stderr == "error: disk full\n"

    def test_a_stop_ends_the_job(
        self, slm: Any, spec_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, raw: dict[str, Any]
    ) -> None:
        (folder / "more.json").write_text(json.dumps({"a": raw, "b": raw}))
        seen = []

        def run_spec(spec: Any, mode: Any, options: Any, **kwargs: Any) -> RunResult:
            seen.append(spec.name)
            return RunResult(Path("x"), {}, stopped=True)

        monkeypatch.setattr(launch, "run_spec", run_spec)
        assert slm(self.job(folder, {"more.json": {"a": "train", "b": "train"}})).exit_code == 130
        assert seen == ["a"]

    @pytest.mark.parametrize(
        ("job", "message"),
        [
            ("[", "error: job.json:1:2\n"),
            ("[]", "error: job.json\n  must be an object: {spec_file: {spec_name: mode}}\n"),
            ('{"a.json": "dev"}', "error: job.json\n  a.json: must be an object: spec names and their modes\n"),
            (
                '{"a.json": {"x": "trian", "y": 3}}',
                "error: job.json\n  a.json.x: unknown mode 'trian', did you mean 'train'?",
            ),
        ],
    )
    def test_faults(self, slm: Any, calls: Calls, folder: Path, job: str, message: str) -> None:
        done = slm(self.job(folder, job))
        assert done.exit_code == 2
        assert done.stderr.startswith(message)

    def test_faults_of_form_and_specs_come_together(self, slm: Any, calls: Calls, spec_file: Path) -> None:
        done = slm(self.job(spec_file.parent, {"toy.json": {"toy": "trian", "toi": "dev"}, "b.json": 3}))
        assert done.exit_code == 2
        assert [part in done.stderr for part in ("'trian'", "b.json: must be", "no spec 'toi'")] == [True] * 3
        assert calls == []

    def test_no_such_file(self, slm: Any) -> None:
        assert slm("--job", "nix.json").stderr == "error: nix.json\n  can't be read: No such file or directory\n"


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
