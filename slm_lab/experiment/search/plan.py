"""What all trials of a search have in common, as it is sent to their processes."""

from dataclasses import dataclass
from typing import Any

from slm_lab.experiment.session.run import Options


@dataclass(frozen=True)
class Plan:
    """Plain data."""

    spec: dict[str, Any]
    """As the user wrote it: classes of plugins can't be unpickled before they are imported."""
    root: str
    """The run folder, on the machine that the search was started on."""
    name: str
    """Of the spec."""
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
