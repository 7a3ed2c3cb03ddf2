"""A stand-in for a remote machine of a dstack SSH fleet: sshd, dstack's shim and its runner, in one process.

The real `dstack server` logs in on loopback, installs what it thinks is its shim, and sends a job; the job's commands
are run as they are, with `/workflow` and `/dstack` mapped into a folder. Needs paramiko: run with dstack's python.

    python machine.py PORT FOLDER PYTHON

PYTHON is what the job's environment is made of: `uv venv` on this machine makes one that has its packages, so that
nothing is downloaded.
"""

import base64
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paramiko

VERSION = "0.22.5"
SHIM, RUNNER = 10998, 10999
KILL_DELAY = 10.0
"""Seconds from SIGINT to SIGKILL, as the real runner has it."""


class Job:
    """The one job of the machine, as dstack's runner knows it."""

    def __init__(self, root: Path, python: str) -> None:
        self.root = root
        self.python = python
        self.tasks: dict[str, str] = {}
        self.reset()

    def reset(self) -> None:
        self.spec: dict[str, Any] = {}
        self.states: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        self.process: subprocess.Popen[bytes] | None = None

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def archive(self, name: str, data: bytes) -> None:
        """Unpack a file archive where the job wants it: its first folder is what the path names."""
        (path,) = [a["path"] for a in self.spec["file_archives"] if a["id"] == name]
        aim = self.inside(path)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                rest = Path(*Path(member.name).parts[1:])
                place = aim / rest
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                elif (content := tar.extractfile(member)) is not None:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content.read())

    def start(self) -> str:
        folder = self.inside(self.spec.get("working_dir") or "/workflow")
        folder.mkdir(parents=True, exist_ok=True)
        self.inside("dstack").mkdir(exist_ok=True)
        tools = self.root / "tools"
        tools.mkdir(exist_ok=True)
        _script(tools / "sudo", 'exec "$@"')
        # the last word of `uv venv ... FOLDER`; whatever is to be installed is there
        packages = subprocess.run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        make = (
            '[ "$1" = venv ] || exit 0\nfor folder; do :; done\n'
            f'{shlex.quote(self.python)} -m venv --without-pip "$folder"\n'
            f'echo {shlex.quote(packages)} > "$(echo "$folder"/lib/python*/site-packages)/machine.pth"'
        )
        _script(tools / "uv", make)
        commands = [re.sub(r"/(dstack|workflow)\b", rf"{self.root}/\1", c) for c in self.spec["commands"]]
        env = {**os.environ, **self.spec["env"], "PATH": f"{tools}:{os.environ['PATH']}"}
        (self.root / "env.json").write_text(json.dumps(self.spec["env"]))
        self.process = subprocess.Popen(
            commands,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.state("running")
        threading.Thread(target=self.follow, daemon=True).start()
        return str(folder)

    def follow(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        with (self.root / "job.log").open("ab") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                entry = {"timestamp": time.time_ns() // 1_000_000, "message": base64.b64encode(line).decode()}
                self.logs.append(entry)
        code = self.process.wait()
        if code == 0:
            self.state("done", exit_status=0)
        else:
            self.state("failed", termination_reason="container_exited_with_error", exit_status=code)

    def state(self, name: str, **more: Any) -> None:
        self.states.append({"timestamp": time.time_ns() // 1_000_000, "state": name, **more})

    def stop(self) -> None:
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            threading.Timer(KILL_DELAY, process.kill).start()


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def api(job: Job, service: str) -> type[BaseHTTPRequestHandler]:
    """What the shim or the runner answers."""

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self, content: Any, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/api/healthcheck":
                self.answer({"service": service, "version": VERSION})
            elif path == "/api/components":
                names = ("dstack-runner", "dstack-shim")
                self.answer({"components": [{"name": n, "version": VERSION, "status": "installed"} for n in names]})
            elif path.startswith("/api/instance/"):
                self.answer({})
            elif path == "/api/tasks":
                self.answer({"tasks": [{"id": i, "status": s} for i, s in job.tasks.items()]})
            elif path.startswith("/api/tasks/"):
                name = path.split("/")[3]
                ended = {"termination_reason": "", "termination_message": "", "ports": []}
                self.answer({"id": name, "status": job.tasks.get(name, "terminated"), **ended})
            elif path == "/api/pull":
                after = int(self.path.partition("timestamp=")[2] or 0)
                states = [s for s in job.states if s["timestamp"] > after]
                logs = [entry for entry in job.logs if entry["timestamp"] > after]
                last = max([after, *(e["timestamp"] for e in [*states, *logs])])
                found = {"job_states": states, "job_logs": logs, "runner_logs": [], "last_updated": last}
                self.answer({**found, "no_connections_secs": 0, "has_more": False})
            else:
                self.answer({}, 404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path
            if path == "/api/tasks":
                job.reset()
                job.tasks[json.loads(body)["id"]] = "running"
            elif path.startswith("/api/tasks/"):
                _, _, _, name, action = path.split("/")
                job.stop()
                if action == "remove":
                    job.tasks.pop(name, None)
                else:
                    job.tasks[name] = "terminated"
            elif path == "/api/submit":
                job.spec = json.loads(body)["job_spec"]
            elif path == "/api/upload_archive":
                name = re.search(rb'filename="([^"]+)"', body)
                boundary = b"\r\n--" + self.headers["Content-Type"].partition("boundary=")[2].encode()
                assert name is not None
                job.archive(name[1].decode(), body.partition(b"\r\n\r\n")[2].partition(boundary)[0])
            elif path == "/api/run":
                return self.answer({"working_dir": job.start(), "username": "root"})
            elif path == "/api/stop":
                job.stop()
            return self.answer({})

    return Api


class Upload(paramiko.SFTPHandle):
    """A file that is taken in, of which only the size is kept."""

    size = 0

    def write(self, offset: int, data: bytes) -> int:
        self.size = max(self.size, offset + len(data))
        return paramiko.SFTP_OK

    def stat(self) -> paramiko.SFTPAttributes:
        found = paramiko.SFTPAttributes()
        found.st_size = self.size
        return found


class Files(paramiko.SFTPServerInterface):
    """Takes in any file, and forgets it: what dstack installs is here already."""

    def __init__(self, *args: Any) -> None:
        self.uploads: dict[str, Upload] = {}

    def open(self, path: str, flags: int, attr: Any) -> Upload:
        self.uploads[path] = Upload(flags)
        return self.uploads[path]

    def stat(self, path: str) -> Any:
        return self.uploads[path].stat() if path in self.uploads else paramiko.SFTP_NO_SUCH_FILE


class Login(paramiko.ServerInterface):
    """Lets everybody in, answers the commands that dstack sends, and forwards to shim and runner."""

    def __init__(self, ports: dict[int, int]) -> None:
        self.ports = ports
        self.aims: dict[int, int] = {}

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(self, chanid: int, origin: Any, destination: Any) -> int:
        if destination[1] not in self.ports:
            return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        self.aims[chanid] = self.ports[destination[1]]
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        # paramiko confirms the request when this returns: the answer must not come before that
        threading.Timer(0.3, self.execute, (channel, command.decode())).start()
        return True

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        out = ""
        if command == "uname -m":
            out = "x86_64\n"
        elif "cat" in command and "host_info.json" in command:
            # as large as the bundled template for CPUs asks for
            host = {"gpu_count": 0, "cpus": 8, "memory": 32 << 30, "disk_size": 200 << 30}
            out = json.dumps({**host, "addresses": ["127.0.0.1/8"]})
        elif "api/healthcheck" in command:
            out = json.dumps({"service": "dstack-shim", "version": VERSION})
        channel.sendall(out.encode())
        channel.send_exit_status(0)
        channel.close()


def pump(source: Any, sink: Any) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        end.close()


def connection(client: socket.socket, key: paramiko.PKey, ports: dict[int, int]) -> None:
    transport = paramiko.Transport(client)
    transport.add_server_key(key)
    transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
    login = Login(ports)
    try:
        transport.start_server(server=login)
        while transport.is_active():
            channel = transport.accept(1)
            if channel is not None and channel.get_id() in login.aims:
                local = socket.create_connection(("127.0.0.1", login.aims.pop(channel.get_id())))
                threading.Thread(target=pump, args=(channel, local), daemon=True).start()
                threading.Thread(target=pump, args=(local, channel), daemon=True).start()
    except (paramiko.SSHException, OSError, EOFError):
        pass
    finally:
        transport.close()


def main() -> None:
    port, root, python = int(sys.argv[1]), Path(sys.argv[2]).resolve(), sys.argv[3]
    root.mkdir(parents=True, exist_ok=True)
    job = Job(root, python)
    ports = {}
    for number, service in ((SHIM, "dstack-shim"), (RUNNER, "dstack-runner")):
        server = ThreadingHTTPServer(("127.0.0.1", 0), api(job, service))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ports[number] = server.server_address[1]
    key = paramiko.RSAKey.generate(2048)
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=connection, args=(client, key, ports), daemon=True).start()


if __name__ == "__main__":
    main()
