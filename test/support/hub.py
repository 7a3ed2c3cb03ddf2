"""A stand-in for the server side of the Hugging Face Hub, on loopback: enough of its HTTP for the real client.

No upload-capable hub can be installed, so the tests and the end-to-end run talk to this. It keeps everything in memory.
Faults are asked for by the test: answers with a status, dropped connections, connections that say nothing any more.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".pt", ".safetensors", ".png")
PAGE = 20
"""Entries of a page of a listing: few, so that paging is tested."""


@dataclass(frozen=True)
class Entry:
    """A file of a commit."""

    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass
class Repo:
    """A dataset repository."""

    commits: list[tuple[str, dict[str, Entry]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def commit(self, message: str, files: dict[str, Entry]) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {message} {sorted(files)}".encode()).hexdigest()
        self.commits.append((sha, files))
        self.messages.append(message)
        return sha

    @property
    def files(self) -> dict[str, Entry]:
        """Of the newest commit."""
        return self.commits[-1][1]

    def at(self, revision: str) -> tuple[str, dict[str, Entry]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((c for c in self.commits if c[0] == revision), None)


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind."""

    method: str
    path: str
    """Regular expression, searched for in the path."""
    how: int | str
    """A status; `drop`: the connection is closed in the middle; `hang`: nothing is answered; `cut`: half the answer."""
    times: int


class StandInHub:
    """Use as a context manager. `url` is what HF_ENDPOINT must be; `token` the one token that is good for all."""

    def __init__(self, token: str = "hf_standin_token_of_the_tests", *, private: bool = False) -> None:
        self.token = token
        self.private = private
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        """Large files by sha256."""
        self.requests: list[tuple[str, str]] = []
        """Method and path of all that was asked."""
        self.faults: list[Fault] = []
        self.before_commit: Callable[[Repo], None] | None = None
        """Called once before the next commit is taken in: somebody else's may come first."""
        self.lock = threading.RLock()
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, path: str, how: int | str, times: int = 1) -> None:
        """Let the next `times` requests fail."""
        self.faults.append(Fault(method, path, how, times))

    def count(self, method: str, path: str) -> int:
        """Requests so far."""
        return sum(m == method and re.search(path, p) is not None for m, p in self.requests)

    def put(self, repo: str, files: dict[str, bytes]) -> None:
        """Commit files as somebody else would; names are taken as they are, hostile ones too."""
        with self.lock:
            found = self.repos.setdefault(repo, Repo())
            old = found.commits[-1][1] if found.commits else {}
            new = {path: Entry(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
            found.commit("put", {**old, **new})

    def next_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None


def _handler(hub: StandInHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            path, self.query = unquote(parts.path), parse_qs(parts.query)
            with hub.lock:
                hub.requests.append((self.command, path))
                fault = hub.next_fault(self.command, path)
            self.cut = fault is not None and fault.how == "cut"
            if fault is not None and fault.how == "drop":
                self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
                self.connection.close()
                self.close_connection = True
                return
            if fault is not None and fault.how == "hang":
                hub.released.wait(60)
                self.close_connection = True
                return
            body = self._body()
            if fault is not None and isinstance(fault.how, int):
                self._json(fault.how, {"error": f"made to answer {fault.how}"})
                return
            with hub.lock:
                self._route(path, body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if self.cut:
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True
                return
            self.wfile.write(data)

        def _json(self, status: int, content: Any, **headers: str) -> None:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **named})

        def _authorized(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {hub.token}"

        def _no(self, status: int, code: str, message: str) -> None:
            self._json(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

        def _route(self, path: str, body: bytes) -> None:  # noqa: PLR0911  a table of pages
            if match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
                return self._lfs_object(match[1], body)
            if self.headers.get("Authorization") and not self._authorized():
                return self._json(401, {"error": "Invalid credentials in Authorization header"})
            if path in ("/api/whoami-v2", "/api/repos/create") and not self._authorized():
                return self._json(401, {"error": "Invalid username or password."})
            if path == "/api/whoami-v2":
                return self._json(200, {"name": "tester", "type": "user", "orgs": []})
            if path == "/api/validate-yaml":
                return self._json(200, {"errors": [], "warnings": []})
            if path == "/api/repos/create":
                return self._create(json.loads(body))
            if path == "/lfs/verify":
                return self._json(200, {})
            found = re.match(r"(?:/api)?/datasets/([^/]+/[^/.]+)(?:\.git)?(?:/(.*))?$", path)
            repo = hub.repos.get(found[1]) if found else None
            if found is None or repo is None or (hub.private and not self._authorized()):
                return self._no(404 if self._authorized() else 401, "RepoNotFound", "Repository not found")
            if self.command == "POST" and not self._authorized():
                return self._json(403, {"error": "You don't have the rights to write"})
            return self._repo(found[1], repo, found[2] or "", body)

        def _create(self, wanted: dict[str, Any]) -> None:
            name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
            url = f"{hub.url}/datasets/{name}"
            if name in hub.repos:
                return self._json(409, {"error": "You already created this dataset repo", "url": url})
            hub.repos[name] = Repo()
            hub.repos[name].commit("initial commit", {".gitattributes": Entry(b"*.pt filter=lfs\n", False)})
            return self._json(200, {"url": url, "name": name})

        def _repo(self, name: str, repo: Repo, rest: str, body: bytes) -> None:  # noqa: PLR0911
            if rest.startswith("preupload/"):
                return self._preupload(repo, json.loads(body))
            if rest == "info/lfs/objects/batch":
                return self._batch(json.loads(body))
            if rest.startswith("commit/"):
                return self._commit(name, repo, body)
            if rest.startswith("resolve/"):
                _, revision, path = rest.split("/", 2)
                return self._resolve(repo, revision, path)
            if rest.startswith("tree/"):
                _, revision, folder = [*rest.split("/", 2), ""][:3]
                return self._tree(repo, revision, folder)
            if rest == "" or rest.startswith("revision/"):
                found = repo.at(rest.partition("/")[2] or "main")
                if found is None:
                    return self._no(404, "RevisionNotFound", "Invalid rev id")
                return self._json(200, {"id": name, "sha": found[0], "private": hub.private, "siblings": []})
            return self._no(404, "EntryNotFound", f"no such page: {rest}")

        def _preupload(self, repo: Repo, wanted: dict[str, Any]) -> None:
            answers = []
            for file in wanted["files"]:
                old = repo.files.get(file["path"])
                mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
                oid = old.etag if old is not None else None
                answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self._json(200, {"files": answers})

        def _batch(self, wanted: dict[str, Any]) -> None:
            objects = []
            for one in wanted["objects"]:
                answer = {"oid": one["oid"], "size": one["size"]}
                if one["oid"] not in hub.objects:
                    upload = {"href": f"{hub.url}/lfs/{one['oid']}?signature=not-to-be-printed"}
                    answer["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/lfs/verify"}}
                objects.append(answer)
            self._json(200, {"transfer": "basic", "objects": objects})

        def _lfs_object(self, sha: str, body: bytes) -> None:
            if self.command == "PUT":
                if hashlib.sha256(body).hexdigest() != sha:
                    return self._json(400, {"error": "the hash does not fit"})
                hub.objects[sha] = body
                return self._send(200, b"", {"ETag": f'"{sha}"'})
            if self.headers.get("Authorization"):
                return self._json(400, {"error": "the token must not be sent to the storage"})
            data = hub.objects.get(sha)
            if data is None:
                data = next(e.data for r in hub.repos.values() for e in r.files.values() if e.sha256 == sha)
            return self._send(200, data, {"Content-Type": "application/octet-stream"})

        def _commit(self, name: str, repo: Repo, body: bytes) -> None:
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            header = next(line["value"] for line in lines if line["key"] == "header")
            if hub.before_commit is not None:
                meddle, hub.before_commit = hub.before_commit, None
                meddle(repo)
            if header.get("parentCommit") not in (None, repo.commits[-1][0]):
                return self._json(412, {"error": "A commit has happened since. Please refresh and try again."})
            files = dict(repo.files)
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = Entry(base64.b64decode(value["content"]), False)
                elif line["key"] == "lfsFile":
                    if value["oid"] not in hub.objects:
                        return self._json(400, {"error": f"no object {value['oid']}"})
                    files[value["path"]] = Entry(hub.objects[value["oid"]], True)
                elif line["key"] == "deletedFile":
                    files.pop(value["path"], None)
            sha = repo.commit(header["summary"], files)
            url = f"{hub.url}/datasets/{name}/commit/{sha}"
            return self._json(200, {"success": True, "commitUrl": url, "commitOid": sha})

        def _tree(self, repo: Repo, revision: str, folder: str) -> None:
            found = repo.at(revision)
            if found is None:
                return self._no(404, "RevisionNotFound", "Invalid rev id")
            prefix = f"{folder.rstrip('/')}/" if folder else ""
            recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
            entries: dict[str, dict[str, Any]] = {}
            for path, entry in found[1].items():
                if not path.startswith(prefix):
                    continue
                below = path[len(prefix) :].split("/")
                for depth in range(1, len(below)):
                    if recursive or depth == 1:
                        inner = prefix + "/".join(below[:depth])
                        entries[inner] = {"type": "directory", "path": inner, "oid": "0" * 40, "size": 0}
                if recursive or len(below) == 1:
                    entries[path] = {"type": "file", "path": path, "oid": entry.oid, "size": len(entry.data)}
                    if entry.lfs:
                        lfs = {"oid": entry.sha256, "size": len(entry.data), "pointerSize": 130}
                        entries[path]["lfs"] = lfs
            if folder and not entries:
                return self._no(404, "EntryNotFound", f"{folder} does not exist")
            listed = sorted(entries.values(), key=lambda e: str(e["path"]))
            first = int(self.query.get("cursor", ["0"])[0])
            headers = {}
            if first + PAGE < len(listed):
                query = f"recursive={str(recursive).lower()}&expand=false&cursor={first + PAGE}"
                headers["Link"] = f'<{hub.url}{urlsplit(self.path).path}?{query}>; rel="next"'
            return self._json(200, listed[first : first + PAGE], **headers)

        def _resolve(self, repo: Repo, revision: str, path: str) -> None:
            found = repo.at(revision)
            entry = found[1].get(path) if found else None
            if found is None or entry is None:
                code = "EntryNotFound" if found else "RevisionNotFound"
                return self._no(404, code, "Entry not found")
            headers = {"X-Repo-Commit": found[0], "ETag": f'"{entry.etag}"'}
            if not entry.lfs:
                return self._send(200, entry.data, headers)
            # another host: the client must not follow it on HEAD, nor send the token there
            headers["Location"] = f"http://localhost:{hub.port}/lfs/{entry.sha256}"
            headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(len(entry.data))}
            return self._send(302, b"", headers)

    return Handler


if __name__ == "__main__":
    with StandInHub() as standin:
        print(standin.url, standin.token, flush=True)
        while True:
            time.sleep(3600)
