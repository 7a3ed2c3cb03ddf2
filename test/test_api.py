"""The library, used from a folder that has nothing to do with this one."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import make_run

from slm_lab import api
from slm_lab.lib.errors import LabError

SPEC = {
    "name": "mine",
    "agent": {
        "name": "A2C",
        "algorithm": {"name": "ActorCritic", "lam": 0.95, "training_frequency": 16},
        "memory": {"name": "OnPolicyBatchReplay"},
        "net": {"type": "MLPNet", "hid_layers": [16]},
    },
    "env": {"name": "CartPole-v1", "num_envs": 2, "max_frame": 600},
    "meta": {"log_frequency": 200, "compile": "off"},
}

# on purpose without `if __name__ == "__main__"`
SCRIPT = f"""
import sys
from pathlib import Path
from typing import Any
import numpy as np
from slm_lab import api

spec = api.load_spec({SPEC!r}, sets={{"meta.max_session": "2"}})
done = api.run(spec, out="results", seed=3, device="cpu")
assert not done.crashed and not done.stopped
assert done.folder.parent == Path.cwd() / "results", done.folder
assert done.metrics["frame"] == 600
policy = api.load_agent(done.folder)
obs = np.zeros((5, 4), np.float32)
assert policy.act(obs).shape == (5,)
print("played", policy.evaluate(episodes=2))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> api.RunResult:
    return api.run(SPEC, out=tmp_path_factory.mktemp("out"), device="cpu")


@pytest.mark.ci
def test_a_script_elsewhere_runs_sessions_in_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    # a module of the user's that is called like one of the standard library must not reach the workers' start
    (tmp_path / "signal_processing.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    path = os.pathsep.join(p for p in sys.path if p)
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("played [")
    assert {p.name for p in tmp_path.iterdir()} == {"script.py", "signal_processing.py", "results"}


def test_one_observation_or_many(done: api.RunResult) -> None:
    policy = api.load_agent(done.folder)
    obs = np.random.default_rng(0).normal(size=(50, 4))
    many = policy.act(obs)
    assert many.shape == (50,)
    assert many.dtype == np.int64
    assert [int(policy.act(o)) for o in obs] == many.tolist()
    assert policy.act(obs[0].tolist()).shape == ()
    assert len({tuple(policy.act(obs, explore=True).tolist()) for _ in range(5)}) > 1
    with pytest.raises(ValueError, match=r"shape \(3,\), must be \(4,\)"):
        policy.act(np.zeros(3))
    with pytest.raises(ValueError, match=r"act takes an observation \(got a pair with a dict, as `reset` gives them"):
        policy.act((np.zeros(4), {}))


def test_what_is_given_back_stays(done: api.RunResult) -> None:
    policy = api.load_agent(done.folder)
    rng = np.random.default_rng(0)
    first = policy.act(rng.normal(size=(50, 4)))
    kept = first.copy()
    for _ in range(5):
        policy.act(rng.normal(size=(50, 4)))
    assert first.tolist() == kept.tolist()


def test_evaluate(done: api.RunResult) -> None:
    returns = api.evaluate(done.folder, episodes=3)
    assert len(returns) == 3
    assert returns == api.load_agent(done.folder).evaluate(3)
    assert returns != api.evaluate(done.folder, episodes=3, seed=1)


def test_a_spec_from_a_file_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.chdir(tmp_path)
    Path("specs.json").write_text(json.dumps({"a": SPEC, "b": SPEC}), encoding="utf-8")
    done = api.run("specs.json", "b", out="results", device="cpu", sets={"env.max_frame": 100, "meta.max_session": "1"})
    assert done.folder.name.startswith("b_")
    assert done.metrics["frame"] == 100


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"sets": ["env.max_frame=100"]}, r'sets: must be a dict, such as {"env.max_frame": 4000} \(got \[.*\]\)'),
        ({"mode": "trian"}, r"unknown mode 'trian', did you mean 'train'\? \(known: dev, train, search\)"),
        ({"mode": "enjoy"}, r"unknown mode 'enjoy'"),
    ],
)
def test_wrong_arguments(arguments: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=told):
        api.run(SPEC, out=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_loaded_spec_takes_sets_and_keeps_its_name(tmp_path: Path) -> None:
    spec = api.load_spec(SPEC)
    with pytest.raises(LabError, match=r"name: the spec is called 'mine' \(got 'other'\)"):
        api.run(spec, "other", out=tmp_path)
    done = api.run(spec, "mine", out=tmp_path, device="cpu", sets={"env.max_frame": np.int64(100)})
    assert done.metrics["frame"] == 100
    assert spec.env.max_frame == 600


def test_a_seed_decides(tmp_path: Path, done: api.RunResult) -> None:
    runs = [api.run(SPEC, out=tmp_path, device="cpu", seed=seed) for seed in (0, 1)]
    # 0 is what a run without a seed has
    assert runs[0].metrics["total_reward_ma"] == done.metrics["total_reward_ma"]
    assert runs[1].metrics["total_reward_ma"] != done.metrics["total_reward_ma"]


def test_resuming_a_completed_run_gives_its_metrics(done: api.RunResult) -> None:
    again = api.resume(done.folder)
    assert again.metrics["total_reward_ma"] == done.metrics["total_reward_ma"]
    for result in (done, again):
        # what scripts from before call it is found, and not shown
        assert result.metrics["final_return"] == result.metrics["final_total_reward"]
        assert "final_return" not in result.metrics


def test_ctrl_c_ends_a_loop_over_runs_and_resume_goes_on(tmp_path: Path) -> None:
    # whoever runs the tests in the background may have it ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            api.run(SPEC, out=tmp_path, device="cpu", on_row=lambda *_: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    [folder] = tmp_path.iterdir()
    assert api.resume(folder, device="cpu").metrics["frame"] == 600


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not a run folder"):
        api.load_agent(tmp_path)
    with pytest.raises(LabError, match="no run in"):
        api.resume(out=tmp_path)


def test_quiet_is_quiet_about_the_spec_too(tmp_path: Path) -> None:
    # a note of the load says what the old id means now
    spec = {**SPEC, "env": {**SPEC["env"], "name": "CartPole-v0"}}
    (tmp_path / "script.py").write_text(
        f"from slm_lab import api\nprint(api.run({spec!r}, out='out', device='cpu', quiet=True).stopped)\n"
    )
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    assert (ended.stdout, ended.stderr) == ("False\n", "")


def test_export(done: api.RunResult, tmp_path: Path) -> None:
    written = api.export(done.folder, tmp_path / "policy.pt2")
    assert written.path == tmp_path / "policy.pt2"
    assert written.inputs == ["obs [N, 4] float32"]
    assert written.path.exists()
    with pytest.raises(LabError, match="unknown kind of file"):
        api.export("latest", tmp_path / "policy.tflite", out=done.folder.parent)


def test_compare(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, name, [[ret], [ret + 10]]) for name, ret in (("a", 1.0), ("b", 21.0))]
    found = api.compare([runs[0].root, runs[1].root])
    assert [m.mean.value for m in found.methods] == [6, 26]
    assert found.improvement["b", "a"].value == 1
    assert api.compare(["latest"], out=tmp_path, labels=["last"]).labels == ["last"]


def test_report(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert api.report(run.root, video=False) == run.root / "report.html"
    both = api.report([run.root, "latest"], tmp_path / "both.html", out=tmp_path, labels=["a", "b"])
    assert "<h1>a / b</h1>" in both.read_text()
    assert api.plot([run.root, "latest"], tmp_path / "both.svg", out=tmp_path, labels=["a", "b"]).exists()
