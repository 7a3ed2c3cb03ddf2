"""The words for each kind of fault; whole messages are in test_golden.py."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from slm_lab.spec.explain import explain, shorten
from slm_lab.spec.model import Count, ScheduleSpec, SpecModel, Unit


class Inner(SpecModel):
    size: Count = 1


class Toy(SpecModel):
    count: Count = 1
    unit: Unit = 0.5
    few: list[int] = Field([1], min_length=1, max_length=2)
    names: list[str] = Field(default_factory=list)
    text: str = ""
    switch: bool = False
    word: Literal["one", "two"] = "one"
    either: bool | Literal["auto"] = "auto"
    number_or_list: float | list[Count] = 1.0
    inner: Inner | None = None
    number_or_inner: float | Inner = 1.0
    table: dict[str, Inner] | None = None
    inners: list[Inner] | None = None
    schedule: ScheduleSpec | None = None
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd")
        return value


def lines(data: Any, model: type[BaseModel] = Toy) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return [str(fault) for fault in explain(caught.value, model)]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"count": 0}, "count: must be at least 1 (got 0)"),
        ({"count": 1.5}, "count: must be a whole number (got 1.5)"),
        ({"count": "many"}, "count: must be a whole number (got 'many')"),
        ({"count": None}, "count: must be a whole number (got None)"),
        ({"count": True}, "count: must be a number (got True)"),
        ({"unit": 1.5}, "unit: must be at most 1 (got 1.5)"),
        ({"unit": [1]}, "unit: must be a number (got [1])"),
        ({"few": []}, "few: must have 1 entries or more (got [])"),
        ({"few": [1, 2, 3]}, "few: must have 2 entries or fewer (got [1, 2, 3])"),
        ({"few": {"a": 1}}, "few: must be a list (got {'a': 1})"),
        ({"few": "x"}, "few: must be a list (got 'x')"),
        ({"names": "x"}, "names: must be a list, such as [\"x\"] (got 'x')"),
        (
            {"schedule": 0.2},
            'schedule: must be an object, such as {"name": "no_decay", "start_val": 0.2} (got 0.2)',
        ),
        ({"few": [1, "x"]}, "few[1]: must be a whole number (got 'x')"),
        ({"text": 3}, "text: must be text (got 3)"),
        ({"switch": "perhaps"}, "switch: must be true or false (got 'perhaps')"),
        ({"word": "tow"}, "word: must be 'one' or 'two', did you mean 'two'? (got 'tow')"),
        ({"word": 3}, "word: must be 'one' or 'two' (got 3)"),
        ({"either": "x"}, "either: must be true or false or 'auto' (got 'x')"),
        ({"number_or_list": "x"}, "number_or_list: must be a number or a list (got 'x')"),
        ({"number_or_list": [1, 0]}, "number_or_list[1]: must be at least 1 (got 0)"),
        ({"number_or_inner": "x"}, "number_or_inner: must be a number or an object (got 'x')"),
        ({"number_or_inner": {"siz": 3}}, "number_or_inner.siz: unknown key (got 3)"),
        ({"inner": 3}, "inner: must be an object (got 3)"),
        ({"inner": {"size": 0}}, "inner.size: must be at least 1 (got 0)"),
        ({"table": {"a": {"size": 0}}}, "table.a.size: must be at least 1 (got 0)"),
        ({"inners": [{}, {"siz": 0}]}, "inners[1].siz: unknown key, did you mean 'size'? (got 0)"),
        ({"schedule": {"name": "linear_decay", "start_val": 1}}, "schedule: linear_decay needs 'end_val'"),
        ({"odd": 2}, "odd: must be odd (got 2)"),
        ({"zzz": 3}, f"zzz: unknown key (got 3; known: {', '.join(Toy.model_fields)})"),
        ({"num_envs": 3}, "num_envs: unknown key, it belongs to 'env' (got 3)"),
        ([], "must be an object (got [])"),
    ],
)
def test_words(data: Any, line: str) -> None:
    assert lines(data) == [line]


def test_order_and_number_of_faults() -> None:
    data = {"either": "x", "count": 0, "zzzz": 1, "unit": -1, "number_or_list": "x"}
    assert [line.partition(":")[0] for line in lines(data)] == ["count", "unit", "either", "number_or_list", "zzzz"]


def test_a_key_that_only_begins_like_another_is_not_taken_for_it() -> None:
    assert "did you mean" not in lines({"number_": 1})[0]
    assert "did you mean 'number_or_list'" in lines({"number_list": 1})[0]


def test_missing() -> None:
    assert lines({"start_val": 1}, ScheduleSpec) == ["name: missing"]


def test_kinds_without_a_word_of_their_own_are_pydantics() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        when: frozenset[int]

    assert lines({"when": 3}, Strict) == ["when: must be a valid frozenset (got 3)"]


def test_long_values_are_cut() -> None:
    assert shorten("x" * 60) == "'" + "x" * 56 + "..."
    assert shorten("x" * 58) == repr("x" * 58)
