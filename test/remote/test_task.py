"""The task that is made of a template, and the code that travels with it."""

import io
import json
import re
import shlex
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.cli.runs import new_folder
from slm_lab.lib.errors import LabError
from slm_lab.remote.dstack import LIMIT_VARIABLE, NAME, Dstack, DstackError
from slm_lab.remote.ship import archive, pack
from slm_lab.remote.task import Task, check_name, render, run_name
from slm_lab.spec.files import bundled_folder

TASK = Task("a.json", "ppo", "train", "ppo_2026_01_31_120000", {"env": "CartPole-v1"}, repo="me/runs")


def made(task: Task = TASK, *, gpu: bool = False, here: Path = Path("/nowhere")) -> dict[str, Any]:
    found = yaml.safe_load(render(task, "name", gpu=gpu, here=here, archive=Path("/nowhere/job.tar.gz")))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("mode", ["train", "search", "dev"])
def test_bundled_templates(mode: str, gpu: bool) -> None:
    task = made(Task("a.json", "ppo", mode, TASK.folder, repo="me/runs"), gpu=gpu)
    assert ("gpu" in task["resources"]) is gpu
    assert {"cpu", "memory", "disk"} <= set(task["resources"])
    assert {"spot_policy", "max_duration", "max_price", "retry", "stop_duration"} <= set(task)
    assert "interruption" in task["retry"]["on_events"]
    assert task["name"] == "name"
    assert task["env"]["HF_TOKEN"] == "${{ secrets.hf_token }}"
    assert task["commands"][-1].startswith("exec python -m slm_lab run job/a.json ppo")


def test_without_upload_there_is_no_token() -> None:
    task = made(Task("a.json", "ppo", "train", TASK.folder))
    assert "HF_TOKEN" not in task["env"]
    assert "--upload-hf" not in task["commands"][-1]


@given(st.dictionaries(st.from_regex(r"[a-z.]{1,8}", fullmatch=True), st.text(max_size=30), max_size=3))
def test_values_arrive_as_they_are(sets: dict[str, str]) -> None:
    """Whatever a value holds, the shell hands it to the run unchanged, or it is refused."""
    try:
        task = made(Task("a b.json", "ppo", "train", TASK.folder, sets))
    except LabError:
        assert any("${{" in value or not value.isprintable() for value in sets.values())
        return
    words = shlex.split(task["commands"][-1])
    assert words[words.index("run") + 1] == "job/a b.json"
    given_sets = [words[i + 1] for i, word in enumerate(words) if word == "-s"]
    assert given_sets == [f"{key}={value}" for key, value in sets.items()]


def test_the_shell_expands_nothing() -> None:
    value = "$HOME `id` $(id) ; & | > ' \" \\ * ~ !"
    command = Task("a.json", "ppo", "train", TASK.folder, {"x": value}).command()
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert f"x={value}" in done.stdout.splitlines()


@pytest.mark.parametrize("value", ["${{ secrets.hf_token }}", "a\nb"])
def test_what_dstack_would_read_is_refused(value: str) -> None:
    with pytest.raises(LabError, match="can't be passed on"):
        made(Task("a.json", "ppo", "train", TASK.folder, {"x": value}))


def test_own_template_goes_first(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    own = tmp_path / ".dstack" / "cpu-train.yml"
    own.write_text("type: task\nenv: {A: b}\ncommands: [setup, '{run}']\n")
    task = made(here=tmp_path)
    assert task["commands"][0] == "setup"
    assert task["env"]["A"] == "b"
    for text, message in (
        ("type: task\ncommands: [x]", "must hold {run}"),
        ("type: service", "must be a dstack task"),
        ("a: [", "can't be read as YAML"),
        ("type: task\nenv: [A]\ncommands: ['{run}']", "env must be an object"),
    ):
        own.write_text(text)
        with pytest.raises(LabError, match=message):
            made(here=tmp_path)


@pytest.mark.parametrize("spec", ["ppo", "PPO.x+y=1", "1st", "a" * 99])
def test_names_that_dstack_takes(spec: str) -> None:
    folder = new_folder(spec)
    assert NAME.fullmatch(run_name(folder))
    assert len({run_name(folder) for _ in range(40)}) > 1


@pytest.mark.parametrize("name", ["A", "a", "1a", "a_b", "a" * 42, "a b"])
def test_names_that_it_does_not(name: str) -> None:
    with pytest.raises(LabError, match="2 to 41"):
        check_name(name)


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def test_what_travels_is_enough(tmp_path: Path) -> None:
    """The archive alone runs: its package, and not the one that is installed."""
    spec, plugin = tmp_path / "my spec.json", tmp_path / "mine"
    spec.write_text(json.dumps({"x": {"meta": {"plugins": ["mine.algos"]}}}))
    (plugin / "data").mkdir(parents=True)
    (plugin / "algos.py").write_text("")
    (plugin / "data" / "big.bin").write_bytes(b"0" * 1000)
    (plugin / ".env").write_text("HF_TOKEN=secret")
    (plugin / "link.py").symlink_to("/etc/passwd")
    (tmp_path / "data").mkdir()
    found = unpacked(archive(pack(spec, {"meta": {"plugins": ["mine.algos"]}}, tmp_path)))
    assert {"requirements.lock", "job/my spec.json", "mine/algos.py", "slm_lab/__main__.py"} <= set(found)
    assert "slm_lab/experiment/records/baselines.json" in found
    assert not [p for p in found if ".env" in p or "data/" in p or "link" in p or "__pycache__" in p]
    there = tmp_path / "there"
    for path, data in found.items():
        (there / path).parent.mkdir(parents=True, exist_ok=True)
        (there / path).write_bytes(data)
    code = "import slm_lab, slm_lab.cli.run, slm_lab.experiment.launch as x; print(x.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=there, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(there / "slm_lab/experiment/launch.py"), done.stderr


def test_same_content_same_archive(tmp_path: Path) -> None:
    spec = tmp_path / "a.json"
    spec.write_text("{}")
    assert archive(pack(spec, {}, tmp_path)) == archive(pack(spec, {}, tmp_path))


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "a.json"
    spec.write_text("{}")
    monkeypatch.setenv(LIMIT_VARIABLE, "20000")
    with pytest.raises(LabError, match=r"packed, the server takes 20 KiB. The largest files: .*requirements.lock"):
        archive(pack(spec, {}, tmp_path))


@pytest.mark.parametrize(("plugin", "why"), [("not_there", "is not there"), ("json", "is installed here, but")])
def test_plugin_that_can_not_travel(tmp_path: Path, plugin: str, why: str) -> None:
    spec = tmp_path / "a.json"
    spec.write_text("{}")
    with pytest.raises(LabError, match=why):
        pack(spec, {"meta": {"plugins": [plugin]}}, tmp_path)


def test_lock_travels() -> None:
    assert re.search(r"(?m)^torch==", (bundled_folder().parent / "requirements.lock").read_text())


def fake(folder: Path, script: str) -> None:
    program = folder / "dstack"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_no_dstack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DstackError, match=r"uv tool install dstack"):
        Dstack()


def test_answer_that_is_not_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a later dstack may do; the real one is in test_dstack.py."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for script, message in (("echo '{}'", "too new or too old"), ("echo no; exit 3", "failed .exit code 3.*\n  no")):
        fake(tmp_path, script)
        with pytest.raises(DstackError, match=message):
            Dstack().runs()


@pytest.mark.parametrize("plugin", ["", ".envs"])
def test_what_is_no_module_does_not_travel(plugin: str, tmp_path: Path) -> None:
    """Not the whole working folder, where no check of the spec came before."""
    (tmp_path / "secret.txt").write_text("x")
    with pytest.raises(LabError, match="must be names of Python modules"):
        pack(tmp_path / "a.json", {"meta": {"plugins": [plugin]}}, tmp_path)
