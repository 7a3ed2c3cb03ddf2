"""How many cores this process has."""

import os
from contextlib import suppress
from pathlib import Path


def available_cores() -> int:
    """Cores this process may use: its affinity and its container's quota, whichever is less; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, round(float(quota) / float(period)))
    return max(1, cores)
