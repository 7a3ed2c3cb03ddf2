"""Where rows go: exact tables, cut back for a resume."""

import io
import subprocess
import sys
from typing import ClassVar

import pytest
from loguru import logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slm_lab.agent.sinks import (
    CsvSink,
    LogSink,
    SafeSink,
    Sink,
    SinkRun,
    TensorBoardSink,
    TensorBoardSpec,
    read_rows,
)
from slm_lab.lib.errors import LabError

ROWS = [
    {"total_reward": None, "loss": 1 / 3, "frame": 100, "epi": 0},
    {"total_reward": 5e-324, "loss": 1e22, "frame": 2**53 + 1, "epi": 3},
    {"total_reward": -0.0, "loss": float("inf"), "frame": 2**53 + 3, "epi": 4},
]


def write(path, rows=ROWS):
    sink = CsvSink(path)
    for row in rows:
        sink(row)
    return sink


def test_rows_come_back_as_they_were(tmp_path):
    write(tmp_path / "df.csv")
    assert repr(read_rows(tmp_path / "df.csv")) == repr(ROWS)


def test_plain_text_table(tmp_path):
    write(tmp_path / "df.csv", ROWS[:1])
    assert (tmp_path / "df.csv").read_text() == "total_reward,loss,frame,epi\n,0.3333333333333333,100,0\n"


def test_one_header_across_processes(tmp_path):
    write(tmp_path / "df.csv", ROWS[:1])
    write(tmp_path / "df.csv", ROWS[1:])
    assert (tmp_path / "df.csv").read_text().count("total_reward") == 1
    assert repr(read_rows(tmp_path / "df.csv")) == repr(ROWS)


def test_columns_are_those_of_the_header(tmp_path):
    write(tmp_path / "df.csv", ROWS[:1])
    CsvSink(tmp_path / "df.csv")({"frame": 7, "new": 1.0, "loss": 2.0})
    assert read_rows(tmp_path / "df.csv")[1] == {"total_reward": None, "loss": 2.0, "frame": 7, "epi": None}


@pytest.mark.parametrize("tail", ["", "1.5,2.0,900,", "1.5,2.0,900,5", "1.5,2", "1.5,2\n"])
def test_truncate_drops_later_rows_and_a_half_written_line(tmp_path, tail):
    path = tmp_path / "df.csv"
    sink = write(path, [{**ROWS[0], "frame": f} for f in (100, 200, 300)])
    whole = path.read_text()
    with path.open("a") as file:
        file.write(tail)
    kept = sink.truncate_after(200)
    assert [row["frame"] for row in kept] == [100, 200]
    sink({**ROWS[0], "frame": 300})
    assert path.read_text() == whole


@pytest.mark.parametrize("content", [b"frame,loss\n1,0.5\n2,\xff\xfe\n", b"\x89PNG,b\n\x00\x01,2\n", b"frame\nwhat\n"])
def test_a_damaged_table_is_told(tmp_path, content):
    path = tmp_path / "df.csv"
    path.write_bytes(content)
    with pytest.raises(LabError, match=r"df.csv: damaged, it must hold a table of numbers"):
        CsvSink(path).truncate_after(1)


def test_a_new_sink_truncates_too(tmp_path):
    path = tmp_path / "df.csv"
    write(path, [{**ROWS[0], "frame": f} for f in (100, 200)])
    sink = CsvSink(path)
    assert len(sink.truncate_after(100)) == 1
    sink({**ROWS[0], "frame": 200})
    assert [row["frame"] for row in read_rows(path)] == [100, 200]


@pytest.mark.parametrize("content", [None, "", "total_rew", "total_reward,loss,frame,epi\n"])
def test_truncate_before_the_first_whole_row(tmp_path, content):
    path = tmp_path / "df.csv"
    if content is not None:
        path.write_text(content)
    sink = CsvSink(path)
    assert sink.truncate_after(500) == []
    sink(ROWS[0])
    assert read_rows(path) == ROWS[:1]


def test_truncate_to_the_start_empties(tmp_path):
    sink = write(tmp_path / "df.csv")
    assert sink.truncate_after(-1) == []
    assert read_rows(tmp_path / "df.csv") == []


def test_console_line():
    text = io.StringIO()
    handler = logger.add(text, level="INFO", format="{message}")
    try:
        sink = LogSink("t0 s1", max_frame=200)
        sink(
            {"total_reward": 21.456, "total_reward_ma": 20.0, "loss": 0.12345, "fps": 3021.4, "frame": 100, "lr": 3e-4}
        )
        LogSink()({"total_reward": None, "frame": 100})
    finally:
        logger.remove(handler)
    assert text.getvalue().splitlines() == [
        "t0 s1 frame 100 (50%)  fps 3021  total_reward 21.46  ma 20.00  loss 0.1235  lr 0.0003",
        "frame 100",
    ]


def about(folder):
    return SinkRun("tiny_2026_01_31_120000", 0, 1, "tiny_t0_s1", {}, folder)


def test_the_label_of_a_session(tmp_path):
    assert about(tmp_path).label == "tiny_2026_01_31_120000_t0_s1"


class Breaks(Sink):
    """Takes one row."""

    got: ClassVar[list] = []

    def __call__(self, row):
        if len(self.got) == 1:
            raise ConnectionError("gone\naway")
        self.got.append(row)


class Refuses(Sink):
    """Can't be made."""

    def __init__(self, spec, run):
        raise ConnectionError("no server")

    def __call__(self, row):
        raise AssertionError


def test_a_sink_that_fails_is_told_once_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("slm_lab.agent.sinks.lookup", lambda kind, name: {"breaks": Breaks, "refuses": Refuses}[name])
    lines = []
    handler = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        sink = SafeSink(TensorBoardSpec(name="breaks"), about(tmp_path))
        for row in ROWS:
            sink(row)
        sink.close()
    finally:
        logger.remove(handler)
    assert Breaks.got == ROWS[:1]
    assert [line.strip() for line in lines] == [
        "meta.sinks: breaks failed and gets no more rows: ConnectionError: gone away"
    ]
    with pytest.raises(LabError, match=r"^meta.sinks: refuses: ConnectionError: no server$"):
        SafeSink(TensorBoardSpec(name="refuses"), about(tmp_path))


def test_tensorboard_events(tmp_path):
    sink = TensorBoardSink(TensorBoardSpec(name="tensorboard"), about(tmp_path))
    for row in ({"total_reward": None, "loss": 0.5, "frame": 100}, {"total_reward": 2.0, "loss": 0.25, "frame": 200}):
        sink(row)
    sink.close()
    events = EventAccumulator(str(tmp_path / "events_tiny_t0_s1"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(100, 0.5), (200, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("total_reward")] == [(200, 2.0)]


def test_importing_the_sinks_loads_no_tensorboard():
    code = "import sys, slm_lab.agent.sinks; print([m for m in ('torch', 'tensorboard') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
