"""The real dstack, server and client, in an environment of its own; ports, home and data are the test's.

The environment is made with uv in the user's cache folder, once: 90 packages, 180 MB. SLM_LAB_TEST_DSTACK names
another folder.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

VERSION = "0.22.5"
TOKEN = "token-of-the-tests"


def environment() -> Path:
    """Folder of an environment with `dstack[server]`; made where there is none. Skips where that can't be done."""
    if "SLM_LAB_TEST_DSTACK" in os.environ:
        return Path(os.environ["SLM_LAB_TEST_DSTACK"])
    folder = Path.home() / ".cache" / "slm-lab" / f"dstack-{VERSION}-{sys.version_info.major}.{sys.version_info.minor}"
    if (folder / "complete").exists():
        return folder
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: no dstack")
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed: dstack can't reach its machines")
    commands = [
        [uv, "venv", "-q", "--clear", "-p", sys.executable, str(folder)],
        [uv, "pip", "install", "-q", "-p", str(folder), f"dstack[server]=={VERSION}"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path.home())
        if done.returncode:
            pytest.skip(f"dstack[server] can't be installed: {done.stderr.strip()[-300:]}")
    (folder / "complete").touch()
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(there: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    """What `there` gives, once it gives something."""
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)
    return found


class Dstack:
    """A server, as a context manager; `env` is what the client needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = environment()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        home = folder / "home"
        check = home / ".cache" / ".dstack" / "cli" / "last_check"
        check.parent.mkdir(parents=True)
        check.touch()  # no call for updates
        self.env = {
            **os.environ,
            "HOME": str(home),
            "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
            "DSTACK_SERVER_DIR": str(folder / "server"),
            "DSTACK_DEFAULT_CREDS_DISABLED": "1",
            "DSTACK_DO_NOT_UPDATE_DEFAULT_PROJECT": "1",
            "DSTACK_SERVER_ROOT_LOG_LEVEL": "CRITICAL",
            "GPUHUNT_CATALOG_URL": "http://127.0.0.1:9",
            "COLUMNS": "200",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self.start()
            self.cli("project", "add", "--url", self.url, "--name", "main", "--token", TOKEN, "-y")
        except BaseException:
            self.end()
            raise
        return self

    def start(self) -> None:
        """Start the server."""
        self.server = self._spawn(
            "server.log", "dstack", "server", "--host", "127.0.0.1", "--port", str(self.port), "--token", TOKEN, "-n"
        )
        wait_for(lambda: self.ask("server/get_info"), "dstack server")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Stop the server and the machine."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, page: str, content: dict[str, Any] | None = None) -> Any:
        """Answer of the server's API; None while it does not answer."""
        data = json.dumps(content or {}).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/{page}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read())
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def cli(self, *args: str, stdin: str = "") -> str:
        """Run the client."""
        command = [str(self.place / "bin" / "dstack"), *args]
        done = subprocess.run(
            command, env=self.env, input=stdin, capture_output=True, text=True, check=False, cwd=self.folder
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def add_machine(self, *, python: str = sys.executable) -> Path:
        """Add the stand-in of a machine as a fleet. Gives the folder that the job runs in."""
        root, port = self.folder / "machine", free_port()
        python_here = str(self.place / "bin" / "python")
        script = str(Path(__file__).with_name("machine.py"))
        self._spawn("machine.log", python_here, script, str(port), str(root), python)
        wait_for(lambda: b"ready" in (self.folder / "machine.log").read_bytes(), "the machine")
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        fleet = (
            "type: fleet\nname: here\nssh_config:\n"
            f"  user: root\n  port: {port}\n  identity_file: {key}\n  hosts: [127.0.0.1]\n"
        )
        (self.folder / "fleet.dstack.yml").write_text(fleet)
        self.cli("apply", "-f", str(self.folder / "fleet.dstack.yml"), "-y", "-d")

        def idle() -> bool:
            fleets = self.ask("project/main/fleets/list") or []
            return any(i["status"] == "idle" for f in fleets for i in f["instances"])

        wait_for(idle, "the fleet")
        return root

    def run(self, name: str) -> Any:
        """A run as the server has stored it; None if there is none."""
        return self.ask("project/main/runs/get", {"run_name": name})

    def _spawn(self, log: str, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / log).open("wb") as file:
            process = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=self.folder
            )
        self._processes.append(process)
        return process
