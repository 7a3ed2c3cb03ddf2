"""`slm-lab run-remote` with the real dstack server and client; only the machine and the hub are stand-ins.

One server for the whole module: it takes seconds to start. The tests go from an empty project to a job that ran.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.dstack import Dstack, wait_for
from support.hub import StandInHub

pytestmark = pytest.mark.ci
REPO = "tester/runs"
ENDED = ("done", "failed", "terminated")


@dataclass
class World:
    """A dstack server, a hub, and a user's working folder with a spec and `.env`."""

    dstack: Dstack
    hub: StandInHub
    folder: Path

    def slm(self, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "slm_lab", *args]
        return subprocess.run(
            command, cwd=self.folder, env={**self.dstack.env, **env}, capture_output=True, text=True, check=False
        )

    def prepare(self) -> None:
        """A secret and a fleet, where there is none yet."""
        self.dstack.cli("secret", "set", "hf_token", self.hub.token)
        if not self.dstack.ask("project/main/fleets/list"):
            self.dstack.add_machine()

    def ended(self, name: str) -> Any:
        """The run, once it has ended."""

        def look() -> Any:
            run = self.dstack.run(name)
            return run if run is not None and run["status"] in ENDED else None

        return wait_for(look, f"the end of {name}", 240)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("user")
    spec = {
        "agent": {
            "name": "A",
            "algorithm": {"name": "ActorCritic", "training_frequency": 16, "lam": 0.95},
            "memory": {"name": "OnPolicyBatchReplay"},
            "net": {"type": "MLPNet", "hid_layers": [8], "gpu": False},
        },
        "env": {"name": "CartPole-v1", "num_envs": 2, "max_frame": "${frames}"},
        "meta": {"log_frequency": 500, "compile": "off", "max_session": 1, "checkpoint_interval": 0},
    }
    (folder / "mine.json").write_text(json.dumps({"far": spec}))
    dstack_folder = tmp_path_factory.mktemp("dstack")
    with StandInHub() as hub, Dstack(dstack_folder) as dstack:
        lines = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_REPO": REPO}
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        yield World(dstack, hub, folder)


RUN = ("run-remote", "mine.json", "far", "train", "-s", "frames=2000")


def test_no_secret(world: World) -> None:
    done = world.slm(*RUN, "-n", "one")
    assert done.returncode == 2, done.stderr
    assert "no secret 'hf_token'" in done.stderr
    assert "dstack secret set hf_token" in done.stderr
    assert world.dstack.run("one") is None


def test_no_fleet(world: World) -> None:
    world.dstack.cli("secret", "set", "hf_token", world.hub.token)
    done = world.slm(*RUN, "-n", "one")
    assert done.returncode == 2, done.stderr
    assert "the project has no fleet" in done.stderr
    assert world.dstack.run("one") is None


def test_no_offer(world: World) -> None:
    world.prepare()
    done = world.slm(*RUN, "-n", "one", "--gpu")
    assert done.returncode == 2, done.stderr
    assert "no machine of the project's fleets fits" in done.stderr
    assert world.dstack.run("one") is None


def test_server_down(world: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(world.dstack.env["HOME"], home)
    config = home / ".dstack" / "config.yml"
    config.write_text(config.read_text().replace(world.dstack.url, "http://127.0.0.1:9"))
    done = world.slm(*RUN, HOME=str(home))
    assert done.returncode == 2
    assert "dstack ps: failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_end_to_end(world: World) -> None:
    """run-remote -> the server schedules the job on the fleet -> it trains and uploads -> list -> pull -> enjoy."""
    world.prepare()
    begun = time.monotonic()
    done = world.slm(*RUN, "-n", "one", "-s", "agent.name=it's $HOME; `echo x`")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "one"
    assert "KiB packed" in done.stderr

    stored = world.dstack.run("one")
    assert world.hub.token not in json.dumps(stored)
    assert stored["run_spec"]["configuration"]["env"]["HF_TOKEN"] == "${{ secrets.hf_token }}"

    again = world.slm(*RUN, "-n", "one")
    assert again.returncode == 2, again.stdout
    assert "a run 'one' is " in again.stderr
    assert "it is not replaced" in again.stderr

    run = world.ended("one")
    log = (world.dstack.folder / "machine" / "job.log").read_text()
    assert run["status"] == "done", log
    listed = json.loads(world.slm("list", "--json").stdout)
    assert [(row["spec"], row["status"], row["frames"]) for row in listed] == [("far", "completed", 2000)]
    name = listed[0]["name"]
    pulled = world.slm("pull", "far")
    assert pulled.returncode == 0, pulled.stderr
    here, there = world.folder / "data" / name, world.dstack.folder / "machine" / "workflow" / "data" / name
    for path in ("model/far_t0_s0_ckpt.pt", "info/far_t0_s0_session_df_train.csv", "far_t0_trial_metrics_scalar.json"):
        assert (here / path).read_bytes() == (there / path).read_bytes()
    spec = json.loads((here / "far_spec.json").read_text())
    assert spec["agent"]["name"] == "it's $HOME; `echo x`"
    assert spec["env"]["max_frame"] == 2000
    assert world.hub.token.encode() not in b"".join(p.read_bytes() for p in here.rglob("*") if p.is_file())
    played = world.slm(f"enjoy@{here}", "--episodes", "1")
    assert played.returncode == 0, played.stderr
    print(f"end to end: {time.monotonic() - begun:.1f} s")


@pytest.mark.slow
def test_stopped_job_uploads_and_the_next_goes_on(world: World) -> None:
    world.prepare()
    done = world.slm("run-remote", "mine.json", "far", "train", "-s", "frames=10000000", "-n", "two")
    assert done.returncode == 0, done.stderr
    folder = world.dstack.run("two")["run_spec"]["configuration"]["commands"][-1].partition("--folder ")[2].split()[0]
    table = world.dstack.folder / "machine" / "workflow" / "data" / folder / "info" / "far_t0_s0_session_df_train.csv"
    wait_for(lambda: table.exists() and table.read_text().count("\n") > 2, "the first rows", 240)
    world.dstack.cli("stop", "two", "-y")
    prefix = f"data/{folder}/"

    def uploaded() -> Any:
        return {p.removeprefix(prefix): e.data for p, e in world.hub.repos[REPO].files.items() if p.startswith(prefix)}

    files = wait_for(uploaded, "the upload of the job that was stopped")
    assert json.loads(files["info/far_run.json"])["status"] == "stopped"
    world.ended("two")
    rows = files["info/far_t0_s0_session_df_train.csv"]
    frame = int(rows.splitlines()[-1].split(b",")[rows.splitlines()[0].split(b",").index(b"frame")])

    # a new machine, which has nothing; the spec of the run counts, cut short for the test
    shutil.rmtree(world.dstack.folder / "machine" / "workflow")
    short = {
        p: d.replace(b"10000000", str(frame + 2000).encode()) for p, d in files.items() if p.endswith("_spec.json")
    }
    world.hub.put(REPO, {prefix + path: data for path, data in short.items()})
    done = world.slm("run-remote", "mine.json", "far", "-s", "frames=10000000", "-n", "three", "--folder", folder)
    assert done.returncode == 0, done.stderr
    assert world.ended("three")["status"] == "done"
    assert json.loads(uploaded()["info/far_run.json"])["status"] == "completed"
    assert uploaded()["info/far_t0_s0_session_df_train.csv"].startswith(rows)


@pytest.mark.slow
def test_failed_upload_fails_the_job(world: World) -> None:
    world.prepare()
    world.hub.fail("POST", "/commit/", 403, times=99)
    done = world.slm(*RUN, "-n", "four")
    assert done.returncode == 0, done.stderr
    run = world.ended("four")
    world.hub.faults.clear()
    assert run["status"] == "failed"
    assert run["jobs"][0]["job_submissions"][-1]["exit_status"] == 1
    assert "not uploaded" in (world.dstack.folder / "machine" / "job.log").read_text()
