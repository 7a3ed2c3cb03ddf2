"""A run goes on under a changed spec, longer than it was meant to be."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.launch import resume, run_spec
from slm_lab.experiment.records.runs import RunFile
from slm_lab.experiment.session.extend import can_change, changed_keys, extended, idle_rates
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.lib.errors import SpecError
from slm_lab.lib.layout import Layout
from slm_lab.spec.model import Spec

NewSpec = Callable[..., Spec]


def rows(layout: Layout) -> list[dict[str, Any]]:
    table = read_rows(layout.session_df(0, 0))
    return [{k: v for k, v in row.items() if k not in ("fps", "wall_t")} for row in table]


def test_an_extended_run_equals_one_that_was_as_long_from_the_start(
    tiny: NewSpec, options: Options, log_text: list[str]
) -> None:
    scheduled = tiny(agent__net__lr_scheduler_spec={"name": "LinearToZero", "frame": 1000}, env__max_frame=400)
    whole = run_spec(tiny(agent__net__lr_scheduler_spec={"name": "LinearToZero", "frame": 1000}), Mode.TRAIN, options)
    short = run_spec(scheduled, Mode.TRAIN, options)
    layout = Layout.open(short.folder)
    before = rows(layout)
    done = resume(short.folder, options, sets={"env.max_frame": "1000"})
    assert done.metrics["frame"] == 1000
    assert rows(layout)[: len(before)] == before
    assert rows(layout) == rows(Layout.open(whole.folder))
    a, b = (load_file(Layout.open(run.folder).weights(0, 0)) for run in (whole, done))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any("changed: env.max_frame 400 -> 1000; rows up to frame 400 are kept" in line for line in log_text)
    file = RunFile.open(layout)
    assert file.status == "completed"
    assert file.content["resumed"][-1]["changes"] == {"env.max_frame": [400, 1000]}
    assert json.loads(layout.spec().read_text())["env"]["max_frame"] == 1000


def test_learning_rate_and_sessions_can_change(tiny: NewSpec, options: Options) -> None:
    short = run_spec(tiny(env__max_frame=200), Mode.TRAIN, options)
    sets = {"env.max_frame": "400", "agent.net.optim_spec.lr": "0.0005", "meta.max_session": "2"}
    done = resume(short.folder, options, sets=sets)
    layout = Layout.open(done.folder)
    assert [row["lr"] for row in read_rows(layout.session_df(0, 0))] == pytest.approx([0.002, 0.0005])
    assert [row["lr"] for row in read_rows(layout.session_df(0, 1))] == pytest.approx([0.0005, 0.0005])


def test_what_can_not_change_is_told_at_once_and_nothing_is_touched(tiny: NewSpec, options: Options) -> None:
    run = run_spec(tiny(env__max_frame=200), Mode.TRAIN, options)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    sets = {"env.max_frame": "200", "agent.net.hid_layers": "[8]", "env.num_envs": "2"}
    with pytest.raises(SpecError) as caught:
        resume(run.folder, options, sets=sets)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["agent.net.hid_layers", "env.num_envs"]
    why = r"env.max_frame: must be greater than 200, the frame the run has reached \(got 100\)"
    with pytest.raises(SpecError, match=why):
        resume(run.folder, options, sets={"env.max_frame": "100"})
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    # nothing differs: nothing to do
    assert resume(run.folder, options, sets={"env.max_frame": "200"}).metrics["frame"] == 200


def test_fewer_sessions_are_refused(tiny: NewSpec, options: Options) -> None:
    layout = Layout.new(options.out, "tiny")
    with pytest.raises(SpecError, match=r"meta.max_session: must be at least 2"):
        extended(layout, tiny(meta__max_session=2), {"meta.max_session": "1"})


def test_a_changed_key_must_have_an_effect(tiny: NewSpec, options: Options) -> None:
    run = run_spec(tiny(env__max_frame=200), Mode.TRAIN, options)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(SpecError, match=r"agent\.net\.polyak_coef: has no effect: "):
        resume(run.folder, options, sets={"agent.net.polyak_coef": "0.5", "env.max_frame": "400"})
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_a_refused_extension_is_taken_back(tiny: NewSpec, options: Options) -> None:
    run = run_spec(tiny(env__max_frame=200), Mode.TRAIN, options)
    layout = Layout.open(run.folder)
    files = [layout.spec(), layout.trial_spec(0), layout.run_file()]
    before = [path.read_bytes() for path in files]
    layout.checkpoint(0, 0).write_bytes(b"damaged")
    with pytest.raises(Exception, match="no readable checkpoint"):
        resume(run.folder, options, sets={"env.max_frame": "400"})
    assert [path.read_bytes() for path in files] == before


def test_rates_that_have_fallen_to_zero(tiny: NewSpec) -> None:
    ended = tiny(agent__net__lr_scheduler_spec={"name": "LinearToZero", "frame": 500})
    assert idle_rates(ended, 400) == []
    assert idle_rates(ended, 500) == ["agent.net.lr_scheduler_spec"]
    assert idle_rates(tiny(), 1000) == []


@pytest.mark.parametrize(
    ("key", "can"),
    [
        ("agent.algorithm.entropy_coef_spec.end_step", True),
        ("agent.net.actor_lr_scheduler_spec.frame", True),
        ("agent.algorithm.name", False),
        ("agent.algorithm.training_frequency", False),
        ("agent.memory.max_size", False),
        ("meta.random_seed", False),
        ("env.name", False),
    ],
)
def test_which_keys(key: str, can: bool) -> None:
    assert can_change(key) is can


def test_keys_that_came_and_went() -> None:
    assert changed_keys({"a": 1, "b": {"c": 2}}, {"b": {}}) == {"a": (1, None), "b.c": (2, None)}
