"""Error texts, letter by letter: each file in test/golden/specs and what is said of it.

After a change that is meant: `UPDATE_GOLDEN=1 uv run pytest test/spec/test_golden.py`, then read the diff.
"""

import os
from functools import partial
from pathlib import Path

import pytest

from slm_lab.env.check import check_env
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import check, load_spec

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FILES = sorted(p.name for p in (GOLDEN / "specs").iterdir())


@pytest.mark.parametrize("name", FILES)
def test_text(name: str, toys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / "specs")
    with pytest.raises(SpecError) as caught:
        load_spec(name, "climb", checker=partial(check, check_env=check_env))
    expected = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(f"{caught.value}\n", encoding="utf-8")
    assert f"{caught.value}\n" == expected.read_text(encoding="utf-8")


def test_each_text_has_its_spec() -> None:
    assert sorted(p.name for p in GOLDEN.glob("*.txt")) == [f"{name}.txt" for name in FILES]
