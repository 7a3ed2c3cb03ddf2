"""`push`, `list`, `pull`, `run --upload-hf` against the stand-in of the hub, as a user has them."""

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hub import StandInHub
from typer.testing import Result

REPO = "tester/runs"
Slm = Callable[..., Result]


@pytest.fixture
def server(folder: Path) -> Iterator[StandInHub]:
    """The hub, which `.env` in the working folder names."""
    with StandInHub() as standin:
        lines = {
            "HF_ENDPOINT": standin.url,
            "HF_TOKEN": standin.token,
            "HF_REPO": REPO,
            "SLM_LAB_HUB_PATIENCE": 3,
            "SLM_LAB_HUB_TIMEOUT": 20,
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        yield standin


@pytest.fixture
def mine(finished_run: Path, folder: Path) -> Path:
    """A finished run in data/."""
    return shutil.copytree(finished_run, folder / "data" / finished_run.name)


def start(*args: str) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).with_name("slm-lab")), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(there: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def files(server: StandInHub, name: str) -> dict[str, bytes]:
    prefix = f"data/{name}/"
    return {p.removeprefix(prefix): e.data for p, e in server.repos[REPO].files.items() if p.startswith(prefix)}


def test_push_list_pull_enjoy(slm: Slm, server: StandInHub, mine: Path, folder: Path) -> None:
    done = slm("push", mine.name)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == f"{server.url}/datasets/{REPO}/tree/main/data/{mine.name}"
    listed = slm("list")
    for word in (mine.name, "CartPole-v1", "ActorCritic", "completed", "1,000"):
        assert word in listed.stdout
    (row,) = json.loads(slm("list", "tiny", "--json").stdout)
    assert row["name"] == mine.name
    shutil.move(mine, folder / "before")
    done = slm("pull", "tiny")
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.strip()) == mine
    pulled = {p: data for p, data in files(server, mine.name).items() if p != "README.md"}
    assert all((folder / "before" / path).read_bytes() == data for path, data in pulled.items())
    assert all((mine / path).read_bytes() == data for path, data in pulled.items())
    done = slm(f"enjoy@{mine}", "--episodes", "2")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.split()) == 2


@pytest.mark.parametrize("command", [["list"], ["pull", "x"], ["push", "latest"]])
def test_without_an_account(slm: Slm, mine: Path, command: list[str]) -> None:
    done = slm(*command)
    assert done.exit_code == 2
    assert "HF_REPO is not set" in done.stderr


def test_no_such_run(slm: Slm, server: StandInHub, mine: Path) -> None:
    slm("push", mine.name)
    done = slm("pull", "nothing_like_it")
    assert done.exit_code == 2
    assert "no run in the repository fits 'nothing_like_it'" in done.stderr
    assert slm("push", "nothing").exit_code == 2


def test_wrong_token_is_told_before_the_training(slm: Slm, server: StandInHub, spec_file: Path, folder: Path) -> None:
    done = slm("run", "toy.json", "toy", "train", "--upload-hf", HF_TOKEN="hf_wrong")
    assert done.exit_code == 2
    assert "refuses the token" in done.stderr
    assert "hf_wrong" not in done.output
    assert not (folder / "data").exists()


def test_failed_upload_fails_the_run(slm: Slm, server: StandInHub, spec_file: Path, folder: Path) -> None:
    server.fail("POST", "/commit/", 500, times=99)
    done = slm("run", "toy.json", "toy", "train", "--upload-hf")
    assert done.exit_code == 1
    assert "not uploaded: hub: uploading: " in done.stderr
    (root,) = (folder / "data").iterdir()
    assert f"slm-lab push {root}" in done.stderr
    server.faults.clear()
    assert slm("push", str(root)).exit_code == 0
    assert "model/toy_t0_s0_ckpt.pt" in files(server, root.name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["enjoy@latest", "--upload-hf"], "--upload-hf belongs to the modes that train"),
        (["toy.json", "toy", "--folder", "other_2026_01_31_120000"], "must be the spec's name and a time"),
        (["toy.json", "toy", "--folder", "../toy_2026_01_31_120000"], "must be the spec's name and a time"),
        (["train@latest", "--folder", "toy_2026_01_31_120000"], "goes with one spec and no @"),
    ],
)
def test_misuse(slm: Slm, server: StandInHub, spec_file: Path, words: list[str], message: str) -> None:
    done = slm("run", *words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_stopped_elsewhere_and_gone_on_with_here(
    slm: Slm, server: StandInHub, raw: dict[str, Any], folder: Path
) -> None:
    """A job is stopped with SIGTERM; another machine, which has nothing, goes on from what it uploaded."""
    name = "long_2026_01_31_120000"
    spec = {**raw, "meta": {**raw["meta"], "log_frequency": 2000, "max_session": 1}}
    (folder / "long.json").write_text(json.dumps({"long": spec}))
    command = ["run", "long.json", "long", "train", "--upload-hf", "--folder", name]
    job = start(*command, "-s", "env.max_frame=10000000")
    table = folder / "data" / name / "info" / "long_t0_s0_session_df_train.csv"
    wait_for(lambda: table.exists() and table.read_text().count("\n") > 1)
    job.send_signal(signal.SIGTERM)
    told = job.communicate(timeout=120)[1]
    assert job.returncode == 130, told
    uploaded = files(server, name)
    assert json.loads(uploaded["info/long_run.json"])["status"] == "stopped"
    rows = uploaded["info/long_t0_s0_session_df_train.csv"]
    assert rows.count(b"\n") > 1

    # the same command on a machine that has nothing; the spec of the run counts, cut short for the test
    shutil.rmtree(folder / "data")
    prefix = f"data/{name}/"
    frame = int(list(csv.DictReader(rows.decode().splitlines()))[-1]["frame"])
    end = str(frame + 6000).encode()
    short = {p: d.replace(b"10000000", end) for p, d in uploaded.items() if p.endswith("_spec.json")}
    server.put(REPO, {prefix + path: data for path, data in short.items()})
    done = slm(*command)
    assert done.exit_code == 0, done.output
    assert table.read_bytes().startswith(rows)
    assert json.loads(files(server, name)["info/long_run.json"])["status"] == "completed"
    assert slm("list").stdout.count("completed") == 1


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_hostile_checkpoint_runs_nothing(slm: Slm, server: StandInHub, mine: Path, folder: Path) -> None:
    slm("push", mine.name)
    witness = folder / "was_run"
    evil = folder / "evil.pt"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(witness), protocol=2))
        archive.writestr("archive/version", "3\n")
    inside = [path for path in files(server, mine.name) if path.endswith(".pt")]
    server.put(REPO, {f"data/{mine.name}/{path}": evil.read_bytes() for path in inside})
    spec = json.loads((mine / "tiny_spec.json").read_text())
    spec["meta"]["plugins"] = [f"data.{mine.name}.evil"]
    put = {f"data/{mine.name}/{path}": json.dumps(spec).encode() for path in ("tiny_spec.json", "tiny_t0_spec.json")}
    python = f"import os; os.system('touch {witness}')".encode()
    server.put(REPO, {**put, f"data/{mine.name}/evil.py": python})
    shutil.rmtree(mine)
    assert slm("pull", mine.name).exit_code == 0
    for mode in ("enjoy", "train"):
        done = slm(f"{mode}@{mine}")
        assert done.exit_code in (0, 2)
        assert not witness.exists()
    assert not (mine / "evil.py").exists()
