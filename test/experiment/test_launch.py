import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from slm_lab.experiment import launch
from slm_lab.experiment.records.runs import RunFile, Status, locked
from slm_lab.experiment.session.run import Mode, Options, SessionResult, TrialResult
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.files import plain
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

Tiny = Callable[..., Spec]


def test_a_run_leaves_its_folder(tiny: Tiny, options: Options, log_text: list[str]) -> None:
    spec = tiny()
    done = launch.run_spec(spec, Mode.TRAIN, options)
    layout = Layout.open(done.folder)
    assert layout.root.parent == options.out
    assert layout.name == "tiny"
    assert load_spec(layout.spec()) == load_spec(layout.trial_spec(0)) == spec
    for path in (
        layout.session_df(0, 0),
        layout.session_metrics(0, 0),
        layout.session_scalar(0, 0),
        layout.trial_metrics(0),
        layout.trial_scalar(0),
        layout.trial_scalar(0, top=True),
        layout.graph("tiny_t0_s0_session_graph_train", "mean_returns"),
        layout.graph("tiny_t0_trial_graph", "mean_returns"),
        layout.graph("tiny_t0_trial_graph", "mean_returns", top=True),
        layout.checkpoint(0, 0),
        layout.best(0, 0),
        layout.weights(0, 0),
        layout.weights(0, 0, best=True),
        layout.log("tiny"),
        layout.log("tiny_t0_s0"),
    ):
        assert path.stat().st_size > 0, path
    # NaN is null in the file
    assert plain(done.metrics) == json.loads(layout.trial_scalar(0).read_text(encoding="utf-8"))
    head, *rows = log_text[-2].rstrip().split("\n")
    assert head == "INFO trial_metrics:"
    assert rows[0].split()[:2] == ["frame", "1,000"]
    assert len({len(row) for row in rows[:-1]}) == 1  # aligned
    assert log_text[-1].strip() == f"INFO results: {layout.root}"


def test_the_seed_of_a_run_is_that_of_its_resume(tiny: Tiny, options: Options) -> None:
    seeded = dataclasses.replace(options, seed=5)
    whole = launch.run_spec(tiny(), Mode.TRAIN, seeded)
    parts = launch.run_spec(tiny(), Mode.TRAIN, seeded)
    layout = Layout.open(parts.folder)
    # as if it had been killed before its first checkpoint
    shutil.rmtree(layout.root / "model")
    layout.make_folders()
    RunFile.open(layout).ended(Status.RUNNING)
    again = launch.resume(parts.folder, dataclasses.replace(options, seed=6))
    assert plain(again.metrics) == plain(whole.metrics) == plain(parts.metrics)


def test_a_resume_takes_over_what_it_is_told_to(tiny: Tiny, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    done = launch.run_spec(tiny(env__max_frame=200), Mode.TRAIN, options)
    seen: list[Options] = []
    trial = launch.Trial

    def look(spec: Spec, mode: Mode, layout: Layout, options: Options, **others: Any) -> Any:
        seen.append(options)
        return trial(spec, mode, layout, options, **others)

    monkeypatch.setattr(launch, "Trial", look)
    others = dataclasses.replace(options, device="cpu:0", log_metrics=True, keep=-1)
    for frames, given in (("400", ["log_metrics", "device", "seed"]), ("600", ["keep"])):
        launch.resume(done.folder, others, sets={"env.max_frame": frames}, given=given)
    assert [(o.device, o.log_metrics, o.keep) for o in seen] == [("cpu:0", True, 3), ("cpu", False, -1)]


def test_a_run_is_resumed_in_its_mode(tiny: Tiny, options: Options, log_text: list[str]) -> None:
    dev = launch.run_spec(tiny(env__max_frame=200), Mode.DEV, options).folder
    with pytest.raises(LabError, match=f"was started in mode dev, resume it with dev@{dev}$"):
        launch.resume(dev, options, mode=Mode.TRAIN)
    with pytest.raises(LabError, match="no training among the 1 run"):
        launch.resume("latest", options, mode=Mode.TRAIN)
    with pytest.raises(SpecError, match=r"meta\.max_session: a dev run has one session \(got 3\)"):
        launch.resume(dev, options, sets={"meta.max_session": "3"})
    assert launch.resume("latest", options, mode=Mode.DEV, sets={"env.max_frame": "400"}).metrics["frame"] == 400


def test_a_run_whose_models_were_deleted_begins_anew(tiny: Tiny, options: Options) -> None:
    done = launch.run_spec(tiny(), Mode.TRAIN, options)
    layout = Layout.open(done.folder)
    shutil.rmtree(layout.root / "model")
    RunFile.open(layout).ended(Status.RUNNING)
    again = launch.resume(done.folder, options)
    assert plain(again.metrics) == plain(done.metrics)
    assert layout.checkpoint(0, 0).exists()


def test_resuming_a_completed_run_says_so(tiny: Tiny, options: Options, log_text: list[str]) -> None:
    done = launch.run_spec(tiny(), Mode.TRAIN, options)
    files = {p: p.stat().st_mtime_ns for p in done.folder.rglob("*") if p.is_file()}
    again = launch.resume("latest", options)
    assert again.folder == done.folder
    assert again.metrics["total_reward_ma"] == done.metrics["total_reward_ma"]
    assert any("is completed" in line for line in log_text)
    assert {p: p.stat().st_mtime_ns for p in done.folder.rglob("*") if p.is_file()} == files


def test_a_resume_warns_of_another_version(tiny: Tiny, options: Options, log_text: list[str]) -> None:
    done = launch.run_spec(tiny(), Mode.TRAIN, options)
    layout = Layout.open(done.folder)
    content = json.loads(layout.run_file().read_text(encoding="utf-8"))
    content |= {"status": "stopped", "versions": {**content["versions"], "torch": "1.3.1"}}
    layout.run_file().write_text(json.dumps(content), encoding="utf-8")
    assert not launch.resume(done.folder, options).stopped
    assert sum("started with torch 1.3.1" in line for line in log_text) == 1


def test_a_run_that_another_process_works_on_is_not_resumed(
    tiny: Tiny, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "PATIENCE", 0.0)
    done = launch.run_spec(tiny(), Mode.TRAIN, options)
    layout = Layout.open(done.folder)
    text = layout.run_file().read_text(encoding="utf-8")
    layout.run_file().write_text(text.replace('"completed"', '"running"'), encoding="utf-8")
    with locked(layout), pytest.raises(LabError, match="another process"):
        launch.resume(done.folder, options)


def test_what_is_wrong_is_told_before_a_folder_is_made(tiny: Tiny, options: Options) -> None:
    with pytest.raises(SpecError, match="env"):
        launch.run_spec(tiny(env__name="CartPoll-v1"), Mode.TRAIN, options)
    with pytest.raises(LabError, match="mode 'enjoy'"):
        launch.run_spec(tiny(), Mode.ENJOY, options)
    with pytest.raises(LabError, match="log level"):
        launch.run_spec(tiny(), Mode.TRAIN, Options(out=options.out, log_level="LOUD"))
    assert not options.out.exists()


@pytest.mark.parametrize("sessions", [1, 2])
def test_what_only_building_tells_leaves_no_folder(tiny: Tiny, options: Options, sessions: int) -> None:
    spec = tiny(agent__algorithm__action_pdtype="Normal", meta__max_session=sessions)
    with pytest.raises(LabError, match=r"^tiny\n  agent\.algorithm\.action_pdtype: 'Normal' does not fit Discrete"):
        launch.run_spec(spec, Mode.TRAIN, options)
    assert not options.out.exists()


@pytest.mark.parametrize("place", [f"slm_lab.experiment.{p}.write_json" for p in ("launch", "records.runs")])
def test_a_disk_that_is_full_from_the_start_leaves_no_folder(
    tiny: Tiny, options: Options, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(place, full)
    with pytest.raises(LabError, match=f"^{options.out}: run folders can't be made there: No space left on device$"):
        launch.run_spec(tiny(), Mode.TRAIN, options)
    assert list(options.out.iterdir()) == []


def test_a_disk_that_becomes_full(
    tiny: Tiny, options: Options, log_text: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session crashes; that neither its crash nor the run's end can be written is told, and breaks nothing."""
    monkeypatch.setattr("slm_lab.experiment.session.checkpoint.save", full)
    monkeypatch.setattr("slm_lab.experiment.trial.contain.write_atomic", full)
    monkeypatch.setattr(RunFile, "ended", full)
    done = launch.run_spec(tiny(), Mode.TRAIN, options)
    [crash] = done.crashed
    assert crash.reason == "OSError: [Errno 28] No space left on device"
    told = [line for line in log_text if "can't be written: No space left on device" in line]
    assert ["crash.txt" in told[0], "run.json" in told[1]] == [True, True]
    assert Layout.open(done.folder).run_file().exists()


def full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_too_large_for_the_memory(tiny: Tiny, options: Options) -> None:
    with pytest.raises(
        LabError, match=r"not enough memory: [\d,.]+ GiB more would be needed; it grows with env.num_envs"
    ):
        # more than a machine could even promise
        launch.run_spec(tiny(agent__net__hid_layers=[10**15]), Mode.TRAIN, options)


def test_a_run_that_ended_while_its_lock_was_waited_for(
    tiny: Tiny, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = launch.run_spec(tiny(), Mode.TRAIN, options)
    layout = Layout.open(done.folder)
    RunFile.open(layout).ended(Status.RUNNING)

    @contextmanager
    def others_finish(where: Layout, patience: float) -> Iterator[list[int]]:
        RunFile.open(where).ended(Status.COMPLETED)
        yield []

    monkeypatch.setattr(launch, "locked", others_finish)
    before = layout.run_file().stat().st_mtime_ns
    assert launch.resume("latest", options).metrics["frame"] == done.metrics["frame"]
    assert RunFile.open(layout).content["resumed"] == []
    assert layout.run_file().stat().st_mtime_ns > before


def test_a_stop_says_what_is_saved(
    tiny: Tiny, options: Options, monkeypatch: pytest.MonkeyPatch, log_text: list[str]
) -> None:
    begun = [SessionResult(0, 1, 1200, [], {}, stopped=True)]
    monkeypatch.setattr(launch.Trial, "run", lambda trial: TrialResult(0, {}, begun, [], stopped=True))
    monkeypatch.setattr(launch, "worker_count", lambda *args: 0)
    done = launch.run_spec(tiny(meta__max_session=4), Mode.TRAIN, options)
    told = "WARNING stopped; saved: session 1 at frame 1,200; sessions 0, 2, 3 as before this start; to resume:"
    assert any(line.startswith(f"{told} slm-lab run train@{done.folder}") for line in log_text)


def test_graphs_that_fail_do_not_take_the_run_with_them(
    tiny: Tiny, options: Options, monkeypatch: pytest.MonkeyPatch, log_text: list[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> list[Path]:
        raise RuntimeError("no ink")

    monkeypatch.setattr("slm_lab.experiment.graphs.plot.Graphs.session", fail)
    done = launch.run_spec(tiny(), Mode.TRAIN, options)
    assert done.metrics
    assert any("could not be drawn" in line for line in log_text)


def test_notes_about_the_env_are_in_the_log_of_every_run(tiny: Callable[..., Spec], options: Options) -> None:
    gym.register("Pays-v0", "support.paying:Pays")
    try:
        spec = tiny(env__name="Pays-v0", env__vectorization="sync", env__max_frame=100)
        for _ in range(2):
            layout = Layout.open(launch.run_spec(spec, Mode.TRAIN, options).folder)
            text = layout.log(layout.name).read_text()
            assert text.count("observations of Pays-v0 are flattened to 8 numbers") == 1
    finally:
        gym.registry.pop("Pays-v0")
