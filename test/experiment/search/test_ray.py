"""Searches on a real Ray: what they find, what crashes, what is killed, on a cluster whose machines share no disk.

The env is `support.ladder`: what a trial reaches is known; which of them ASHA stops, and where, is worked out by hand.
"""

import csv
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.browser import CHROMIUM, WHY, Browser

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.launch import resume, run_spec
from slm_lab.experiment.records.runs import RunFile, Status
from slm_lab.experiment.report.write import report
from slm_lab.experiment.search.journal import Journal, TrialStatus
from slm_lab.experiment.session.run import Mode, Options, RunResult
from slm_lab.lib.cores import available_cores
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec

BIN = Path(sys.executable).parent
SUPPORT = Path(__file__).resolve().parents[2] / "support"
COMPLETED, STOPPED, CRASHED = TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.CRASHED

QUALITIES = [5, 1, 4, 2, 3, 6]
EXPECTED = [
    # rungs at 200, 400 and 800 frames; a trial goes on where it is not below the median of those before it
    (COMPLETED, 1000, 50.0),  # the first
    (STOPPED, 200, 10.0),  # of 50
    (STOPPED, 400, 40.0),  # of 50 and 10 at 200; of 50 at 400
    (STOPPED, 200, 20.0),  # of 50, 10 and 40
    (STOPPED, 400, 30.0),  # of 50, 10, 40 and 20 at 200; of 50 and 40 at 400
    (COMPLETED, 1000, 60.0),
]


def ladder(search: dict[str, Any], slow: str = "", **meta: Any) -> dict[str, Any]:
    """A spec of single envs, a row every 100 frames, a checkpoint every 100 frames."""
    return {
        "name": "ladder",
        "agent": {
            "name": "Reinforce",
            "algorithm": {"name": "Reinforce", "training_frequency": 10},
            "memory": {"name": "OnPolicyReplay"},
            "net": {"type": "MLPNet", "hid_layers": [4], "gpu": False},
        },
        "env": {
            "name": "Ladder-v0",
            "max_frame": 1000,
            "quality": 1.0,
            "crash": False,
            "slow": slow,
            "vectorization": "sync",
        },
        "meta": {
            "plugins": ["ladder"],
            "log_frequency": 100,
            "checkpoint_interval": 0,
            "compile": "off",
            "max_trial": 1,
            **meta,
        },
        "search": search,
    }


ASHA: dict[str, Any] = {
    "search_scheduler": {"grace_period": 200, "reduction_factor": 2},
    # both cores: one trial at a time, so that the order of their reports is known
    "search_resources": {"cpu": 2},
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_ray(*words: str, prefix: tuple[str, ...] = ()) -> None:
    # who joins by an address is not asked for the token that this user may have
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_health_check_failure_threshold": "1000",
        "RAY_worker_niceness": "0",
    }
    env = {**os.environ, **settings, "PYTHONPATH": str(SUPPORT)}
    command = [*prefix, str(BIN / "ray"), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr


def processes_with(text: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(text in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder with a short path, for Ray; processes that name it end with the module."""
    folder = Path(tempfile.mkdtemp(prefix="slm_t", dir="/tmp"))
    yield folder
    for process in processes_with(str(folder)):
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _apart(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The env of the tests; no other search on this machine is stopped by them, nor stops them."""
    monkeypatch.syspath_prepend(str(SUPPORT))
    monkeypatch.setenv("RAY_TMPDIR", str(base))


@pytest.fixture(scope="module")
def cluster(base: Path) -> str:
    """Address of a cluster that is there already: one machine with two cores."""
    address = f"127.0.0.1:{free_port()}"
    store = f"--object-store-memory={80 * 2**20}"
    head = ["start", "--head", "--node-ip-address=127.0.0.1", f"--port={address.rpartition(':')[2]}"]
    run_ray(*head, "--num-cpus=2", store, "--include-dashboard=false", f"--temp-dir={base}")
    return address


@pytest.fixture
def on_cluster(cluster: str, options: Options) -> Options:
    return dataclasses.replace(options, ray_address=cluster)


def search(spec: dict[str, Any], options: Options) -> tuple[RunResult, Journal, Layout]:
    done = run_spec(load_spec(spec), Mode.SEARCH, options)
    layout = Layout.open(done.folder)
    return done, Journal.open(layout.search_file()), layout


def outcome(journal: Journal) -> list[tuple[TrialStatus, int, float | None]]:
    return [(record.status, record.frame, record.metric) for record in journal.records.values()]


def read_table(layout: Layout) -> list[dict[str, str]]:
    with layout.experiment_df(top=True).open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def asha(cluster: str, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Journal, Layout]:
    """A search that ASHA ended trials of; its best model alone is kept."""
    out = tmp_path_factory.mktemp("asha")
    options = Options(out=out, device="cpu", progress=False, ray_address=cluster, keep=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SUPPORT))
        patch.setenv("RAY_TMPDIR", str(base))
        return search(ladder({"env": {"quality__grid_search": QUALITIES}}, **ASHA), options)


def test_search_with_asha(asha: tuple[RunResult, Journal, Layout], on_cluster: Options) -> None:
    done, journal, layout = asha
    assert outcome(journal) == EXPECTED
    table = read_table(layout)
    assert [row["trial"] for row in table] == ["5", "0", "2", "4", "3", "1"], "by strength"
    assert [float(row["env.quality"]) for row in table] == [6, 5, 4, 3, 2, 1]
    assert [row["frame"] for row in table] == ["1000", "1000", "400", "400", "200", "200"]
    assert done.metrics["total_reward_ma"] == 60.0
    assert load_spec(layout.best_spec(), "ladder").env.kwargs["quality"] == 6
    assert {path.name for path in (layout.root / "model").iterdir() if "t5" not in path.name} == set()
    assert layout.best(5, 0).exists()
    assert layout.experiment_graph("experiment_graph", top=True).exists()
    assert layout.trial_metrics(3).exists()
    page = report(layout.root, video=False).read_text()
    assert "6 of 6 trials ended, 4 of them stopped early by ASHA" in page
    assert "The best trial is 5, with quality 6." in page
    assert RunFile.open(layout).status is Status.COMPLETED
    # a session that was stopped did not run on: at most what it does within a moment
    assert read_rows(layout.session_df(1, 0))[-1]["frame"] <= 1000
    # done is done
    assert resume(layout.root, on_cluster).metrics["total_reward_ma"] == 60.0


@pytest.mark.skipif(CHROMIUM is None, reason=WHY)
def test_page_of_a_search_with_asha(asha: tuple[RunResult, Journal, Layout], tmp_path: Path) -> None:
    _, _, layout = asha
    with Browser() as browser:
        browser.open(report(layout.root, tmp_path / "page.html", video=False))
        found = browser.drawn()
        assert len(found) >= 2
        assert all(found)
        assert found[0] == 6 + 1, "a curve a trial, and a mark where ASHA stopped four of them"
        row = read_rows(layout.session_df(5, 0))[3]
        lines = browser.hover(0, float(row["frame"] or 0), float(row["total_reward"] or 0))
        assert lines == [f"{row['total_reward']:.10g}", f"{row['frame']:,} frames"]
        assert browser.errors == []


@pytest.mark.ci
def test_trials_are_averaged_over_sessions(on_cluster: Options) -> None:
    spec = ladder({"env.quality__choice": [2, 3]}, max_session=2, max_trial=2)
    _, journal, layout = search(spec, on_cluster)
    assert [record.status for record in journal.records.values()] == [COMPLETED] * 2
    for row in read_table(layout):
        assert float(row["consistency"]) == 1.0
        assert float(row["total_reward_ma"]) == 10 * float(row["env.quality"])
    assert layout.session_metrics(1, 1).exists()


@pytest.mark.ci
def test_a_crashed_trial_is_recorded_and_the_search_goes_on(on_cluster: Options) -> None:
    spec = ladder({"env.crash__grid_search": [False, True, False]})
    done, journal, layout = search(spec, on_cluster)
    assert [record.status for record in journal.records.values()] == [COMPLETED, CRASHED, COMPLETED]
    assert journal.records[1].reason == "RuntimeError: the ladder broke"
    assert "the ladder broke" in layout.crash(1, 0).read_text()
    assert [row["status"] for row in read_table(layout)] == ["completed", "completed", "crashed"]
    assert done.crashed == []


@pytest.mark.ci
def test_all_trials_crash(on_cluster: Options) -> None:
    done, journal, layout = search(ladder({"env.crash__grid_search": [True]}), on_cluster)
    assert [record.status for record in journal.records.values()] == [CRASHED]
    assert [crash.reason for crash in done.crashed] == ["RuntimeError: the ladder broke"]
    assert RunFile.open(layout).status is Status.CRASHED
    assert not layout.best_spec().exists()


def slowed(folder: Path, seconds: dict[int, float]) -> Path:
    """What makes ladders of these qualities slow."""
    slow = folder / "slow"
    slow.mkdir()
    for quality, wait in seconds.items():
        (slow / str(quality)).write_text(str(wait))
    return slow


def write(spec: dict[str, Any], folder: Path) -> Path:
    path = folder / "ladder.json"
    path.write_text(json.dumps({"ladder": spec}))
    return path


def slm(*words: str, folder: Path, **env: str) -> "subprocess.Popen[str]":
    """`slm-lab run` in a folder, on its own."""
    full = {**os.environ, "PYTHONPATH": str(SUPPORT), **env}
    command = [str(BIN / "slm-lab"), "run", *words, "--device", "cpu"]
    return subprocess.Popen(
        command, cwd=folder, env=full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(folder: Path, what: Callable[[Journal, Layout], bool], process: "subprocess.Popen[str]") -> Layout:
    """Until the journal of the one search in the folder says so."""
    end = time.monotonic() + 250
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        for path in folder.glob("data/*/info/*_search.json"):
            layout = Layout.open(path.parent.parent)
            if what(Journal.open(path), layout):
                return layout
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def ended(journal: Journal) -> int:
    return sum(record.ended for record in journal.records.values())


def rows_of(layout: Layout, trial: int) -> int:
    return len(read_rows(layout.session_df(trial, 0)))


def gone(folder: Path) -> bool:
    """No process of a Ray that lies in the folder is left, within a while."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not processes_with(f"{folder}/slm_ray_"):
            return True
        time.sleep(0.2)
    return False


@pytest.mark.ci
@pytest.mark.skipif(available_cores() < 2, reason="its trials ask for two cores")
def test_killed_stopped_and_resumed(tmp_path: Path, base: Path) -> None:
    """On a Ray of its own: killed with -9 in trial 2, told to stop in trial 4; it ends as if nothing had happened."""
    slow = slowed(tmp_path, {QUALITIES[2]: 0.3, QUALITIES[4]: 0.3})
    path = write(ladder({"env.quality__grid_search": QUALITIES}, slow=str(slow), **ASHA), tmp_path)
    process = slm(str(path), "ladder", "search", folder=tmp_path)
    layout = wait_for(tmp_path, lambda journal, layout: ended(journal) == 2 and rows_of(layout, 2) >= 1, process)
    sessions = [p for p in psutil.Process(process.pid).children(recursive=True) if "slm_lab" in " ".join(p.cmdline())]
    process.kill()
    process.communicate()
    assert gone(base), "its Ray ends with it"
    _, alive = psutil.wait_procs(sessions, timeout=60)
    assert sessions, "a process has the session"
    assert not alive, "who saves and ends"
    (slow / str(QUALITIES[2])).unlink()
    finished = {trial: layout.session_df(trial, 0).stat().st_mtime_ns for trial in (0, 1)}

    process = slm("search@latest", folder=tmp_path)
    wait_for(tmp_path, lambda journal, layout: ended(journal) == 4 and rows_of(layout, 4) >= 1, process)
    other = slm("--stop-ray", folder=tmp_path)
    told, _ = other.communicate(timeout=120)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert f"the search of process {process.pid}" in told
    assert f"slm-lab run search@{layout.root}" in err
    assert gone(base)
    assert RunFile.open(layout).status is Status.STOPPED
    (slow / str(QUALITIES[4])).unlink()

    process = slm(f"search@{layout.root.name}", folder=tmp_path)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert out.strip() == str(layout.root)
    assert gone(base)
    assert outcome(Journal.open(layout.search_file())) == EXPECTED
    assert {trial: layout.session_df(trial, 0).stat().st_mtime_ns for trial in (0, 1)} == finished
    for trial in (2, 4):
        assert "resumes at frame" in layout.log(layout.s(trial, 0)).read_text()
    assert "resumes at frame" not in layout.log(layout.s(5, 0)).read_text()
    # the terminal shows the lab's own lines, Ray has its file
    lines = err.splitlines()
    assert all(line[2:3] == ":" or line.startswith("  ") for line in lines if line), err
    assert layout.log("ladder_ray").exists()
    assert not list(base.glob("slm_ray_*/session_*"))


@pytest.mark.ci
def test_two_machines_without_a_shared_disk(cluster: str, base: Path, tmp_path: Path) -> None:
    """A second raylet that sees another, empty disk where the run folder lies: its results come back all the same."""
    address = cluster
    mount = f'mount -t tmpfs tmpfs {tmp_path} && exec "$@"'
    prefix = ("unshare", "--mount", "bash", "-c", mount, "-")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount")
    store = f"--object-store-memory={80 * 2**20}"
    run_ray("start", f"--address={address}", "--num-cpus=2", store, "--node-ip-address=127.0.0.2", prefix=prefix)
    # a trial needs all cores of a machine: the two run side by side, one on each
    meta = {"search_resources": {"cpu": 2}, "search_scheduler": None}
    slow = slowed(base, {1: 0.01, 2: 0.01})
    path = write(ladder({"env.quality__grid_search": [1, 2]}, slow=str(slow), **meta), tmp_path)
    process = slm(str(path), "ladder", "search", folder=tmp_path, RAY_ADDRESS=address)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    layout = Layout.open(Path(out.strip()))
    assert outcome(Journal.open(layout.search_file())) == [(COMPLETED, 1000, 10.0), (COMPLETED, 1000, 20.0)]
    logs = [layout.log(layout.t(trial)).read_text() for trial in (0, 1)]
    assert sorted("files go from here to" in log for log in logs) == [False, True]
    for trial in (0, 1):
        assert rows_of(layout, trial) == 10
        assert layout.best(trial, 0).exists()
        assert layout.log(layout.s(trial, 0)).exists()
        assert layout.graph(f"{layout.t(trial)}_trial_graph", "mean_returns").exists()
    # the cluster was there before, and stays
    run_ray("status", f"--address={address}")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://a:1", "'ray://a:1': a search is started on a machine of the cluster"),
        ("nowhere", r"must be auto or HOST:PORT \(got 'nowhere'\)"),
        ("127.0.0.1:{port}", "no Ray cluster at '127.0.0.1:.*Connection refused"),
    ],
)
def test_no_cluster_there(options: Options, address: str, told: str) -> None:
    spec = load_spec(ladder({"env.quality__grid_search": [1]}))
    address = address.format(port=free_port())
    with pytest.raises(LabError, match=f"--ray-address: {told}"):
        run_spec(spec, Mode.SEARCH, dataclasses.replace(options, ray_address=address))
    assert list(options.out.iterdir()) == [], "no trial was begun: there is nothing to keep"


def test_options_that_can_not_be_built(options: Options) -> None:
    """Told before anything is started."""
    block = {
        "agent.net.optim_spec__choice": [{"name": "Adm"}, {"name": "Adam"}],
        "env.name__choice": ["Laddr-v0", "Ladder-v0"],
    }
    with pytest.raises(SpecError) as caught:
        run_spec(load_spec(ladder(block)), Mode.SEARCH, dataclasses.replace(options, ray_address="nowhere"))
    assert "torch.optim has no 'Adm', did you mean 'Adam'?" in str(caught.value)
    assert "unknown env 'Laddr-v0', did you mean 'Ladder-v0'?" in str(caught.value)
