"""-s key=value."""

from typing import Any

import numpy as np
import pytest

from slm_lab.spec.variables import apply_sets, as_texts, fill, key_paths, parse_value, short_env, variables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("1e7", 10_000_000),
        ("3e-4", 3e-4),
        (" 0.0 ", 0),
        ("9007199254740993", 2**53 + 1),
        ("true", True),
        ("False", False),
        ("null", None),
        ("[64, 64]", [64, 64]),
        ("[64", "[64"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1e999", "1e999"),
        ("", ""),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
    ],
)
def test_values(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_fill() -> None:
    data = {"a": "${n}", "b": ["x-${n}-${m}", 3], "c": {"d": "${other}"}}
    filled = fill(data, {"n": "1e3", "m": "2"})
    assert filled == {"a": 1000, "b": ["x-1e3-2", 3], "c": {"d": "${other}"}}
    assert variables(data) == {"n": ["a", "b[0]"], "m": ["b[0]"], "other": ["c.d"]}
    assert variables(filled) == {"other": ["c.d"]}


@pytest.fixture
def spec() -> dict[str, Any]:
    return {"agent": {"algorithm": {"gamma": 0.9}, "name": "a"}, "env": {"name": "${env}", "max_frame": "${max_frame}"}}


def test_sets(spec: dict[str, Any]) -> None:
    sets = {"env": "X-v1", "max_frame": "1e3", "agent.algorithm.gamma": "0.5", "agent.net.hid_layers": "[1]"}
    result, faults = apply_sets(spec, sets)
    assert faults == []
    assert result["env"] == {"name": "X-v1", "max_frame": 1000}
    assert result["agent"]["algorithm"] == {"gamma": 0.5}
    assert result["agent"]["net"] == {"hid_layers": [1]}
    assert spec["agent"]["algorithm"] == {"gamma": 0.9}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "max_frames",
            "-s max_frames: no ${max_frames} in this spec, did you mean 'max_frame'? (variables: env, max_frame)",
        ),
        ("zzz", "-s zzz: no ${zzz} in this spec (variables: env, max_frame)"),
        ("agnt.algorithm.gamma", "-s agnt.algorithm.gamma: no such key path, did you mean 'agent.algorithm.gamma'?"),
        ("agent.name.x", "-s agent.name.x: no such key path (what holds it is not an object)"),
    ],
)
def test_unused_sets(spec: dict[str, Any], key: str, message: str) -> None:
    assert apply_sets(spec, {key: "1"})[1] == [message]


def test_a_spec_without_variables(spec: dict[str, Any]) -> None:
    spec["env"] = {}
    text = "-s env: this spec has no variables (to set a key, give its whole path, such as env.max_frame)"
    assert apply_sets(spec, {"env": "1"})[1] == [text]


def test_key_paths(spec: dict[str, Any]) -> None:
    assert key_paths(spec)[:4] == ["agent", "agent.algorithm", "agent.algorithm.gamma", "agent.name"]


@pytest.mark.parametrize(
    ("name", "short"), [("ALE/MsPacman-v5", "mspacman"), ("CartPole-v1", "cartpole"), ("a/b/C", "c")]
)
def test_short_env(name: str, short: str) -> None:
    assert short_env(name) == short


def test_numbers_of_numpy_are_numbers() -> None:
    sets = {"a": np.int64(400), "b": np.float32(0.5), "c": [np.int32(8), np.bool_(True)], "d": np.array([8, 16])}
    assert as_texts(sets) == {"a": "400", "b": "0.5", "c": "[8, true]", "d": "[8, 16]"}
