"""Toy classes in place of the real ones: what is tested here must not change when an algorithm is added."""

from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from slm_lab.lib import registry
from slm_lab.lib.log import renew_notes
from slm_lab.spec.model import (
    AlgorithmSpec,
    Count,
    MemorySpec,
    NetSpec,
    NonNegativeSchedule,
    SinkSpec,
    Unit,
    with_role_keys,
)


class ClimberSpec(AlgorithmSpec):
    """Keys of Climber."""

    lam: Unit | None = 0.95
    """Patience."""
    horizon: Count
    """Steps of a climb."""
    clip_eps_spec: NonNegativeSchedule | None = None
    """How far it trusts itself."""
    clip_vloss: bool = False
    """Clips."""
    reward_scale: float | bool | list[int] = 1.0
    """Of a kind or another."""


class RopeSpec(MemorySpec):
    """Keys of Rope."""

    max_size: Count = 100
    """Its length."""


@with_role_keys
class BootSpec(NetSpec):
    """Keys of Boot."""

    hid_layers: list[Count]
    """Widths."""


class SpringSpec(SinkSpec):
    """Keys of the toy sink."""

    depth: Count = 1


def _toy(name: str, spec: type, **attributes: Any) -> type:
    return type(name, (), {"Spec": spec, **attributes})


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry knows Climber and Walker (on-policy), Rope (on-policy) and Bag (replay), Boot; nothing else."""
    monkeypatch.setattr(
        registry,
        "_classes",
        {
            "algorithm": {n: _toy(n, ClimberSpec, on_policy=True) for n in ("Climber", "Walker")},
            "memory": {"Rope": _toy("Rope", RopeSpec, on_policy=True), "Bag": _toy("Bag", RopeSpec, on_policy=False)},
            "net": {"Boot": _toy("Boot", BootSpec)},
            "sink": {"Spring": _toy("Spring", SpringSpec)},
        },
    )
    monkeypatch.setattr(registry, "_swept", set(registry.PACKAGES))


@pytest.fixture
def raw(toys: None) -> dict[str, Any]:
    """A whole spec that is in order, as it stands in a file."""
    return {
        "agent": {
            "name": "Heidi",
            "algorithm": {"name": "Climber", "horizon": 8},
            "memory": {"name": "Rope"},
            "net": {"type": "Boot", "hid_layers": [4, 4]},
        },
        "env": {"name": "CartPole-v1", "max_frame": 1000},
        "meta": {"max_session": 2},
    }


@pytest.fixture
def notes() -> Iterator[list[str]]:
    """What is logged at level info."""
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}")
    yield lines
    logger.remove(sink)
