"""A run that takes a fraction of a second."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from support.specs import TINY, replace

from slm_lab.experiment.session.run import Mode, Options, Run
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Spec]:
    """A small spec; keyword arguments change keys, with `__` for the dots: `meta__max_session=2`."""

    def make(**changes: Any) -> Spec:
        spec = load_spec(TINY)
        for key, value in changes.items():
            spec = replace(spec, key.replace("__", "."), value)
        return spec

    return make


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(out=tmp_path / "data", device="cpu", progress=False)


@pytest.fixture
def new_run(tiny: Callable[..., Spec], options: Options) -> Callable[..., Run]:
    """A session in a new run folder; keyword arguments as for `tiny`."""

    def make(mode: Mode = Mode.TRAIN, session: int = 0, **changes: Any) -> Run:
        spec = tiny(**changes)
        layout = Layout.new(options.out, spec.name)
        layout.make_folders()
        return Run(spec, mode, layout, session=session, options=options)

    return make


@pytest.fixture
def log_text() -> Iterator[list[str]]:
    """Lines of the log, but for those that only files get."""
    lines: list[str] = []
    handler = logger.add(
        lines.append, level="DEBUG", format="{level} {message}", filter=lambda r: "file_only" not in r["extra"]
    )
    yield lines
    logger.remove(handler)
