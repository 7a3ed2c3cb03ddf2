"""What is pulled, and what is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.hub import StandInHub

from slm_lab.experiment.records.history import RunLine
from slm_lab.experiment.records.runs import locked
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.remote import catalog
from slm_lab.remote.hub import Hub, HubError
from slm_lab.remote.pull import MARK, pull
from slm_lab.remote.push import push
from slm_lab.remote.snapshot import travelling

REPO = "tester/runs"


@pytest.fixture
def there(hub: Hub, run: Layout) -> Layout:
    """A run that is on the hub, and here."""
    push(hub, run)
    return run


def content(root: Path) -> dict[str, bytes]:
    return {path: (root / path).read_bytes() for path in travelling(root) if path != "README.md"}


def test_round_trip(hub: Hub, there: Layout, tmp_path: Path, watcher: Any) -> None:
    root = pull(hub, there.root.name, tmp_path / "new" / "data", watcher)
    assert content(root) == content(there.root)
    (task,) = watcher.tasks
    assert task.completed == task.total > 0
    assert Layout.open(root).name == "tiny"
    assert not list(root.parent.glob(".pull-*"))
    pull(hub, there.root.name, tmp_path / "new" / "data", watcher)
    assert watcher.tasks[-1].description.endswith(": complete")


def test_partial_pull_is_repaired(hub: Hub, there: Layout, server: StandInHub, tmp_path: Path, watcher: Any) -> None:
    out = tmp_path / "new"
    root = pull(hub, there.root.name, out, watcher)
    layout = Layout.open(root)
    layout.checkpoint(0, 0).unlink()
    layout.session_df(0, 0).write_bytes(b"cut")
    pull(hub, there.root.name, out, watcher)
    assert watcher.tasks[-1].description.endswith(": 2 files")
    assert content(root) == content(there.root)


def test_interrupted_pull_is_no_run_and_goes_on(
    hub: Hub, there: Layout, server: StandInHub, tmp_path: Path, watcher: Any
) -> None:
    server.fail("GET", "tiny_t0_trial_metrics_scalar", 403)
    out = tmp_path / "new"
    with pytest.raises(HubError):
        pull(hub, there.root.name, out, watcher)
    root = out / there.root.name
    assert not list(root.glob("*_spec.json"))
    pull(hub, there.root.name, out, watcher)
    assert content(root) == content(there.root)


def test_newer_on_the_hub_replaces_older_here(hub: Hub, there: Layout, tmp_path: Path, watcher: Any) -> None:
    root = pull(hub, there.root.name, tmp_path / "new", watcher)
    there.checkpoint(0, 0).write_bytes(b"a later checkpoint")
    run_file = json.loads(there.run_file().read_text())
    there.run_file().write_text(json.dumps({**run_file, "status": "stopped"}))
    push(hub, there)
    pull(hub, there.root.name, tmp_path / "new", watcher)
    assert content(root) == content(there.root)


def test_what_was_made_here_is_not_overwritten(hub: Hub, there: Layout, watcher: Any) -> None:
    there.checkpoint(0, 0).write_bytes(b"mine, and newer")
    with pytest.raises(LabError, match=r"1 files differ from the hub's .*--force"):
        pull(hub, there.root.name, there.root.parent, watcher)
    assert there.checkpoint(0, 0).read_bytes() == b"mine, and newer"
    pull(hub, there.root.name, there.root.parent, watcher, force=True)
    assert there.checkpoint(0, 0).read_bytes() != b"mine, and newer"


def test_pulled_and_gone_on_with_is_not_overwritten(hub: Hub, there: Layout, tmp_path: Path, watcher: Any) -> None:
    root = pull(hub, there.root.name, tmp_path / "new", watcher)
    layout = Layout.open(root)
    run_file = json.loads(layout.run_file().read_text())
    layout.run_file().write_text(json.dumps({**run_file, "resumed": [1]}))
    layout.checkpoint(0, 0).write_bytes(b"gone on with")
    with pytest.raises(LabError, match="gone on with here"):
        pull(hub, there.root.name, tmp_path / "new", watcher)


def test_run_at_work_is_left_alone(hub: Hub, there: Layout, watcher: Any) -> None:
    with locked(there), pytest.raises(LabError, match="another process is working"):
        pull(hub, there.root.name, there.root.parent, watcher)


HOSTILE = ["../../escaped.json", "/etc/escaped.json", "C:\\escaped.json", "evil.py", ".bashrc", "model/../../up.json"]


def test_hostile_names_are_left_out(
    hub: Hub, there: Layout, server: StandInHub, tmp_path: Path, watcher: Any, log: list[str]
) -> None:
    name = there.root.name
    server.put(REPO, {f"data/{name}/{path}": b"evil" for path in HOSTILE})
    out = tmp_path / "deep" / "down" / "data"
    root = pull(hub, name, out, watcher)
    assert content(root) == content(there.root)
    here = {p.relative_to(tmp_path / "deep").as_posix() for p in (tmp_path / "deep").rglob("*") if p.is_file()}
    assert all(path.startswith(f"down/data/{name}/") for path in here)
    assert not any(p.read_bytes() == b"evil" for p in (tmp_path / "deep").rglob("*") if p.is_file())
    assert any(f"left out {len(HOSTILE)} files" in line for line in log)


@pytest.mark.parametrize("place", ["model", "info/tiny_run.json", ""])
def test_links_that_lie_here_are_not_followed(
    hub: Hub, there: Layout, tmp_path: Path, watcher: Any, place: str
) -> None:
    aim = tmp_path / "aim"
    aim.mkdir()
    path = tmp_path / "new" / there.root.name / place
    path.parent.mkdir(parents=True)
    path.symlink_to(aim)
    with pytest.raises(LabError, match="move it out of the way"):
        pull(hub, there.root.name, tmp_path / "new", watcher)
    assert list(aim.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../x", "data", "a_2026_01_31_120000/../.."])
def test_hostile_run_names(hub: Hub, tmp_path: Path, watcher: Any, name: str) -> None:
    with pytest.raises(LabError, match="not the name of a run folder"):
        pull(hub, name, tmp_path / "new", watcher)
    assert not (tmp_path / "new").exists()


def test_no_such_run(hub: Hub, tmp_path: Path, watcher: Any) -> None:
    with pytest.raises(LabError, match="no run a_2026_01_31_120000 in tester/runs"):
        pull(hub, "a_2026_01_31_120000", tmp_path / "new", watcher)


class TestCatalog:
    def test_run_that_is_not_listed_is_looked_into(self, hub: Hub, there: Layout, server: StandInHub) -> None:
        server.put(REPO, {catalog.FILE: b"not json\n[]\n{}\n"})
        (found,) = catalog.read(hub, hub.head()).values()
        scalars = json.loads(there.trial_scalar(0).read_text())
        assert found.total_reward_ma == scalars["total_reward_ma"]
        assert (found.spec, found.env, found.algorithm) == ("tiny", "CartPole-v1", "ActorCritic")

    def test_line_without_a_folder_is_left_out(self, hub: Hub, server: StandInHub) -> None:
        gone = RunLine("gone_2026_01_31_120000", "gone")
        server.put(REPO, {catalog.FILE: catalog.dump({gone.name: gone}).encode()})
        assert catalog.read(hub, hub.head()) == {}

    def test_round_trip(self) -> None:
        one = RunLine("a_2026_01_31_120000_2", "a", "E", "PPO", 1.5, 100, 4, "completed")
        assert catalog.parse(catalog.dump({one.name: one})) == {one.name: one}

    @pytest.mark.parametrize(
        "line",
        [
            {"name": "../a", "spec": "a"},
            {"name": "a_2026_01_31_120000", "spec": "b"},
            {"name": "a_2026_01_31_120000", "spec": "a", "env": "x\x1b[2J"},
            {"name": "a_2026_01_31_120000", "spec": "a", "frames": "many"},
            {"name": 1, "spec": "a"},
        ],
    )
    def test_hostile_lines(self, line: dict[str, Any]) -> None:
        assert catalog.parse(json.dumps(line)) == {}

    def test_select(self) -> None:
        names = ["ppo_a", "ppo_ab", "dqn_a"]
        assert catalog.select(names, "ppo_a") == ["ppo_a"]
        assert catalog.select(names, "ppo") == ["ppo_a", "ppo_ab"]
        assert catalog.select(names, "*_a") == ["ppo_a", "dqn_a"]
        assert catalog.select(names, "") == names
        with pytest.raises(LabError, match="did you mean 'dqn_a'"):
            catalog.select(names, "dqn_aa")


def test_mark_does_not_travel(hub: Hub, there: Layout, tmp_path: Path, watcher: Any) -> None:
    root = pull(hub, there.root.name, tmp_path / "new", watcher)
    assert (root / MARK).exists()
    assert MARK not in travelling(root)
