"""A Ray that does not start: tried once more, then told in one line."""

from pathlib import Path
from typing import Any

import pytest

from slm_lab.experiment.search import cluster
from slm_lab.lib.errors import LabError


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_slow_start_is_tried_once_more(failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def init(**kwargs: Any) -> None:
        calls.append(kwargs)
        if len(calls) <= failures:
            raise Exception("The current node timed out during startup.\nline 2\nline 3")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    if failures == 2:
        with pytest.raises(LabError) as e:
            cluster._start(tmp_path, gpus=False)
        assert str(e.value) == "Ray could not be started here: The current node timed out during startup."
    else:
        cluster._start(tmp_path, gpus=False)
    assert len(calls) == min(failures + 1, 2)
