"""What is pushed, and what is not."""

import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest
from support.hub import Entry, Repo, StandInHub

from slm_lab.experiment.records.history import RunLine
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_json
from slm_lab.lib.layout import Layout
from slm_lab.remote import catalog
from slm_lab.remote.card import repo_card, run_readme
from slm_lab.remote.hub import Hub, HubError
from slm_lab.remote.names import is_run_file
from slm_lab.remote.push import push, uploads
from slm_lab.remote.snapshot import snapshot, travelling

REPO = "tester/runs"


def pushed(server: StandInHub, run: Layout) -> dict[str, bytes]:
    """Files of the run on the hub, by path in its folder."""
    prefix = f"data/{run.root.name}/"
    return {p.removeprefix(prefix): e.data for p, e in server.repos[REPO].files.items() if p.startswith(prefix)}


def test_all_of_a_run_in_one_commit(hub: Hub, server: StandInHub, run: Layout) -> None:
    address = push(hub, run)
    assert address == f"{server.url}/datasets/{REPO}/tree/main/data/{run.root.name}"
    assert len(server.repos[REPO].commits) == 2
    files = pushed(server, run)
    page = files.pop("README.md").decode()
    assert set(files) == set(travelling(run.root))
    assert all((run.root / path).read_bytes() == data for path, data in files.items())
    assert not any(path.name.startswith(".") for path in run.root.iterdir())
    kinds = {Path(path).suffix for path in files}
    assert {".json", ".csv", ".png", ".pt", ".safetensors", ".log"} <= kinds
    scalars = json.loads(run.trial_scalar(0).read_text())
    assert f"| total_reward_ma | {scalars['total_reward_ma']:.2f} |" in page
    (curve,) = [p for p in files if "/" not in p and p.endswith("mean_returns_ma_vs_frames.png")]
    assert f"]({curve})" in page
    assert f"slm-lab run data/{run.root.name}/tiny_spec.json tiny train" in page
    card = server.repos[REPO].files["README.md"].data.decode()
    assert card.startswith("---\n")
    assert f"[{run.root.name}](data/{run.root.name}/README.md) | CartPole-v1 | ActorCritic |" in card


def test_the_best_trial_of_a_search_is_on_the_page_and_in_the_list(hub: Hub, server: StandInHub, run: Layout) -> None:
    for top in (False, True):
        write_json(run.trial_scalar(1, top=top), {"total_reward_ma": 85.25, "frame": 400})
    rows = {t: {"trial": t, "strength": s, "status": "completed"} for t, s in ((0, 3.0), (1, 9.0))}
    write_json(run.trial_data(), rows)
    push(hub, run)
    assert "| total_reward_ma | 85.25 |" in pushed(server, run)["README.md"].decode()
    [line] = catalog.read(hub, hub.head()).values()
    assert (line.total_reward_ma, line.frames) == (85.25, 400)
    # also where the list has lost it
    server.put(REPO, {catalog.FILE: b""})
    [line] = catalog.read(hub, hub.head()).values()
    assert (line.total_reward_ma, line.frames) == (85.25, 400)


def test_everything_a_run_makes_travels(run: Layout) -> None:
    """A kind of file that names.py does not know would silently stay behind."""
    made = [p.relative_to(run.root).as_posix() for p in run.root.rglob("*") if p.is_file()]
    assert [path for path in made if not is_run_file(path)] == ["info/tiny_run.lock"]


def test_again_nothing_is_sent(hub: Hub, server: StandInHub, run: Layout) -> None:
    push(hub, run)
    before = len(server.repos[REPO].commits)
    uploads = server.count("PUT", "/lfs/")
    push(hub, run)
    assert len(server.repos[REPO].commits) == before
    assert server.count("PUT", "/lfs/") == uploads


def test_killed_and_repeated_sends_only_what_is_missing(hub: Hub, server: StandInHub, run: Layout) -> None:
    big = [p for p in travelling(run.root) if p.endswith((".pt", ".safetensors", ".png"))]
    server.fail("POST", "/commit/", 403)  # all large files are there, then it ends
    with pytest.raises(HubError):
        push(hub, run)
    assert pushed(server, run) == {}
    sent = server.count("PUT", "/lfs/")
    assert sent >= len({(run.root / p).read_bytes() for p in big}) > 3
    push(hub, run)
    assert server.count("PUT", "/lfs/") == sent
    assert set(big) <= set(pushed(server, run))


def test_symbolic_links_and_hidden_files_stay(hub: Hub, server: StandInHub, run: Layout, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (run.root / "info" / "link.json").symlink_to(secret)
    (run.root / "linked").symlink_to(tmp_path, target_is_directory=True)
    (run.root / ".env").write_text("HF_TOKEN=x")
    (run.root / "plugin.py").write_text("")
    push(hub, run)
    assert not {"info/link.json", ".env", "plugin.py"} & set(pushed(server, run))
    assert not any(path.startswith("linked") for path in pushed(server, run))


def test_token_is_in_no_file(hub: Hub, server: StandInHub, run: Layout) -> None:
    push(hub, run)
    token = server.token.encode()
    assert not any(token in p.read_bytes() for p in run.root.rglob("*") if p.is_file())
    assert not any(token in entry.data for entry in server.repos[REPO].files.values())


def test_two_pushes_at_once_lose_no_line(hub: Hub, server: StandInHub, run: Layout) -> None:
    other = "other_2026_01_31_120000"

    def meddle(repo: Repo) -> None:
        line = catalog.dump({other: RunLine(other, "other", total_reward_ma=1.5)})
        files = {f"data/{other}/other_spec.json": Entry(b"{}", False), catalog.FILE: Entry(line.encode(), False)}
        repo.commit("somebody else's", {**repo.files, **files})

    server.before_commit = meddle
    push(hub, run)
    known = catalog.read(hub, hub.head())
    assert set(known) == {other, run.root.name}
    assert known[other].total_reward_ma == 1.5


def test_what_somebody_wrote_on_the_card_stays(hub: Hub, server: StandInHub, run: Layout) -> None:
    push(hub, run)
    card = server.repos[REPO].files["README.md"].data.decode()
    server.put(REPO, {"README.md": card.replace("# Runs of slm-lab", "# My runs").encode() + b"\nmy words\n"})
    (run.root / "info" / "more.json").write_text("{}")
    push(hub, run)
    card = server.repos[REPO].files["README.md"].data.decode()
    assert "# My runs" in card
    assert card.endswith("my words\n")
    server.put(REPO, {"README.md": b"all mine"})
    (run.root / "info" / "still_more.json").write_text("{}")
    push(hub, run)
    assert server.repos[REPO].files["README.md"].data == b"all mine"


def test_name_that_is_no_runs(hub: Hub, run: Layout) -> None:
    with pytest.raises(LabError, match="not the name of a run folder"):
        push(hub, Layout(run.root.parent, "x"))


def test_snapshot_keeps_what_was(run: Layout) -> None:
    checkpoint, table = run.checkpoint(0, 0), run.session_df(0, 0)
    before = checkpoint.read_bytes(), table.read_bytes()
    with snapshot(run.root) as files:
        newer = checkpoint.with_name("new")
        newer.write_bytes(b"new")
        newer.replace(checkpoint)
        with table.open("ab") as file:
            file.write(b"more")
        held = [files[p.relative_to(run.root).as_posix()].read_bytes() for p in (checkpoint, table)]
        assert held == list(before)
        assert next(iter(files)).endswith("_ckpt.pt")
    assert not list(run.root.glob(".push-*"))


def test_checkpoint_before_it_only_where_there_is_none(run: Layout) -> None:
    checkpoint = run.checkpoint(0, 0)
    spare = checkpoint.with_name(checkpoint.name + ".prev")
    spare.write_bytes(b"old")
    name = spare.relative_to(run.root).as_posix()
    assert name not in travelling(run.root)
    checkpoint.unlink()
    assert name in travelling(run.root)


def test_leftovers_of_killed_pushes_go(run: Layout) -> None:
    left = run.root / ".push-4194000"  # no process has it
    left.mkdir()
    (run.root / ".push-1").mkdir()  # somebody has it
    with snapshot(run.root):
        pass
    assert not left.exists()
    assert (run.root / ".push-1").exists()


def test_uploads_beside_work_survive_a_failure(log: list[str]) -> None:
    done = threading.Event()
    calls: list[int] = []

    def upload() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise LabError("the hub is away")
        done.set()

    with uploads(upload, every=0.01):
        assert done.wait(20)
    count = len(calls)
    time.sleep(0.1)
    assert len(calls) == count
    assert any("not uploaded, will be tried again: the hub is away" in line for line in log)


def test_a_card_whose_marks_are_in_the_wrong_order_is_somebodys() -> None:
    """Nothing that stands below the table's place is lost."""
    card = repo_card(None, [])
    assert card is not None
    begin, end = [line for line in card.splitlines() if line.startswith("<!--")]
    assert repo_card(f"{begin} old {end} below", []) == f"{card[card.index(begin) :].rstrip()} below"
    assert repo_card(f"{end} {begin} below", []) is None


def test_a_file_system_without_links(run: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*args: object, **options: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    with snapshot(run.root) as files:
        assert files.keys() == {*travelling(run.root)}


def test_the_page_says_where_the_run_started_from(run: Layout) -> None:
    entry = RunLine(run.root.name, "tiny")
    info = {"options": {"start_from": "/far/away_best.pt", "seed": 3}}
    page = run_readme(entry, None, {}, info, ["tiny_spec.json", "model/tiny_origin.pt"], REPO)
    folder = f"data/{run.root.name}"
    assert f"{folder}/tiny_spec.json tiny train --seed 3 --from {folder}/model/tiny_origin.pt    #" in page
    assert "train --seed 3 --from /far/away_best.pt    #" in run_readme(entry, None, {}, info, ["tiny_spec.json"], REPO)
