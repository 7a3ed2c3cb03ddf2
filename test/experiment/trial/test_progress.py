import io
import time

import pytest
from rich.console import Console

from slm_lab.experiment.trial.progress import Progress


def row(frame: int, **values: float | None) -> dict:
    return {"frame": frame, "fps": 1000.0, "total_reward": 12.345, "total_reward_ma": None, **values}


def drawn(progress: Progress) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(progress.render())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_line_a_session() -> None:
    progress = Progress([0, 1], 100_000, live=False)
    progress.row(1, row(40_000))
    text = drawn(progress)
    assert "waiting" in text.splitlines()[1]
    # 60,000 frames at 1,000 a second
    assert text.splitlines()[2].split() == ["1", "40,000", "40", "1,000", "12.3", "-", "1:00"]
    progress.state(1, "crashed")
    assert drawn(progress).splitlines()[2].split()[-1] == "crashed"


def test_without_a_terminal_a_line_of_log_every_tenth(log_text: list[str]) -> None:
    progress = Progress([0, 1], 1000, live=True, console=Console(file=io.StringIO()))
    with progress:
        for frame in range(10, 1001, 10):
            progress.row(0, row(frame))
        progress.row(1, row(1000))
    lines = [line for line in log_text if "session 0" in line]
    assert len(lines) == 10
    assert "frame 100 (10%)" in lines[0]
    assert "frame 1,000 (100%)" in lines[-1]
    assert sum("session 1" in line for line in log_text) == 1


def test_a_long_run_logs_a_line_a_minute(log_text: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress([0], 1_000_000, live=False)
    for now in range(20, 601, 20):
        progress.row(0, row(now))
    assert [line.partition("frame ")[2].partition(" ")[0] for line in log_text] == [str(60 * i) for i in range(1, 11)]


def test_quiet_says_nothing(log_text: list[str]) -> None:
    with Progress([0], 1000, quiet=True) as progress:
        progress.row(0, row(1000))
    assert log_text == []


def test_a_terminal_gets_the_table_a_few_times_a_second(log_text: list[str]) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    with Progress([0], 1000, console=console) as progress:
        for frame in range(1, 1001):
            progress.row(0, row(frame))
        progress.state(0, "done")
    text = file.getvalue()
    assert "1,000" in text
    assert "done" in text
    # a thousand rows, but not a thousand drawings
    assert text.count("total_reward") < 20
    assert log_text == []
