"""Specs of older versions, mangled: each gives specs or a SpecError, soon. The whole is 20,000 inputs, and slow."""

import copy
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_lab.env.check import check_env
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import check, load_specs, open_file, read_file
from slm_lab.spec.migrate import migrate
from slm_lab.spec.model import Spec

OLD = Path(__file__).resolve().parent.parent / "golden" / "old"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(OLD.iterdir())}
RAW = [raw for path in sorted(OLD.iterdir()) for raw in read_file(path).values()]
SMALL = {".json": json.dumps({"x": RAW[0]}, indent=1), ".yaml": TEXTS["v5_arc.yaml"]}

WORDS = [
    "PPO",
    "DQN",
    "RecurrentNet",
    "TorchArcNet",
    "${env}",
    "sign",
    "Unity3DBall-v0",
    "linear_decay",
    "\ud800",
    "1e9",
]
NUMBERS = st.sampled_from([0, -1, 1e308, -1e308, 5e-324, 10**30, -(10**30), 2**63, 0.1, float("nan"), float("inf")])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | NUMBERS | st.text(max_size=8) | st.sampled_from(WORDS)
)
KEYS = st.sampled_from(["name", "type", "env", "agent", "lr__uniform", "0", "", "start_val", "end_val", "x.y", "__"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
NASTY = [
    "NaN",
    "1e999",
    "9" * 5000,
    "[" * 3000,
    '{"a":' * 500,
    "]" * 9,
    "null",
    "true",
    '"agent": 1,',
    "\ufeff",
    "\t",
    "é",
]
YAML = ["&x ", "*x", "<<: ", "!!python/object:x ", "- ", "? ", "${", "1:30", "0o7", "2020-01-01"]
PIECES = st.sampled_from([*'{}[],:"\\ \n#&*-\0', *NASTY, *YAML])
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), PIECES | st.just("")), min_size=1, max_size=4)
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7", "shift_jis"]
LONGEST = 10
COUNTS = [25, pytest.param(4000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]


def inputs(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,  # the wall clock also runs while the machine is busy elsewhere
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def refused(call: Callable[[], Any]) -> list[str] | None:
    """Why it is refused, in words that can be printed; None where it is not."""
    try:
        call()
    except SpecError as e:
        return [str(e).encode().decode(), *e.faults][1:]
    return None


def load(path: Path) -> None:
    """Load all that the file holds; what can't be loaded says why. At most LONGEST processor seconds."""
    begin = time.process_time()
    names: list[str] = []
    why = refused(lambda: names.extend(open_file(path).specs))
    assert why is None or why
    for name in names:
        specs: list[Spec] = []
        why = refused(lambda: specs.extend(load_specs(path, name, checker=partial(check, check_env=check_env))))  # noqa: B023  called at once
        assert why is None or why
        for spec in specs:
            assert Spec.model_validate(json.loads(json.dumps(spec.to_dict()))) == spec
    assert time.process_time() - begin < LONGEST


def edited(text: str, edits: list[tuple[float, int, str]]) -> str:
    for place, length, piece in edits:
        start = int(place * len(text))
        text = text[:start] + piece + text[start + length :]
    return text


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", SMALL)
def test_texts(count: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"

    @inputs(count)
    @given(edits=EDITS)
    def check(edits: list[tuple[float, int, str]]) -> None:
        path.write_text(edited(SMALL[suffix], edits), encoding="utf-8", newline="")
        load(path)

    check()


@pytest.mark.parametrize("count", COUNTS)
def test_bytes(count: int, tmp_path: Path) -> None:
    @inputs(count)
    @given(
        suffix=st.sampled_from(sorted(SMALL)),
        encoding=st.sampled_from(ENCODINGS),
        place=st.floats(0, 1),
        noise=st.binary(max_size=6),
    )
    def check(suffix: str, encoding: str, place: float, noise: bytes) -> None:
        data = SMALL[suffix].encode(encoding)
        cut = int(place * len(data))
        path = tmp_path / f"x{suffix}"
        path.write_bytes(data[:cut] + noise + data[cut:])
        load(path)

    check()


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(data, dict):
        items = list(data.items())
    elif isinstance(data, list):
        items = list(enumerate(data))
    return [place for key, value in items for place in ((*path, key), *places(value, (*path, key)))]


PLACES = [places(raw) for raw in RAW]


@st.composite
def mangled(draw: st.DrawFn) -> dict[str, Any]:
    """A spec with one to four places changed, taken away, given another name, or put into a list or out of it."""
    which = draw(st.integers(0, len(RAW) - 1))
    raw = copy.deepcopy(RAW[which])
    for _ in range(draw(st.integers(1, 4))):
        *way, last = draw(st.sampled_from(PLACES[which]))
        holder: Any = raw
        for key in way:
            try:
                holder = holder[key]
            except (KeyError, IndexError, TypeError):
                break
        try:
            value = holder[last]
            what = draw(st.sampled_from(["change", "drop", "rename", "list", "unlist"]))
            if what == "change":
                holder[last] = draw(VALUES)
            elif what == "drop":
                del holder[last]
            elif what == "rename":
                holder[draw(KEYS)] = holder.pop(last)
            elif what == "list":
                holder[last] = [value, *draw(st.lists(VALUES, max_size=1))]
            elif isinstance(value, list) and value:
                holder[last] = value[0]
        except (KeyError, IndexError, TypeError, AttributeError):
            continue
    return raw


@pytest.mark.parametrize("count", COUNTS)
def test_values(count: int, tmp_path: Path) -> None:
    path = tmp_path / "x.json"

    @inputs(count)
    @given(raw=mangled())
    def check(raw: dict[str, Any]) -> None:
        path.write_text(json.dumps({"x": raw}), encoding="utf-8")
        load(path)

    check()


@pytest.mark.parametrize("count", COUNTS)
def test_what_was_migrated_needs_no_migration(count: int) -> None:
    """Of any raw spec, also of one that no file could hold."""

    @inputs(count)
    @given(raw=mangled())
    def check(raw: dict[str, Any]) -> None:
        before = copy.deepcopy(raw)
        why = refused(lambda: migrate(raw))
        assert repr(raw) == repr(before)
        if why is not None:
            assert len(why) == 1
            return
        made = migrate(raw)
        if isinstance(made.spec.get("meta"), dict):
            again = migrate(made.spec)
            assert again.notes == []
            assert again.spec is made.spec

    check()
