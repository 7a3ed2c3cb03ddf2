"""`slm-lab run` with a run that exists: resume it, extend it, play it. The experiment itself is replaced here."""

from pathlib import Path
from typing import Any

import pytest
from support.commands import Calls, run_dir

from slm_lab.experiment.session.run import Options


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
