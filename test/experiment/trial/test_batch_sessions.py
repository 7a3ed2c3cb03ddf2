"""Sessions computed together in one process: as separate ones but for rounding, and exact after a resumption."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from slm_lab import api
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.session.resources import take_device
from slm_lab.experiment.session.run import Mode, Options, Run
from slm_lab.experiment.trial.build import build
from slm_lab.experiment.trial.contain import run_together
from slm_lab.experiment.trial.trial import Trial, batch_of, worker_count
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.spec.model import Spec

pytestmark = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")
Tiny = Callable[..., Spec]
BATCH = {"meta__batch_sessions": True, "meta__max_session": 3, "meta__compile": "on", "meta__checkpoint_interval": 0}
TIMES = ("wall_t", "fps")
OFF_POLICY = {
    "agent__algorithm": {
        "name": "DQN",
        "gamma": 0.99,
        "explore_var_spec": {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 500},
        "training_frequency": 8,
        "training_start_step": 64,
    },
    "agent__memory": {"name": "Replay", "batch_size": 8, "max_size": 1000},
    "agent__net": {"type": "MLPNet", "hid_layers": [8], "optim_spec": {"name": "Adam", "lr": 0.01}},
}
KINDS: dict[str, dict[str, Any]] = {"on_policy": {}, "off_policy": OFF_POLICY}


@pytest.fixture(params=KINDS)
def spec(request: pytest.FixtureRequest, tiny: Tiny) -> Spec:
    data = tiny(**BATCH).to_dict()
    for key, value in KINDS[request.param].items():
        data["agent"][key.rpartition("__")[2]] = value
    return Spec.model_validate(data)


def run(spec: Spec, out: Path, stop: Callable[[], bool] = lambda: False, rows: list[int] | None = None) -> Layout:
    """In this process, together or one after the other."""
    layout, options = Layout(out, spec.name), Options(out=out, device="cpu", progress=False)
    layout.make_folders()
    batch = batch_of(spec, Mode.TRAIN, "cpu")
    runs = [Run(spec, Mode.TRAIN, layout, session=i, options=options, batch=batch) for i in range(3)]

    def report(session: int, event: dict[str, Any]) -> None:
        if rows is not None and event["kind"] == "row":
            rows.append(session)

    for together in [runs] if batch > 1 else [[one] for one in runs]:
        run_together(together, report=report, stop=stop, forward=False)
    return layout


def tables(layout: Layout) -> list[dict[str, Any]]:
    """Each session's columns, and its weights."""
    found = []
    for session in range(3):
        rows = read_rows(layout.session_df(0, session))
        columns: dict[str, Any] = {k: [r[k] for r in rows] for k in rows[0] if k not in TIMES}
        found.append(columns | load_file(layout.weights(0, session)))
    return found


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(x, b[k]) if isinstance(x, torch.Tensor) else x == b[k] for k, x in a.items())


def test_as_separate_sessions_and_exact_after_a_resumption(spec: Spec, tmp_path: Path, log_text: list[str]) -> None:
    separate = spec.model_copy(update={"meta": spec.meta.model_copy(update={"batch_sessions": False})})
    apart, whole = (tables(run(s, tmp_path / str(i))) for i, s in enumerate((separate, spec)))
    assert len({str(found["total_reward"]) for found in whole}) == 3
    assert not any("one after the other" in line for line in log_text)
    for a, b in zip(apart, whole, strict=True):
        assert a["frame"] == b["frame"]
        np.testing.assert_allclose(a["total_reward"], b["total_reward"])
        for key in (key for key, x in a.items() if isinstance(x, torch.Tensor)):
            torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4)
    rows: list[int] = []
    layout = run(spec, tmp_path / "2", lambda: len(rows) > 5, rows)
    assert len(rows) < 15
    # a session that lost its checkpoint begins again; the others wait for it
    for file in layout.root.glob("**/*_s1*"):
        file.unlink()
    for a, b in zip(whole, tables(run(spec, layout.root)), strict=True):
        assert same(a, b)


def test_one_process_logs_and_crashes_session_by_session(tiny: Tiny, tmp_path: Path) -> None:
    spec = tiny(**BATCH)
    done = api.run(spec, out=tmp_path, quiet=True)
    assert not done.crashed
    whole, layout = tables(Layout.open(done.folder)), Layout.new(tmp_path, "tiny")
    layout.make_folders()

    def listen(session: int, row: object) -> None:
        if session == 1 and row is not None:
            raise ValueError("of session 1")

    # in this process, as the trials of a search
    options = Options(out=tmp_path, device="cpu", progress=False)
    trial = Trial(spec, Mode.SEARCH, layout, options, listen=listen, stop=lambda: False).run()
    assert [crash.session for crash in trial.crashed] == [1]
    assert "of session 1" in layout.crash(0, 1).read_text(encoding="utf-8")
    for session in (0, 2):
        rows = read_rows(layout.session_df(0, session))
        assert [row["total_reward"] for row in rows] == whole[session]["total_reward"]
    logs = [layout.log(layout.s(0, session)).read_text(encoding="utf-8") for session in range(3)]
    assert ["session 1" in text for text in logs] == [False, True, False]


def test_how_many_are_computed_together(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny(**BATCH)
    auto, off = tiny(**BATCH | {"meta__batch_sessions": "auto"}), tiny(**BATCH | {"meta__batch_sessions": False})
    assert [batch_of(s, Mode.TRAIN, "cpu") for s in (spec, auto, off)] == [3, 1, 1]
    assert batch_of(spec, Mode.DEV, "cpu") == 1
    assert worker_count(spec, Mode.TRAIN, "cpu") == 1
    # on GPUs a batch each
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    on_gpu = [batch_of(s, Mode.TRAIN, device) for s in (spec, auto) for device in ("cuda", "cuda:1", "cpu")]
    assert on_gpu == [2, 3, 3, 2, 3, 1]
    runs = [
        Run(spec, Mode.TRAIN, Layout(Path(), "x"), session=i, options=Options(device="cuda"), batch=2) for i in range(3)
    ]
    assert list(map(take_device, runs)) == ["cuda:0", "cuda:0", "cuda:1"]
    assert take_device(dataclasses.replace(runs[1], batch=1)) == "cuda:1"


def test_what_can_t_be_computed_together(tiny: Tiny) -> None:
    [fault] = build(tiny(**BATCH, env__vectorization="sync")).faults
    assert fault == "meta.batch_sessions: needs env.vectorization 'tensor' here (got 'sync')"
    assert batch_of(tiny(**BATCH | {"meta__batch_sessions": "auto"}, env__vectorization="sync"), Mode.TRAIN, "cpu") == 1
    hopper = tiny(**BATCH).to_dict()
    hopper["env"]["name"] = "Hopper-v5"
    [fault] = build(Spec.model_validate(hopper)).faults
    assert fault.startswith("meta.batch_sessions: there is no tensor env for Hopper-v5 (there is for: Acrobot-v1, Cart")
    distributed = tiny().to_dict()
    distributed["meta"] |= {"batch_sessions": True, "distributed": "synced"}
    with pytest.raises(LabError, match=r"batch_sessions: must be false where meta\.distributed is set"):
        api.load_spec(distributed)
