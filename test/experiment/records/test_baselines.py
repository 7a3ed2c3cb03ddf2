"""The random baselines."""

import math

from loguru import logger

from slm_lab.experiment.records import baselines
from slm_lab.experiment.records.baselines import baseline


def test_known():
    assert baseline("CartPole-v1") == 22.97
    assert baseline("ALE/Pong-v5") == -20.2


def test_unknown_is_zero_and_noted_once():
    lines = []
    handler = logger.add(lines.append, level="INFO", format="{message}")
    try:
        assert baseline("Nobody-v7") == baseline("Nobody-v7") == 0.0
    finally:
        logger.remove(handler)
    assert len(lines) == 1
    assert "Nobody-v7" in lines[0]


def test_every_entry_is_a_number():
    table = baselines.baselines()
    assert len(table) > 100
    for entry in table.values():
        assert math.isfinite(entry["mean"])
        assert entry["std"] is None or entry["std"] >= 0
