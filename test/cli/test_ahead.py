"""Which runs have their sessions' processes started before torch is imported."""

from pathlib import Path
from typing import Any

import pytest

from slm_lab.cli import ahead
from slm_lab.experiment.records.runs import RunFile, Status
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.lib.files import write_json
from slm_lab.lib.layout import Layout


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(ahead.nursery, "start_ahead", lambda: found.append("nursery"))
    monkeypatch.setattr(ahead.compiler, "start_ahead", lambda about: found.append("compiler"))
    return found


def spec(sessions: int, frames: int = 1000, net: str = "MLPNet") -> dict[str, Any]:
    return {"meta": {"max_session": sessions}, "env": {"max_frame": frames}, "agent": {"net": {"type": net}}}


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (spec(4), "train", ["nursery"]),
        (spec(1), "train", []),
        (spec(4), "dev", []),
        (spec(4), "search", []),
        (spec(4, 10**6, "ConvNet"), "train", ["nursery", "compiler"]),
        ({"meta": 3}, "train", []),
    ],
)
def test_a_new_run(tmp_path: Path, started: list[str], content: Any, mode: str, expected: list[str]) -> None:
    write_json(tmp_path / "x.json", {"x": content})
    ahead.start_ahead(str(tmp_path / "x.json"), "x", {}, Options(), mode)
    assert started == expected


def test_sets_count(tmp_path: Path, started: list[str]) -> None:
    write_json(tmp_path / "x.json", {"x": spec(4)})
    ahead.start_ahead(str(tmp_path / "x.json"), None, {"meta.max_session": "1"}, Options(), "train")
    assert started == []


@pytest.mark.parametrize(
    ("mode", "sessions", "status", "changed", "expected"),
    [
        (Mode.TRAIN, 2, Status.STOPPED, False, ["nursery"]),
        (Mode.TRAIN, 2, Status.COMPLETED, False, []),
        (Mode.TRAIN, 2, Status.COMPLETED, True, ["nursery"]),
        (Mode.TRAIN, 1, Status.STOPPED, False, []),
        (Mode.DEV, 2, Status.STOPPED, False, []),
        (Mode.SEARCH, 2, Status.STOPPED, False, []),
    ],
)
def test_a_run_that_goes_on(
    tmp_path: Path,
    started: list[str],
    mode: Mode,
    sessions: int,
    status: Status,
    changed: bool,
    expected: list[str],
) -> None:
    layout = Layout.new(tmp_path, "toy")
    layout.make_folders()
    for path in (layout.spec(), layout.trial_spec(0)):
        write_json(path, spec(sessions))
    RunFile.create(layout, mode, Options(out=tmp_path)).ended(status)
    ahead.start_sessions_ahead(layout.root, tmp_path, None, changed=changed)
    assert started == expected


@pytest.mark.parametrize("content", ["", "[]", '{"meta": 1}', '{"meta": {"max_session": "two"}}'])
def test_a_run_that_cannot_be_read_is_left_to_the_resume(tmp_path: Path, started: list[str], content: str) -> None:
    layout = Layout.new(tmp_path, "toy")
    layout.make_folders()
    write_json(layout.spec(), spec(2))
    layout.trial_spec(0).write_text(content)
    RunFile.create(layout, Mode.TRAIN, Options(out=tmp_path)).ended(Status.STOPPED)
    ahead.start_sessions_ahead(layout.root, tmp_path, None, changed=False)
    ahead.start_sessions_ahead(tmp_path / "none", tmp_path, None, changed=False)
    ahead.start_sessions_ahead("latest", tmp_path / "none", None, changed=False)
    assert started == []
