"""A dataset repository on the Hugging Face Hub; the only module that imports huggingface_hub.

Every request has a time limit and is repeated with growing waits while its failure may pass; what is told of a failure
never holds the token or a signed address. A commit is atomic: all of its files, or none.
"""

import hashlib
import importlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from slm_lab.lib.errors import LabError
from slm_lab.remote import failures
from slm_lab.remote.account import Account

T = TypeVar("T")
_CONFLICT = 412
# the transfer that is tested, and nothing sent that was not asked for; read when the library is imported
_SETTINGS = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}


class HubError(LabError):
    """The hub can't be reached, refused something, or gave what it should not."""


class ConflictError(HubError):
    """Somebody else has committed since the revision that a commit was based on."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    path: str
    size: int
    digest: str
    """SHA-256 of a large file, git's SHA-1 of a small one."""

    def is_at(self, path: Path) -> bool:
        """Whether a local file is the same, by size and hash."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        return digest(path, like=self.digest) == self.digest


def digest(path: Path, like: str) -> str:
    """Hash of a file, of the kind that another one is: SHA-256 (64 digits) or git's SHA-1 of a blob (40)."""
    sha = hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: sha).hexdigest()


class Hub:
    """A dataset repository."""

    def __init__(self, account: Account) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import huggingface_hub  # half a second: not for who only asks for help

        # that of `hf auth login` too is hidden in what is told
        self.account = account = replace(account, token=account.token or huggingface_hub.get_token())
        self._lib = huggingface_hub
        self._api = huggingface_hub.HfApi(endpoint=account.endpoint, token=account.token or False)
        self._where: dict[str, Any] = {"repo_id": account.repo, "repo_type": "dataset"}
        huggingface_hub.set_client_factory(self._client)
        importlib.import_module("huggingface_hub.utils").disable_progress_bars()
        log = logging.getLogger("huggingface_hub")
        log.handlers[:] = [_Forward(account)]
        log.propagate = False

    def ensure(self) -> None:
        """Make sure that there is a repository to write to, and that the token is good.

        Raises:
            HubError: no token, or it is refused.
        """
        if not self.account.token:
            raise HubError(
                "HF_TOKEN is not set: an access token with write permission is needed. Make one at "
                f"{self.account.endpoint}/settings/tokens and set it in the shell or in .env (never commit it); "
                ".env.example explains"
            )
        self._call("checking the token", self._api.whoami)
        self._call("making the repository", lambda: self._api.create_repo(**self._where, exist_ok=True))

    def head(self) -> str:
        """The newest revision."""
        info = self._call("asking for the repository", lambda: self._api.repo_info(**self._where))
        return str(info.sha)

    def folders(self, path: str, revision: str) -> list[str]:
        """Names of the folders in a folder; none where there is no such folder."""
        return [e.path.rpartition("/")[2] for e in self._tree(path, revision, False) if not hasattr(e, "blob_id")]

    def files(self, path: str, revision: str) -> list[RemoteFile]:
        """All files below a folder."""
        return [
            RemoteFile(e.path, e.size, e.lfs.sha256 if e.lfs is not None else e.blob_id)
            for e in self._tree(path, revision, True)
            if hasattr(e, "blob_id")
        ]

    def read(self, path: str, revision: str) -> str | None:
        """The text of a small file; None where there is none."""
        with tempfile.TemporaryDirectory() as folder:
            found = self._look_for(f"reading {path}", lambda: self._fetch(path, revision, folder))
            return None if found is None else Path(found).read_text(encoding="utf-8", errors="replace")

    def download(
        self, file: RemoteFile, revision: str, folder: Path, advance: Callable[[int], None] = lambda count: None
    ) -> Path:
        """Fetch one of `files`, whose path must be known to be harmless, to somewhere below a folder.

        `advance` is called with the number of bytes that came.

        Returns:
            Its path; size and hash are those the hub reports.
        """
        bar = self._bar(advance)

        def fetch() -> Path:
            path = Path(self._fetch(file.path, revision, str(folder), tqdm_class=bar, force_download=True))
            if not file.is_at(path):
                raise failures.DamagedError(f"{file.path}: what came is not what the hub announced")
            return path

        return self._call(f"fetching {file.path}", fetch)

    def commit(self, files: Mapping[str, Path | bytes], message: str, parent: str) -> None:
        """Add or replace files, all or none. What is the same on the hub is not sent again.

        Raises:
            ConflictError: that is no longer the newest revision.
            HubError: anything else; nothing is changed then.
        """
        add = self._lib.CommitOperationAdd

        def send() -> None:
            operations = [add(path_in_repo=path, path_or_fileobj=source) for path, source in files.items()]
            self._api.create_commit(**self._where, operations=operations, commit_message=message, parent_commit=parent)

        self._call("uploading", send)

    def _tree(self, path: str, revision: str, recursive: bool) -> list[Any]:
        options = {**self._where, "path_in_repo": path, "recursive": recursive, "revision": revision}
        return self._look_for(f"listing {path}", lambda: list(self._api.list_repo_tree(**options))) or []

    def _fetch(self, path: str, revision: str, folder: str, **options: Any) -> str:
        return self._api.hf_hub_download(**self._where, filename=path, revision=revision, local_dir=folder, **options)

    def _look_for(self, what: str, attempt: Callable[[], T]) -> T | None:
        """As `_call`; None where the repository has no such file or folder."""

        def look() -> T | None:
            try:
                return attempt()
            except self._lib.errors.EntryNotFoundError:
                return None

        return self._call(what, look)

    def _call(self, what: str, attempt: Callable[[], T]) -> T:
        def told(error: Exception, wait: float) -> None:
            why = failures.reason(error, self.account)
            logger.warning("hub: {}: {}; trying again in {:.0f} s", what, why, wait)

        try:
            return failures.retry(attempt, patience=self.account.patience, told=told)
        except Exception as e:
            if not failures.known(e):
                raise
            kind = ConflictError if failures.status(e) == _CONFLICT else HubError
            raise kind(f"hub: {what}: {failures.reason(e, self.account)}") from None

    def _client(self) -> Any:
        client = self._lib.utils._http.default_client_factory()
        seconds = self.account.timeout

        def limit(request: Any) -> None:
            # the library asks for no limit at all in some of its calls
            given = request.extensions.get("timeout") or {}
            kinds = ("connect", "read", "write", "pool")
            request.extensions["timeout"] = {kind: min(given.get(kind) or seconds, seconds) for kind in kinds}

        client.event_hooks = {"request": [*client.event_hooks["request"], limit], "response": []}
        return client

    def _bar(self, advance: Callable[[int], None]) -> type:
        class Bar(self._lib.utils.tqdm):  # type: ignore[name-defined]
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **{**options, "disable": True})

            def update(self, n: float | None = 1) -> None:
                advance(int(n or 0))

        return Bar


class _Forward(logging.Handler):
    """The library's own messages, without signed addresses and token, into the log."""

    def __init__(self, account: Account) -> None:
        super().__init__(logging.WARNING)
        self._account = account

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("No files have been modified"):
            return  # what was to be uploaded is there: as it should be
        logger.warning("hub: {}", failures.without_queries(self._account.hide(record.getMessage())))
