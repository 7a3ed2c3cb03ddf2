"""The Ray that a search runs on: a cluster that is there already, or one of its own on this machine."""

import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
from loguru import logger
from ray._private import ray_constants

from slm_lab.experiment.trial.stopping import StopRequest
from slm_lab.lib.cores import available_cores
from slm_lab.lib.errors import LabError, first_line, one_line

PREFIX = "slm_ray_"
"""Begins the name of the temporary folder of a Ray that the lab started: by it its processes are known."""
OWNER = "owner.json"
OBJECT_STORE = 100 * 2**20
"""Bytes; what trials of one machine hand to each other is small."""
REACH = 10.0
"""Seconds until an address that does not answer is given up."""
PATIENCE = 20.0
"""Seconds that a search has to save and stop when asked."""
_ENVIRON = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # paths of a spec are those of the folder that the search was started in
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # tables and graphs are the lab's own, so is what a resume needs, and Ctrl-C is handled here
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # sessions learn as fast as they do without Ray, which would make its workers nice
    "RAY_worker_niceness": "0",
    # a machine that was asleep for a while is no broken one
    "RAY_health_check_failure_threshold": "1000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
    # next trials wait for a place one at a time: each is drawn as late as can be
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
}
_LOGGERS = ("ray", "optuna")


@dataclass(frozen=True)
class Cluster:
    """What there is to run on."""

    cpus: int
    """Cores, of all machines together."""
    gpus: float
    largest: int
    """Cores of the machine that has the most."""
    machines: int
    folder: Path
    """For Tune's own files; short-lived."""


@contextmanager
def connected(address: str | None, log: Path, *, gpus: bool) -> Iterator[Cluster]:
    """Ray, while the block lasts.

    Args:
        address: of a cluster, `auto` or host:port. It is left as it was found. None: a Ray of its own is started on
            this machine, with its cores, and stopped in the end.
        log: file that takes what Ray and Optuna say.
        gpus: whether a Ray of its own may use the GPUs.

    Raises:
        LabError: no cluster there.
    """
    with _environ(), _quiet(log):
        folder = _new_folder()
        try:
            with _signals_kept():
                if address is None:
                    _start(folder, gpus)
                else:
                    _join(address, log)
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            cores = [int(resources.get("CPU", 0)) for resources in nodes]
            yield Cluster(
                sum(cores), sum(r.get("GPU", 0.0) for r in nodes), max(cores, default=0), len(nodes), folder / "tune"
            )
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, gpus: bool) -> None:
    """Start a Ray of this search; twice where it does not come up in time, as on a machine that is busy."""
    for again in (False, True):
        try:
            ray.init(
                address="local",
                num_cpus=available_cores(),
                num_gpus=None if gpus else 0,
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                _temp_dir=str(folder),
            )
        except Exception as e:  # Ray raises plain exceptions, too
            if again:
                raise LabError(f"Ray could not be started here: {first_line(e)[:200]}") from e
            ray.shutdown()
            logger.warning("Ray did not start ({}); trying once more", first_line(e)[:200])
        else:
            return


def _join(address: str, log: Path) -> None:
    if "://" in address:
        raise LabError(
            f"--ray-address: '{address}': a search is started on a machine of the cluster: "
            "run `ray start --address=HOST:PORT` here, then give auto or HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdigit()):
        raise LabError(f"--ray-address: must be auto or HOST:PORT (got '{address}')")
    try:
        if host:
            # Ray itself would try for a quarter of an hour
            socket.create_connection((host.strip("[]"), int(port)), REACH).close()
        with _stderr_to(log):
            ray.init(address=address, configure_logging=False, log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as e:
        raise LabError(
            f"--ray-address: no Ray cluster at '{address}' that this machine is part of: {one_line(e)[:300]} "
            "(a cluster that asks for a token: RAY_AUTH_MODE=token)"
        ) from e


@contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """What Ray's C++ writes to standard error, past all loggers, goes to a file."""
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@contextmanager
def _environ() -> Iterator[None]:
    # Ray sets the mode of a Ray of its own for the whole process
    names = (*_ENVIRON, "RAY_AUTH_MODE")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(_ENVIRON)
    # under `uv run` Ray would build each worker an environment from a copy of the working folder, without extras;
    # it looks at the variable RAY_ENABLE_UV_RUN_RUNTIME_ENV only once, at its import
    by_uv = ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    try:
        yield
    finally:
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = by_uv
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """What Ray and Optuna log goes to a file, and to no terminal."""
    handler = logging.FileHandler(log, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s %(message)s"))
    handler.addFilter(lambda record: record.name.partition(".")[0] in _LOGGERS)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(one.handlers, one.propagate) for one in loggers]
    for one in loggers:
        # by way of the root: Ray removes what is attached to its own logger
        one.handlers, one.propagate = [], True
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        for one, kept in zip(loggers, before, strict=True):
            one.handlers, one.propagate = kept
        handler.close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray handles SIGTERM itself once it is started, and ends the process on the spot; here a search saves first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in StopRequest.signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _new_folder() -> Path:
    """A folder whose path is short: that of a socket in it may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_bases()[-1]))
    owner = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    (folder / OWNER).write_text(json.dumps(owner), encoding="utf-8")
    return folder


def stop_ray() -> list[str]:
    """Stop every Ray that a lab of this user started on this machine, and the searches that run on them.

    A search that runs saves first, and can be resumed. Clusters that were there already are not touched.

    Returns:
        What was stopped, a line each.
    """
    told = []
    for folder in _folders():
        owner = _owner(folder)
        if owner is not None:
            owner.terminate()
            with suppress(psutil.TimeoutExpired):
                owner.wait(PATIENCE)
            told.append(f"stopped the search of process {owner.pid}")
        left = _processes(folder)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if left:
            psutil.wait_procs(left, timeout=PATIENCE)
            told.append(f"stopped {len(left)} processes of Ray, {folder}")
        shutil.rmtree(folder, ignore_errors=True)
    return told


def _bases() -> list[Path]:
    """Where temporary folders of Ray may be; new ones are made in the last."""
    if told := os.environ.get("RAY_TMPDIR"):
        return [Path(told)]
    bases = [Path("/tmp"), Path(tempfile.gettempdir())]
    return [base for base in bases if base.is_dir() and len(str(base)) <= 24] or bases[1:]


def _folders() -> list[Path]:
    """Temporary folders of this user's labs."""
    found = [p for base in dict.fromkeys(_bases()) for p in sorted(base.glob(f"{PREFIX}*"))]
    return [p for p in found if p.is_dir() and p.stat().st_uid == os.getuid()]


def _owner(folder: Path) -> psutil.Process | None:
    """The search that the folder belongs to, if it is still alive."""
    with suppress(OSError, ValueError, KeyError, psutil.Error):
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        process = psutil.Process(int(owner["pid"]))
        # the number may have been given to another process since
        if process.pid != os.getpid() and process.create_time() == owner["started"]:
            return process
    return None


def _processes(folder: Path) -> list[psutil.Process]:
    """Processes of this user whose command line names the folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = process.uids().real == os.getuid() and process.pid != os.getpid()
            if mine and any(f"{folder}" in word for word in process.cmdline()):
                found.append(process)
    return found
