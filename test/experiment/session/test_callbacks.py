"""A caller's functions, called while a run is at work."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from support.specs import TINY

from slm_lab import api
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.records.runs import RunFile
from slm_lab.experiment.session.callbacks import Callbacks, Episode, EpisodeFeed
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout


def spec(**meta: Any) -> dict[str, Any]:
    return {**TINY, "meta": {**TINY["meta"], **meta}}


@pytest.mark.parametrize("sessions", [1, 2])
def test_rows_and_episodes_come_to_the_caller(tmp_path: Path, sessions: int) -> None:
    rows: dict[int, list[Any]] = {}
    episodes: dict[int, list[Episode]] = {}
    counts: list[tuple[int, int]] = []
    places = set()

    def on_row(session: int, row: Any) -> None:
        rows.setdefault(session, []).append(row)
        counts.append((len(episodes.get(session, [])), row["epi"]))
        places.add((os.getpid(), threading.get_ident()))

    def on_episode(session: int, episode: Episode) -> None:
        episodes.setdefault(session, []).append(episode)

    done = api.run(
        spec(max_session=sessions), out=tmp_path, device="cpu", on_row=on_row, on_episode=on_episode, quiet=True
    )
    layout = Layout.open(done.folder)
    for session in range(sessions):
        assert rows[session] == read_rows(layout.session_df(0, session))
        assert [e.epi for e in episodes[session]] == list(range(1, len(episodes[session]) + 1))
        last = rows[session][-1]
        mean = sum(e.ret for e in episodes[session][-100:]) / len(episodes[session][-100:])
        assert last["total_reward"] == pytest.approx(mean)
        # CartPole gives a reward of 1 a step
        assert all(e.ret == e.length for e in episodes[session])
    # every episode that a row counts came before it
    assert all(seen == counted for seen, counted in counts)
    assert places == {(os.getpid(), threading.get_ident())}


@pytest.mark.parametrize("sessions", [1, 2])
def test_an_exception_stops_the_run_cleanly(tmp_path: Path, sessions: int) -> None:
    calls = []

    def on_row(session: int, row: Any) -> None:
        calls.append(row["frame"])
        raise ZeroDivisionError("mine")

    small = spec(max_session=sessions)
    small["env"] = {**small["env"], "max_frame": 100_000}
    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        api.run(small, out=tmp_path, device="cpu", on_row=on_row, quiet=True)
    [folder] = tmp_path.iterdir()
    layout = Layout.open(folder)
    assert len(calls) == 1
    assert RunFile.open(layout).status == "stopped"
    assert layout.checkpoint(0, 0).exists()
    assert not list((folder / "log").glob("*crash*"))
    again = api.resume(folder, should_stop=lambda: True, quiet=True)
    assert again.stopped


def test_should_stop(tmp_path: Path) -> None:
    rows: list[int] = []
    small = spec()
    small["env"] = {**small["env"], "max_frame": 100_000}
    done = api.run(
        small,
        out=tmp_path,
        device="cpu",
        on_row=lambda session, row: rows.append(row["frame"]),
        should_stop=lambda: len(rows) == 2,
        quiet=True,
    )
    assert done.stopped
    assert rows == [200, 400]


def test_quiet_prints_nothing_and_writes_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = api.run(spec(max_session=2), out=tmp_path, device="cpu", quiet=True)
    assert capfd.readouterr() == ("", "")
    assert "results:" in (done.folder / "log" / f"{done.folder.name[:4]}.log").read_text(encoding="utf-8")


def test_a_search_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="on_row, on_episode: a search has none"):
        api.run(TINY, mode="search", out=tmp_path, on_row=print)


def test_without_functions_nothing_is_asked() -> None:
    def other() -> bool:
        return False

    assert Callbacks().with_stop(other) is other


def test_should_stop_is_not_called_at_every_step() -> None:
    calls: list[int] = []
    stop = Callbacks(should_stop=lambda: calls.append(1)).with_stop(lambda: False)
    assert not any(stop() for _ in range(1000))
    assert len(calls) < 100


def test_episodes_are_sent_together() -> None:
    sent: list[list[Episode]] = []
    feed = EpisodeFeed(sent.append)
    feed.add(1, [5.0], [5])
    feed.add(3, [6.0, 7.0], [6, 8])
    feed.flush()
    assert [e for part in sent for e in part] == [(1, 5.0, 5), (2, 6.0, 6), (3, 7.0, 8)]
    assert len(sent) == 2
