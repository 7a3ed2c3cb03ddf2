"""The real client against the stand-in of the hub's server side."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger
from rich.progress import Progress
from support.hub import StandInHub

from slm_lab.lib.layout import Layout
from slm_lab.remote.account import Account
from slm_lab.remote.hub import Hub

REPO = "tester/runs"


@pytest.fixture
def server() -> Iterator[StandInHub]:
    with StandInHub() as standin:
        yield standin


@pytest.fixture
def connect(server: StandInHub) -> Callable[..., Hub]:
    """A client of the repository; keyword arguments are fields of the account."""

    def make(**changes: object) -> Hub:
        fields = {"repo": REPO, "token": server.token, "endpoint": server.url, "timeout": 20.0, "patience": 20.0}
        return Hub(Account(**{**fields, **changes}))  # type: ignore[arg-type]

    return make


@pytest.fixture
def hub(connect: Callable[..., Hub]) -> Hub:
    """A client of the repository, which there is."""
    made = connect()
    made.ensure()
    return made


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Layout:
    """A complete run folder of the test's own."""
    root = tmp_path / "data" / finished_run.name
    shutil.copytree(finished_run, root)
    return Layout.open(root)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What was logged."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), level="DEBUG", format="{message}")
    yield lines
    logger.remove(handler)


@pytest.fixture
def watcher() -> Progress:
    """Sees what comes, and shows nothing."""
    return Progress(disable=True)
