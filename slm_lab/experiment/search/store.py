"""Where a trial's files are: in the run folder, or on the disk of another machine, which sends them to it."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from slm_lab.experiment.session.run import Options
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_atomic
from slm_lab.lib.layout import Layout

INTERVAL = 5.0
"""Least seconds between two sendings; and never more than a twentieth of the time goes into them."""
Files = dict[str, bytes]
"""Path in the run folder -> content."""


@dataclass(frozen=True)
class Plan:
    """What all trials of a search have in common, as plain data that is sent to their processes."""

    spec: dict[str, Any]
    """As the user wrote it: classes of plugins can't be unpickled before they are imported."""
    layout: Layout
    """The run folder, on the machine that the search was started on."""
    options: Options
    cpu: int
    """Cores that a trial was given."""
    workers: int
    """Sessions of a trial that run at a time."""
    gpu: float
    """GPUs, or a share of one."""
    token: str
    """Content of a file in the run folder: who reads it there shares the disk."""
    receiver: Any = None
    """Ray actor that takes files back to the run folder; None: every machine shares the disk."""


class Store:
    """The files of one trial, as the process that runs it sees them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.layout = plan.layout
        self.is_remote = plan.receiver is not None and not has_token(self.layout, plan.token)
        """The run folder is on another machine."""
        if self.is_remote:
            # named after the run, so that a trial that comes back to this machine finds what it left
            base = Path(tempfile.gettempdir()) / f"slm_lab_search_{os.getuid()}"
            self.layout = Layout(base / plan.layout.root.name, plan.layout.name)
        self._sent: dict[str, tuple[int, int]] = {}
        self._due = 0.0

    def open(self, trial: int) -> Layout:
        """The folder to run the trial in. What the run folder has of it is there."""
        self.layout.make_folders()
        if self.is_remote:
            self.clear(trial)
            files: Files = ray.get(self._plan.receiver.fetch.remote(trial))
            write_files(self.layout, files)
            self._sent = {name: self._stamp(name) for name in files}
        return self.layout

    def clear(self, trial: int) -> None:
        """Delete what there is of the trial."""
        for path in self.layout.trial_files(trial):
            path.unlink(missing_ok=True)

    def send(self, trial: int, *, last: bool = False) -> None:
        """Send what is new to the run folder, where that is on another machine and it is time.

        The last time, when the trial is over, it is sent in any case, and nothing stays here.
        """
        if not self.is_remote or not (last or time.monotonic() >= self._due):
            return
        begun = time.monotonic()
        names = [path.relative_to(self.layout.root).as_posix() for path in self.layout.trial_files(trial)]
        stamps = {name: self._stamp(name) for name in names if not name.endswith(".tmp")}
        new = {name: stamp for name, stamp in stamps.items() if self._sent.get(name) != stamp}
        if new:
            files = {name: (self.layout.root / name).read_bytes() for name in new}
            ray.get(self._plan.receiver.receive.remote(files))
            self._sent |= new
        now = time.monotonic()
        self._due = now + max(INTERVAL, 20 * (now - begun))
        if last:
            self.clear(trial)

    def _stamp(self, name: str) -> tuple[int, int]:
        stat = (self.layout.root / name).stat()
        return stat.st_mtime_ns, stat.st_size


class Receiver:
    """On the machine of the run folder: takes files into it, and gives them out."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def sees(self, token: str) -> bool:
        """Whether the run folder is where this process runs."""
        return has_token(self._layout, token)

    def receive(self, files: Files) -> None:
        """Write them."""
        write_files(self._layout, files)

    def fetch(self, trial: int) -> Files:
        """All files of a trial."""
        paths = self._layout.trial_files(trial)
        return {p.relative_to(self._layout.root).as_posix(): p.read_bytes() for p in paths}


def start_receiver(layout: Layout, token: str) -> Any:
    """The receiver, on this machine."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(Receiver)
    receiver = actor.options(scheduling_strategy=here).remote(layout)
    if not ray.get(receiver.sees.remote(token)):
        raise LabError(f"{layout.root}: the Ray of this machine does not see this folder (another container, or user?)")
    return receiver


def has_token(layout: Layout, token: str) -> bool:
    """Whether this is the run folder itself: its run file holds what it holds where the search was started."""
    try:
        return layout.run_file().read_text(encoding="utf-8") == token
    except OSError:
        return False


def write_files(layout: Layout, files: Files) -> None:
    """Write files into a run folder; only into it."""
    for name, content in files.items():
        path = (layout.root / name).resolve()
        if not path.is_relative_to(layout.root.resolve()):
            raise ValueError(f"{name}: leads out of the run folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
