import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import make_run
from typer.testing import Result

Slm = Callable[..., Result]


def test_report(slm: Slm, folder: Path) -> None:
    run = make_run(folder / "data", "ppo")
    done = slm("report", "ppo_*", "--no-video")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(run.root / "report.html")
    make_run(folder / "data", "dqn")
    done = slm("report", "*", "-o", "all.html", "--legends", "mine,yours")
    assert done.stdout.strip() == "all.html"
    assert "<h1>mine / yours</h1>" in Path("all.html").read_text()


def test_open(slm: Slm, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(folder / "data", "ppo")
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert slm("report", "*", "--no-video", "--open", "-o", "a.html").exit_code == 0
    assert opened == [(folder / "a.html").resolve().as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    done = slm("report", "*", "--no-video", "--open", "-o", "a.html")
    assert done.exit_code == 2
    assert "no browser was found" in done.stderr
    assert Path("a.html").exists()


def test_faults(slm: Slm, folder: Path) -> None:
    make_run(folder / "data", "ppo", [[]])
    for words, told in ((["nobody"], "nobody: no such run folder"), (["*"], "no data yet")):
        done = slm("report", *words)
        assert done.exit_code == 2
        assert told in done.stderr
        assert "Traceback" not in done.output
