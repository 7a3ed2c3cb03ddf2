"""What every test gets: one torch thread, no window, and none of the developer's own settings."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# not to be searched for doctests: one runs in the environment of the dstack server, one registers an env when imported
collect_ignore = ["support/gates.py", "support/ladder.py", "support/machine.py"]

# read when the libraries are imported, by subprocesses too
os.environ["MPLBACKEND"] = "Agg"
os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "160"
for name in (
    "LOG_METRICS",
    "LOG_EXTRA",
    "LOG_LEVEL",
    "RENDER",
    "PROFILE",
    "KEEP_TRIALS",
    "CUDA_OFFSET",
    "HF_TOKEN",
    "HF_REPO",
    "FORCE_COLOR",
):
    os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers of `-n auto`: one a core that this process may use; none for single files, and for the one GPU."""
    if config.args_source is pytest.Config.ArgsSource.ARGS or config.option.markexpr == "gpu":
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file stays with one worker, and all that starts Ray with the same one."""
    for item in items:
        ray = item.path.parent.name == "search"
        item.add_marker(pytest.mark.xdist_group("ray" if ray else str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small nets are slower on more threads, and sums may then differ in their last bit."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """No test pulls the plug: what is written need not reach the disk before the next step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that is complete; to be read only."""
    from support.specs import TINY

    from slm_lab import api

    return api.run(TINY, out=tmp_path_factory.mktemp("finished") / "data", device="cpu").folder


@pytest.fixture
def no_nohup() -> Iterator[None]:
    """SIGHUP as a terminal has it: whoever runs the tests may have had it ignored, which children inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
