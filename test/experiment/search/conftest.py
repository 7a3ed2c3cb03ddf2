"""Searches that take seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.specs import replace

from slm_lab.experiment.search.journal import Journal
from slm_lab.spec.model import Spec

Search = Callable[..., Spec]


@pytest.fixture(scope="session")
def searched(tiny: Callable[..., Spec]) -> Search:
    """The tiny spec with a search block; keyword arguments as for `tiny`, but for `search`, which is the block."""

    def make(search: dict[str, Any] | None = None, **changes: Any) -> Spec:
        block = {"agent.algorithm.lr__loguniform": [1e-4, 1e-1]} if search is None else search
        return replace(tiny(**{"meta__max_trial": 4, **changes}), "search", block)

    return make


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "search.json")
