"""`slm-lab run --job`: several specs, one after the other. The experiment itself is replaced here."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import Calls

from slm_lab.experiment import launch
from slm_lab.experiment.session.run import Crash, RunResult
from slm_lab.lib.errors import LabError


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
