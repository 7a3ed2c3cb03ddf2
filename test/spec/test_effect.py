"""A key has an effect if what reads it reads it of its own model, not of something else by the same name."""

import types
from typing import Any

import pytest

from slm_lab.spec.basics import SpecModel
from slm_lab.spec.effect import watching


class Inner(SpecModel):
    lr: float = 0.1
    name: str = "a"


class Outer(SpecModel):
    inner: Inner = Inner()
    lr: float = 0.1
    name: str = "b"

    @property
    def twice(self) -> float:
        return 2 * self.lr


class Optim:
    lr = 0.5


class Base:
    def __init__(self, spec: Outer) -> None:
        self.spec, self.optim, self.later = spec, Optim(), None


class ElsewhereByThatName(Base):
    def step(self) -> Any:
        return self.optim.lr, self.spec.name


class Itself(Base):
    def step(self) -> Any:
        return self.spec.lr, self.spec.inner.name


class Local(Base):
    def step(self) -> Any:
        spec = self.spec
        return spec.lr


class LocalInner(Base):
    def step(self) -> Any:
        inner = self.spec.inner
        return inner.lr


class OfAnArgument(Base):
    @staticmethod
    def step(spec: Outer) -> Any:
        return [x.lr for x in (spec,)]


class MadeLater(Base):
    def step(self) -> Any:
        return self.later.lr


class ByProperty(Base):
    def step(self) -> Any:
        return self.spec.twice


class ByText(Base):
    def step(self) -> Any:
        return getattr(self.spec, "lr")  # noqa: B009


GIVEN = {"inner": {"lr": 1.0, "name": "x"}, "lr": 2.0, "name": "y"}


@pytest.mark.parametrize(
    ("cls", "idle"),
    [
        (ElsewhereByThatName, {"inner", "lr"}),
        (Itself, {"inner.lr", "name"}),
        (Local, {"inner", "name"}),
        (LocalInner, {"inner.name", "name"}),
        (OfAnArgument, {"inner", "name"}),
        (MadeLater, {"inner", "name"}),
        (ByProperty, {"inner", "name"}),
        (ByText, {"inner", "name"}),
    ],
)
def test_what_methods_read_later_is_found_by_its_path(cls: type[Base], idle: set[str]) -> None:
    spec = Outer.model_validate(GIVEN)
    with watching(spec) as watch:
        watch.note_later_reads(cls(spec))
    assert set(watch.idle()) == idle


def test_what_a_module_reads_is_found_by_the_name_of_the_block() -> None:
    source = """
def one(run):
    return run.spec.inner.lr, run.info.name

class Two:
    def step(self):
        return self.inner.name
"""
    module = types.ModuleType("made")
    exec(source, vars(module) | {"__name__": "made"}, vars(module))
    for member in ("one", "Two"):
        vars(module)[member].__module__ = "made"
    spec = Outer.model_validate(GIVEN)
    with watching(spec) as watch:
        _ = spec.inner
        watch.note_module(module, inner=spec.inner)
    assert set(watch.idle()) == {"inner.name", "lr", "name"}
