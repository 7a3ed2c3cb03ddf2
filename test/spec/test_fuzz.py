"""Whatever a file holds, the loader gives a spec or a SpecError, soon."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_lab.env.check import check_env
from slm_lab.lib.errors import SpecError
from slm_lab.spec.files import find_file
from slm_lab.spec.load import check, load_spec, read_file
from slm_lab.spec.model import Spec

QUICK = settings(
    max_examples=100,
    deadline=2000,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAMES = ["${x}", "Climber", "Boot", "CartPole-v1", "linear_decay", "auto", "\ud800", "1e9", "a.b"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(NAMES)
KEYS = st.sampled_from(["name", "lr", "x", ""])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
WORDS = ['"a"', "a: ", "- ", "&x ", "*x", "<<: ", "!!int ", "NaN", "1e5", "${v}", "#", "---", "é", "\n  "]
TEXTS = st.lists(st.sampled_from([*'{}[],:"\\ \n', *WORDS]), max_size=40).map("".join)
SET_KEYS = st.text(max_size=6) | st.sampled_from(["x", "agent.name", "env.", ".", "meta..a"])
PATH_PARTS = st.sampled_from(["..", "ppo", "/", ".json", "~", "~nobody", "\0", "specs/"])
PATHS = st.text(max_size=300) | st.lists(PATH_PARTS, max_size=8).map("".join)


def faults(call: Callable[[], Any]) -> list[str]:
    """What the SpecError says that the call raises; it can be printed. Two empty texts where none is raised."""
    try:
        call()
    except SpecError as e:
        return [str(e).encode().decode(), *e.faults]
    return ["", ""]


@pytest.mark.parametrize("suffix", ["json", "yaml"])
@given(text=TEXTS)
@QUICK
def test_any_text(suffix: str, text: str, toys: None, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    path.write_text(text, encoding="utf-8")
    assert len(faults(lambda: load_spec(path, checker=partial(check, check_env=check_env)))) > 1


@pytest.mark.parametrize("suffix", ["json", "yaml"])
@given(data=st.binary(max_size=60))
@QUICK
def test_any_bytes(suffix: str, data: bytes, toys: None, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(data)
    assert len(faults(lambda: read_file(path))) > 1


def paths_of(data: Any) -> list[list[str]]:
    found: list[list[str]] = []
    for key, value in data.items():
        found += [[key], *([key, *rest] for rest in (paths_of(value) if isinstance(value, dict) else []))]
    return found


@given(data=st.data())
@QUICK
def test_any_value_anywhere(data: st.DataObject, raw: dict[str, Any], tmp_path: Path) -> None:
    """A good spec with a few places changed: refused, or loaded and the same after a round trip."""
    spec = json.loads(json.dumps(raw))
    for path in data.draw(st.lists(st.sampled_from(paths_of(spec)), min_size=1, max_size=3)):
        holder = spec
        for key in path[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder[data.draw(st.sampled_from([path[-1], "extra", "gamma"]))] = data.draw(VALUES)
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"climb": spec}), encoding="utf-8")

    def load() -> None:
        loaded = load_spec(file, "climb", checker=partial(check, check_env=check_env))
        assert Spec.model_validate(json.loads(json.dumps(loaded.to_dict()))) == loaded

    assert len(faults(load)) > 1


@given(sets=st.dictionaries(SET_KEYS, st.text(max_size=6), max_size=3))
@QUICK
def test_any_sets(sets: dict[str, str], raw: dict[str, Any]) -> None:
    raw["env"]["name"] = "${x}"
    assert len(faults(lambda: load_spec({"climb": raw}, sets=sets))) > 1


@given(name=PATHS)
@QUICK
def test_any_file_name(name: str) -> None:
    assert len(faults(lambda: find_file(name))) > 1
