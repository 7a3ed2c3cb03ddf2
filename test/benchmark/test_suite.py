"""Suites: which sessions they ask for, what counts as done, what the tables say."""

import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import suite
import suite_curves
import suite_jobs
import suite_results
import suite_rows
import suite_table
import yaml
from suite_results import Result, Results, Session
from suite_rows import Row, Suite

from slm_lab import api
from slm_lab.experiment.records.statistics import Estimate
from slm_lab.experiment.session.session import Session as Training
from slm_lab.lib.errors import SpecError

ROW = {
    "env": "CartPole-v1",
    "algorithm": "REINFORCE",
    "spec_file": "reinforce/reinforce_cartpole.json",
    "spec_name": "reinforce_cartpole",
    "frames": 400,
    "set": {"env.num_envs": 2, "meta.log_frequency": 100, "meta.compile": "off"},
    "target": 5.0,
    "reference": 483.31,
}


def result(seed: int = 1000, score: float = 10.0, **changes: object) -> Result:
    fields = {"env": "CartPole-v1", "algorithm": "REINFORCE", "spec_name": "reinforce_cartpole", "frames": 400}
    numbers = {"final_return": 1.5, "evaluation": 2.5, "frames_to_target": None, "seconds": 3.0}
    words = dict.fromkeys(("torch", "gymnasium", "mujoco", "ale_py", "commit", "spec", "code"), "x")
    return Result(**{**fields, **numbers, **words, "seed": seed, "score": score, **changes})  # type: ignore[arg-type]


def write(folder: Path, **changes: object) -> Path:
    path = folder / "tiny.yaml"
    content = {"title": "Tiny", "source": "nobody", "seeds": 2, "episodes": 2, "rows": [ROW], **changes}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("name", Suite.names())
def test_rows_of_every_suite_can_be_run(name: str) -> None:
    for row in Suite.read(name).rows:
        spec = row.load()
        assert spec.env.max_frame == row.frames
        for net in (spec.agent.net.for_role("actor"), spec.agent.net.for_role("critic")):
            schedule = net.lr_scheduler_spec
            assert schedule is None or getattr(schedule, "frame", row.frames) <= row.frames, row.key


@pytest.mark.parametrize("key", ["max_frame", "env.max_frame"])
def test_a_try_can_be_shorter_than_its_row(key: str) -> None:
    row = next(row for row in Suite.read("mujoco").rows if "max_frame" in row.set)
    spec = row.load({key: "5000"})
    assert spec.env.max_frame == 5000
    assert spec.agent.net.lr_scheduler_spec.frame == 5000  # type: ignore[union-attr]


def test_no_seed_of_scoring_is_one_of_tuning() -> None:
    for name in Suite.names():
        plan = Suite.read(name)
        assert min(plan.seeds_of(row)[0] for row in plan.rows) >= suite_rows.FIRST_SCORING_SEED


def test_tables_are_those_of_the_results() -> None:
    suite.app(["table", "--check"], standalone_mode=False)


def test_a_score_outside_the_tables_of_suites_has_no_support() -> None:
    scores = suite_table.BENCHMARKS.read_text().split("\n## Scores")[1].split("\n## ")[0]
    for name in Suite.names():
        before, _, rest = scores.partition(f"<!-- suite {name} -->")
        scores = before + rest.partition(f"<!-- end {name} -->")[2]
    assert [line for line in scores.splitlines() if line.startswith("|")] == []


def test_every_result_is_of_a_row_and_of_a_seed_of_scoring() -> None:
    for name in Suite.names():
        plan = Suite.read(name)
        rows = {row.key: row for row in plan.rows}
        for r in Results(plan.csv).read():
            assert r.seed in plan.seeds_of(rows[r.key])
            assert r.spec_name == rows[r.key].spec_name


def test_verdict_against_the_original() -> None:
    row = Row(**ROW)  # type: ignore[arg-type]
    found = suite_table.summarize(row, [result(1000 + i, score) for i, score in enumerate((4.0, 6.0, 8.0, 10.0))])
    assert (found.seeds, found.score.value, found.iqm, found.worst, found.failing) == (4, 7.0, 7.0, 4.0, 1)
    assert 4.0 <= found.score.low < 7.0 < found.score.high <= 10.0
    # one seed in four fails: more than one in ten
    assert suite_table.solved(row, found) is False
    many = suite_table.summarize(row, [result(1000 + i, 4.0 if i == 0 else 10.0) for i in range(10)])
    assert suite_table.solved(row, many) is True
    assert suite_table.solved(row.model_copy(update={"target": None}), many) is None
    assert suite_table.mark(8.1, Estimate(7.0, 6.0, 8.0)) == "behind"


@pytest.mark.parametrize(
    ("scores", "words"),
    [([6.0], "open (one seed)"), ([4.0], "no (1 below 5)"), ([6.0, 7.0], "yes"), ([4.5, 9.0], "no (1 below 5)")],
)
def test_one_seed_does_not_decide_whether_a_row_is_solved(scores: list[float], words: str) -> None:
    row = Row(**ROW)  # type: ignore[arg-type]
    results = [result(1000 + i, score) for i, score in enumerate(scores)]
    assert f"| {words} |" in suite_table.row_text(row, results)
    assert "|  |" in suite_table.row_text(row.model_copy(update={"target": None}), results)


def test_a_row_without_results_says_so() -> None:
    row = Row(**ROW | {"skip": "takes a week"})  # type: ignore[arg-type]
    assert "takes a week" in suite_table.row_text(row, [])
    assert "| 483.3 (400) |" in suite_table.row_text(row, [])


def test_a_result_replaces_that_of_its_seed(tmp_path: Path) -> None:
    results = Results(tmp_path / "x.csv")
    first, second = result(1001, 1.0), result(1000, 2.0, frames_to_target=200)
    results.add(first)
    results.add(second)
    results.add(replace(first, score=3.25))
    assert results.read() == [second, replace(first, score=3.25)]
    (tmp_path / "x.csv").write_text("env,algorithm\na,b\n")
    with pytest.raises(SpecError, match="damaged"):
        results.read()


def test_a_session_is_done_while_spec_and_code_are_those_of_its_result() -> None:
    row = Row(**ROW)  # type: ignore[arg-type]
    spec, code = suite_results.fingerprints(row.load())
    session = Session(row, 1000, spec, code)
    assert session.state == "missing"
    assert replace(session, found=result(spec=spec, code=code)).state == "done"
    assert replace(session, found=result(spec=spec, code="other")).state == "changed"
    other = suite_results.fingerprints(row.load({"agent.algorithm.gamma": "0.9"}))
    assert other[0] != spec
    assert other[1] == code


def test_comments_and_docstrings_are_no_code(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    texts = ['"""One."""\ndef f(x):\n    """Two."""\n    return x + 1\n', "def f(x):\n    return x + 1  # three\n"]
    seen = []
    for text in [*texts, "def f(x):\n    return x + 2\n"]:
        path.write_text(text)
        seen.append(suite_results._stripped(path))
    assert seen[0] == seen[1] != seen[2]


def test_only_names_envs_and_algorithms() -> None:
    plan = Suite.read("classic")
    assert len(plan.only("CartPole-v1,ppo")) == 1
    assert {row.algorithm for row in plan.only("PPO")} == {"PPO"}
    with pytest.raises(SpecError, match="did you mean 'CartPole-v1'"):
        plan.only("CartPole-v0")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (None, "did you mean 'classic'"),
        ([ROW | {"frame": 1}], "rows.0.frame"),
        ([ROW, ROW], "rows stand twice"),
        ([ROW | {"spec_name": "reinforce_cartpol"}], "reinforce_cartpole"),
    ],
)
def test_wrong_input_is_one_message(
    rows: list[object] | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "clasic" if rows is None else str(write(tmp_path, rows=rows))
    with pytest.raises(SystemExit) as ended:
        suite.main(lambda: suite.app(["status", name], standalone_mode=False))
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_suite_is_run_once_and_again_where_it_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, rows=[ROW, ROW | {"env": "other", "skip": "not now"}])
    results = tmp_path / "tiny.csv"

    def call(*words: str | Path) -> str:
        suite.main(lambda: suite.app([str(w) for w in words], standalone_mode=False))
        return capsys.readouterr().out

    words = ("run", path, "--parallel", "2", "--out", tmp_path / "out")
    call(*words)
    found = Results(results).read()
    assert [(r.seed, r.frames) for r in found] == [(1000, 400), (1001, 400)]
    assert found[0].score != found[1].score
    assert found[0].torch
    assert "0 sessions to run" in call(*words)
    assert "not now" in call("status", path)
    write(tmp_path, seeds=1, rows=[ROW | {"set": ROW["set"] | {"agent.algorithm.gamma": 0.9}}])  # type: ignore[operator]
    assert "1 sessions to run" in call(*words)
    assert Results(results).read()[0].spec != found[0].spec


def test_a_killed_session_goes_on(tmp_path: Path) -> None:
    row = Row(**ROW)  # type: ignore[arg-type]
    job = suite_jobs.job(row, 1000, tmp_path, 2)
    job.folder.mkdir()
    (job.folder / "fingerprints").write_text(" ".join(job.prints))
    calls = 0

    class Killed(BaseException):
        pass

    log = Training._log

    def dies(self: Training) -> None:
        nonlocal calls
        log(self)
        self._save()
        calls += 1
        if calls == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_log", dies)
        with pytest.raises(Killed):
            api.run(row.load(), out=job.folder, seed=1000)
    (folder,) = [p for p in job.folder.iterdir() if p.is_dir()]
    found = suite_jobs.measure(job)
    assert [p for p in job.folder.iterdir() if p.is_dir()] == [folder]
    whole = suite_jobs.measure(suite_jobs.job(row, 1000, tmp_path / "whole", 2))
    assert {**found, "seconds": 0} == {**whole, "seconds": 0}
    # and the curve of the sessions that were scored is kept, if all of them are here
    plan = Suite(name="whole", title="", source="", seeds=2, episodes=2, rows=[row], folder=tmp_path)
    assert suite_curves.row_curve(row, plan, tmp_path) is None
    Results(plan.csv).add(result(1000, spec=job.prints[0]))
    kept = suite_curves.row_curve(row, plan, tmp_path)
    assert kept is not None
    assert (kept[0], kept[1].x[-1]) == (1, 400)
    suite_curves.write(tmp_path / "curves.csv", {row.key: kept})
    count, curve = suite_curves.read(tmp_path / "curves.csv")[row.key]
    assert count == 1
    np.testing.assert_allclose(curve, kept[1], rtol=1e-3)
    Results(plan.csv).add(result(1001, spec=job.prints[0]))
    assert suite_curves.row_curve(row, plan, tmp_path) is None


def test_a_terminated_suite_stops_its_sessions_with_a_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path, seeds=1, rows=[ROW | {"frames": 10_000_000}])
    words = [sys.executable, suite.__file__, "run", str(path), "--parallel", "1", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while not (tables := list(tmp_path.glob("out/**/*_df_train.csv"))) or len(tables[0].read_bytes().splitlines()) < 3:
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    written = tables[0].read_bytes()
    time.sleep(1)
    assert tables[0].read_bytes() == written
    assert list(tmp_path.glob("out/**/model/*"))


def test_a_row_of_another_package_names_it_and_refuses_other_versions() -> None:
    row = Row(**ROW | {"packages": ["pyyaml==0.1", "no-such-package==1.0"]})  # type: ignore[arg-type]
    assert row.command(1000).startswith("uv run --with pyyaml==0.1 --with no-such-package==1.0 slm-lab run ")
    with pytest.raises(SpecError) as caught:
        suite_jobs.job(row, 1000, Path(), 1)
    assert caught.value.faults == [
        f"packages: CartPole-v1 is measured with pyyaml==0.1 (installed: {suite_rows.installed('pyyaml')})",
        "packages: CartPole-v1 is measured with no-such-package==1.0 (installed: none)",
        "run it as: uv run --with pyyaml==0.1 --with no-such-package==1.0 benchmark/suite.py ...",
    ]


def test_the_command_of_a_row_passes_lists_through_a_shell() -> None:
    row = Row(**ROW | {"set": {"agent.algorithm.without": ["noisy"]}})  # type: ignore[arg-type]
    assert 'agent.algorithm.without=["noisy"]' in shlex.split(row.command(1000))


def test_columns_that_no_line_uses_are_left_out(tmp_path: Path) -> None:
    results = Results(tmp_path / "x.csv")
    results.add(result(1000))
    assert "packages" not in (tmp_path / "x.csv").read_text()
    measured = result(1001, packages="panda-gym 3.0.7", success=0.97)
    results.add(measured)
    assert results.read() == [result(1000), measured]


def test_a_row_may_be_scored_by_its_last_episodes() -> None:
    row = Row(**ROW | {"score": "final"})  # type: ignore[arg-type]
    assert suite_table.summarize(row, [result(1000, 1.0, final_return=7.0)]).score.value == 7.0


def test_a_row_may_be_scored_by_success() -> None:
    row = Row(**ROW | {"score": "success", "target": 0.9, "reference": None})  # type: ignore[arg-type]
    results = [result(1000, -3.0, success=0.97, packages="a 1"), result(1001, -4.0, success=1.0, packages="a 1")]
    found = suite_table.summarize(row, results)
    assert (found.score.value, found.worst, found.failing) == (0.985, 0.97, 0)
    assert "| [0.97, 1.00] | " in suite_table.row_text(row, results)
    assert "| 0.97 | yes |" in suite_table.row_text(row, results)
    assert suite_table.solved(row, found) is True


def test_success_is_what_the_last_step_of_an_episode_says() -> None:
    class Env:
        """Episodes of two steps; every second one succeeds, at its end."""

        def reset(self, seed: int) -> tuple[float, dict[str, bool]]:
            self.succeeds, self.t = seed % 2 == 0, 0
            return 0.0, {"is_success": False}

        def step(self, action: float) -> tuple[float, float, bool, bool, dict[str, bool]]:
            self.t += 1
            success = self.succeeds if self.t == 2 else not self.succeeds
            return 0.0, 0.0, False, self.t == 2, {"is_success": success}

        def close(self) -> None:
            pass

    class Policy:
        def make_env(self) -> Env:
            return Env()

        def reset(self) -> None:
            pass

        def act(self, obs: float) -> float:
            return obs

    assert suite_jobs.success_rate(Policy(), 4, 1000) == 0.5
    assert suite_jobs.success_rate(Policy(), 1, 1001) == 0.0


def test_sessions_side_by_side_have_cores_of_their_own() -> None:
    assert suite_jobs.shares([0, 1, 2, 3], 2) == [[0, 2], [1, 3]]
    assert suite_jobs.shares([4, 5], 1) == [[4, 5]]
    assert suite_jobs.shares([4, 5], 3) == [[4], [5], [4]]
    assert suite_jobs.shares([], 2) == [[], []]


@pytest.mark.parametrize("name", Suite.names())
def test_every_curve_is_one_of_the_sessions_that_were_scored(name: str) -> None:
    plan = Suite.read(name)
    results = Results(plan.csv).read()
    for key, (count, curve) in suite_curves.read(suite_curves.path_of(plan)).items():
        own = [r for r in results if r.key == key]
        assert count == len(own)
        assert curve.x[-1] == max(r.frames for r in own)
