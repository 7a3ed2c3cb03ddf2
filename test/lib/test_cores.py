import os
from pathlib import Path

import pytest

from slm_lab.lib.cores import available_cores


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000\n", 8), ("400000 100000\n", 4), ("1600000 100000\n", 8), ("20000 100000\n", 1), (None, 8)],
)
def test_cores_are_those_of_the_affinity_within_the_quota_of_a_container(
    monkeypatch: pytest.MonkeyPatch, quota: str | None, cores: int
) -> None:
    def read(path: Path, **options: str) -> str:
        if quota is None:
            raise FileNotFoundError(path)
        return quota

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(Path, "read_text", read)
    assert available_cores() == cores
