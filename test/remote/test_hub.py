"""Requests that fail: what is done about it, and what is said."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.hub import StandInHub

from slm_lab.remote.hub import ConflictError, Hub, HubError

REPO = "tester/runs"
Connect = Callable[..., Hub]


def test_round_trip(hub: Hub, server: StandInHub, tmp_path: Path) -> None:
    big = bytes(range(256)) * 5000
    hub.commit({"data/a/small.json": b"{}", "data/a/big.pt": big}, "first", hub.head())
    head = hub.head()
    assert hub.folders("data", head) == ["a"]
    files = {f.path: f for f in hub.files("data/a", head)}
    assert {path: f.size for path, f in files.items()} == {"data/a/small.json": 2, "data/a/big.pt": len(big)}
    came: list[int] = []
    assert hub.download(files["data/a/big.pt"], head, tmp_path, came.append).read_bytes() == big
    assert sum(came) == len(big)
    assert hub.read("data/a/small.json", head) == "{}"
    assert hub.read("data/a/none.json", head) is None
    assert hub.files("data/none", head) == []


def test_listing_in_pages(hub: Hub, server: StandInHub) -> None:
    server.put(REPO, {f"data/a/{i}.json": b"{}" for i in range(50)})
    assert len(hub.files("data/a", hub.head())) == 50


def test_half_open_connection(connect: Connect, hub: Hub, server: StandInHub) -> None:
    server.fail("GET", "/datasets/tester/runs", "hang", times=9)
    before = time.monotonic()
    with pytest.raises(HubError, match=r"no answer within 0.5 s"):
        connect(timeout=0.5, patience=0.0).head()
    assert time.monotonic() - before < 60


@pytest.mark.parametrize("page", ["/tree/", "/datasets/tester/runs$"])
def test_half_open_then_answered(connect: Connect, hub: Hub, server: StandInHub, page: str) -> None:
    """In some calls the library asks for no limit: without one of ours they would wait for ever."""
    hurried = connect(timeout=1.0)
    server.fail("GET", page, "hang")
    assert hurried.folders("data", hurried.head()) == []
    assert all(fault.times == 0 for fault in server.faults)


def test_server_down(connect: Connect) -> None:
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 can't be reached"):
        connect(endpoint="http://127.0.0.1:9", patience=2.0).head()


def test_bad_token(connect: Connect, hub: Hub) -> None:
    with pytest.raises(HubError, match="refuses the token") as caught:
        connect(token="hf_wrong").ensure()
    assert "hf_wrong" not in str(caught.value)


def test_no_token(connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match=r"HF_TOKEN is not set.*settings/tokens"):
        connect(token=None).ensure()


def test_no_repository(connect: Connect) -> None:
    with pytest.raises(HubError, match="no dataset repository tester/none"):
        connect(repo="tester/none").head()


def test_not_allowed_to_write(hub: Hub, server: StandInHub) -> None:
    server.fail("POST", "/commit/", 403)
    with pytest.raises(HubError, match="needs write permission"):
        hub.commit({"a.json": b"1"}, "x", hub.head())


def test_somebody_else_was_first(hub: Hub, server: StandInHub) -> None:
    head = hub.head()
    server.put(REPO, {"b.json": b"2"})
    with pytest.raises(ConflictError):
        hub.commit({"a.json": b"1"}, "x", head)
    assert "a.json" not in server.repos[REPO].files


def test_what_is_logged_holds_no_secret(hub: Hub, server: StandInHub, log: list[str]) -> None:
    server.fail("PUT", "/lfs/", 500)
    hub.commit({"data/a/big.pt": b"123"}, "x", hub.head())
    told = "\n".join(log)
    assert "500" in told
    assert "signature" not in told
    assert server.token not in told


def test_file_that_is_not_what_was_announced(connect: Connect, hub: Hub, server: StandInHub, tmp_path: Path) -> None:
    server.put(REPO, {"data/a/x.pt": b"good"})
    head = hub.head()
    (file,) = hub.files("data/a", head)
    server.objects[file.digest] = b"evil"
    with pytest.raises(HubError, match="not what the hub announced"):
        connect(patience=0.0).download(file, head, tmp_path)


def test_the_token_of_a_login_is_hidden_too(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_of_a_login")
    assert connect(token=None).account.hide("refused: hf_of_a_login") == "refused: ***"
