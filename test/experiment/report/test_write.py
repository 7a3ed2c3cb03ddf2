"""What a page says, and what comes of what can't be read or written."""

import base64
import gzip
import json
import os
import re
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import make_run, make_search, write_session

from slm_lab.agent.sinks import read_table
from slm_lab.experiment.records.runs import locked
from slm_lab.experiment.report.write import report, watch
from slm_lab.experiment.search.importance import importances
from slm_lab.lib.errors import LabError
from slm_lab.spec.search import Axis

MEGABYTE = 1_000_000


def figures(page: Path) -> list[dict[str, Any]]:
    """The data inside a page."""
    packed = re.search(r'id="data">([^<]*)<', page.read_text())
    assert packed is not None
    found: list[dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return found


def numbers(values: dict[str, str]) -> list[float]:
    data = base64.b64decode(values["bdata"])
    return list(struct.unpack(f"<{len(data) // 8}d", data))


def test_values_are_those_of_the_table(tmp_path: Path) -> None:
    layout = make_run(tmp_path, sessions=[[None, 1 / 3, 2 / 3], [1.0, 2.0, 3.0]])
    page = report(layout.root, video=False)
    assert page == layout.root / "report.html"
    raw = figures(page)[0]["traces"][0]
    table = read_table(layout.session_df(0, 0))
    assert numbers(raw["xs"]["frame"]) == table["frame"].tolist()
    assert numbers(raw["xs"]["wall_t"]) == table["wall_t"].tolist()
    assert numbers(raw["y"])[1:] == [1 / 3, 2 / 3]


def test_page_needs_nothing_else(tmp_path: Path) -> None:
    text = report(make_run(tmp_path).root, video=False).read_text()
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text) == []
    assert "<script src" not in text


def test_long_runs_stay_small_and_quick(tmp_path: Path) -> None:
    """Rows of 10 M frames at a row every 1000; the bound leaves room for a busy machine."""
    rng = np.random.default_rng(0)
    layout = make_run(tmp_path, sessions=[[]] * 4)
    returns = rng.standard_normal(10_000).cumsum()
    returns[[4321, 8765]] = 1e4, -1e4
    for i in range(4):
        write_session(layout, 0, i, returns.tolist(), 1000)
    begun = time.process_time()
    page = report(layout.root, video=False)
    assert time.process_time() - begun < 20
    assert page.stat().st_size < 6 * MEGABYTE
    y = numbers(figures(page)[0]["traces"][0]["y"])
    assert len(y) <= 2000
    assert (max(y), min(y)) == (1e4, -1e4)


def test_what_differs_from_the_bundled_spec(tmp_path: Path) -> None:
    text = report(make_run(tmp_path, lr=0.125).root, video=False).read_text()
    assert "differ from the bundled ppo/ppo_cartpole.json" in text
    assert re.search(r"agent.algorithm.lr</td><td><code>0.125</code></td><td><code>not set", text)
    text = report(make_run(tmp_path, "mine").root, video=False).read_text()
    assert "No bundled spec is called &#x27;mine&#x27;" in text


def test_command_versions_and_commit(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    text = report(layout.root, video=False).read_text()
    assert f"slm-lab run {layout.spec()} ppo_cartpole train" in text
    for told in ("2.15", "0123abc", "2026-01-31T12:00:00"):
        assert told in text


def test_text_is_no_markup(tmp_path: Path) -> None:
    layout = make_run(tmp_path, note="<script>alert(1)</script>")
    assert "<script>alert(1)" not in report(layout.root, video=False).read_text()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    layout = make_run(tmp_path, sessions=[[1.0, 2.0], []], status="stopped")
    text = report(layout.root).read_text()
    assert "s1_session_df_train.csv has no row" in text
    assert "no video: the model folder holds no checkpoint" in text
    assert f"slm-lab eval {layout.root} --all-sessions" in text
    assert "The run has not ended" in text


def test_video_that_is_there(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    (layout.root / "graph" / "other.gif").write_bytes(b"GIF89a")
    assert "data:image/gif" not in report(layout.root).read_text()
    film = layout.root / "graph" / "ppo_cartpole_best_policy.gif"
    film.write_bytes(b"GIF89a")
    assert "data:image/gif;base64,R0lGODlh" in report(layout.root).read_text()
    film.with_suffix(".mp4").write_bytes(bytes(3 * MEGABYTE))
    assert 'src="graph/ppo_cartpole_best_policy.mp4"' in report(layout.root).read_text()
    # a better policy since then; one that can't be read is no traceback
    best = layout.best(0, 0)
    best.write_bytes(b"no checkpoint")
    for path in (film, film.with_suffix(".mp4")):
        os.utime(path, (1, 1))
    text = report(layout.root, evaluate=1).read_text()
    assert "data:image/gif" not in text
    assert "no video: " in text
    assert "no final evaluation: " in text


def test_what_the_env_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slm_lab.experiment.play import enjoy, measure

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no\nscreen")

    layout = make_run(tmp_path)
    layout.best(0, 0).touch()
    monkeypatch.setattr(enjoy, "enjoy", fail)
    monkeypatch.setattr(measure, "evaluate", fail)
    text = report(layout.root, evaluate=1).read_text()
    assert "no video: RuntimeError: no screen" in text
    assert "no final evaluation: RuntimeError: no screen" in text


def test_repeat_starts_from_where_the_run_did(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    info = json.loads(layout.run_file().read_text())
    info |= {"options": {"start_from": "data/old", "seed": 3}, "machine": [], "resumed": 1}
    layout.run_file().write_text(json.dumps(info))
    assert "train --seed 3 --from data/old" in report(layout.root, video=False).read_text()


def test_video_is_made_and_the_policy_evaluated(tmp_path: Path, finished_run: Path) -> None:
    import shutil

    folder = tmp_path / finished_run.name
    shutil.copytree(finished_run, folder)
    text = report(folder, evaluate=3).read_text()
    assert re.search(r"<td>0</td><td class=\"number\">[\d,]+</td><td class=\"number\">3</td>", text)
    assert "data:video/mp4;base64," in text
    assert list((folder / "graph").glob("*_best_policy.mp4"))


def test_search(tmp_path: Path) -> None:
    text = report(make_search(tmp_path).root, video=False).read_text()
    assert "session 0 of trial 4 crashed: ValueError: no luck" in text
    assert "The best trial is 7" in text


def test_search_without_importances(tmp_path: Path) -> None:
    text = report(make_search(tmp_path, trials=3).root, video=False).read_text()
    assert "No importances: 2 trials ran to their end, at least 4 are needed" in text


def test_importance_finds_the_key_that_matters() -> None:
    axes = [Axis("a", "loguniform", (1e-3, 1.0)), Axis("b", "uniform", (0, 1)), Axis("c", "choice", ([64], [64, 64]))]
    rng = np.random.default_rng(0)
    values = [
        {"a": 10 ** -rng.uniform(0, 3), "b": rng.random(), "c": [64] * int(rng.integers(1, 3))} for _ in range(60)
    ]
    found = importances(axes, values, [float(np.log10(v["a"])) for v in values])
    for shares in found.values():
        assert max(shares, key=lambda k: shares[k]) == "a"
        assert sum(shares.values()) == pytest.approx(1)
    with pytest.raises(LabError, match="same score"):
        importances(axes, values, [1.0] * 60)


def test_several_envs_are_never_on_one_axis(tmp_path: Path) -> None:
    a = make_run(tmp_path, "a", [[1.0], [2.0]])
    b = make_run(tmp_path, "b", [[1.0], [2.0]], env="Nobody-v0")
    page = report([a.root, b.root], tmp_path / "new" / "both.html")
    assert [f["title"].partition(":")[0] for f in figures(page)[:2]] == [
        "total_reward on CartPole-v1",
        "total_reward on Nobody-v0",
    ]


def test_faults_leave_nothing_behind(tmp_path: Path) -> None:
    run, empty = make_run(tmp_path), make_run(tmp_path, "sac", [[]])
    out = tmp_path / "out.html"
    with pytest.raises(LabError, match="no data yet"):
        report(empty.root, out)
    with pytest.raises(LabError, match="metric 'nix' is not known"):
        report([run.root, make_run(tmp_path, "a2c").root], out, metric="nix")
    assert not out.exists()
    with pytest.raises(LabError, match=r"out.pdf must be an .html file"):
        report(run.root, tmp_path / "out.pdf")
    with pytest.raises(LabError, match=r"can't be written: "):
        report(run.root, run.spec() / "out.html")
    with pytest.raises(LabError, match="no run given"):
        report([])
    report(run.root, out, video=False)
    before = out.read_bytes()
    with pytest.raises(LabError, match="no data yet"):
        report(empty.root, out)
    assert out.read_bytes() == before


def test_watch_renews_the_page_until_the_run_ends(tmp_path: Path) -> None:
    layout = make_run(tmp_path, sessions=[[1.0]], status="running")
    pages = []

    def on_first(path: Path) -> None:
        pages.append(path.read_text())
        info = json.loads(layout.run_file().read_text())
        layout.run_file().write_text(json.dumps({**info, "status": "completed"}))
        write_session(layout, 0, 0, [1.0, 99.0])

    info = json.loads(layout.run_file().read_text())
    options = {"out": "data"}
    layout.run_file().write_text(json.dumps({**info, "options": options}))
    with locked(layout):
        page = watch([layout], every=0.01, on_first=on_first, video=False)
    assert 'http-equiv="refresh"' in pages[0]
    assert 'http-equiv="refresh"' not in page.read_text()
    assert numbers(figures(page)[0]["traces"][0]["y"]) == [1.0, 99.0]
