"""Atomic writes: the old file or the new one, never a part."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json, write_atomic, write_json


def test_writes_bytes_and_text(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    write_atomic(path, memoryview(b"view"))
    assert path.read_bytes() == b"view"
    write_atomic(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_can_not_be_written_is_named(tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"No space left on device: .*a.json"):
        write_json(tmp_path / "a.json", {})


def test_the_content_is_on_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), sync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("replace"), replace(self, to))[1])
    write_atomic(tmp_path / "a", "x")
    assert calls[:2] == ["fsync", "replace"]


def test_a_new_file_may_be_read_as_any_other(tmp_path):
    write_atomic(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_json_keeps_the_order_and_has_no_nan(tmp_path):
    path = tmp_path / "a.json"
    write_json(
        path,
        {
            "z": math.nan,
            "a": [math.inf, 1.5, np.float32(0.5), np.float64("nan"), np.int64(3)],
            "m": np.array([1.0, math.nan]),
            "p": Path("x"),
            "t": (True, None, "ü"),
            7: {},
        },
    )
    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert found == {
        "z": None,
        "a": [None, 1.5, 0.5, None, 3],
        "m": [1.0, None],
        "p": "x",
        "t": [True, None, "ü"],
        "7": {},
    }
    assert list(found) == ["z", "a", "m", "p", "t", "7"]
    assert path.read_text(encoding="utf-8").startswith('{\n  "z": null,')


def test_json_refuses_what_it_can_not_say(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "can't be read: No such file or directory"),
        (b"{", "damaged, it holds no JSON"),
        (b"\xff", "damaged, it holds no JSON"),
        (b"[1]", "damaged, it must hold an object"),
    ],
)
def test_json_that_is_damaged(tmp_path, content, text):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=f"^{path}: {text}"):
        read_json(path)
    write_json(path, {"a": math.inf})
    assert read_json(path) == {"a": None}
