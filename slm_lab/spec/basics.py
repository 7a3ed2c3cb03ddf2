"""What a spec is made of: the frozen model, kinds of number, parts that name their class, schedules."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from slm_lab.lib.registry import UnknownName, lookup


def _number(value: Any) -> Any:
    # pydantic takes true for 1
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number")
    # a comparison with NaN is false: pydantic would say that it is too large
    if str(value).strip().lower() in ("nan", "+nan", "-nan"):
        raise PydanticCustomError("number", "must be a number")
    return value


NUMBER = BeforeValidator(_number)
"""Refuses true, false and NaN."""
Count = Annotated[int, Field(ge=1), NUMBER]
"""A whole number from 1."""
Natural = Annotated[int, Field(ge=0), NUMBER]
"""A whole number from 0."""
Unit = Annotated[float, Field(ge=0, le=1), NUMBER]
"""A real from 0 to 1."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER]
Real = Annotated[float, Field(allow_inf_nan=False), NUMBER]


def wrong(key: str, got: Any, why: str) -> PydanticCustomError:
    """For the validator of a whole model to raise: the key that does not go with the others, and its value."""
    return PydanticCustomError("wrong", "{why}", {"why": why, "key": key, "got": got})


class SpecModel(BaseModel):
    """Frozen; unknown keys are errors; field docstrings become descriptions in `specs/schema.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself: it never changes."""
        return self


class Nested(PydanticCustomError):
    """Carries the faults of a part of the spec that another model checked; `spec.explain` unfolds them."""

    def __new__(cls, inner: ValidationError, model: type[BaseModel]) -> Self:
        """Fill in type, message and context."""
        errors = inner.errors(include_url=False)
        return super().__new__(
            cls, "nested", "{count} faults inside", {"count": len(errors), "errors": errors, "model": model}
        )


def by_name(kind: str, key: str, base: type[SpecModel]) -> BeforeValidator:
    """Checks a part of the spec by the `Spec` of the class that it names."""

    def check(value: Any) -> Any:
        if isinstance(value, base):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError("object", "must be an object")
        if key not in value:
            raise PydanticCustomError("no_name", "{key} is missing", {"key": key})
        name = value[key]
        if not isinstance(name, str):
            raise PydanticCustomError("unknown_name", "{why}", {"why": "must be text", "key": key, "got": name})
        try:
            model = lookup(kind, name).Spec
        except UnknownName as e:
            raise PydanticCustomError("unknown_name", "{why}", {"why": str(e), "key": key}) from None
        try:
            return model.model_validate(value)
        except ValidationError as e:
            raise Nested(e, model) from None

    return BeforeValidator(check)


class ScheduleSpec(SpecModel):
    """A number that follows the frame counter (functional/schedules.py)."""

    name: Literal["no_decay", "linear_decay", "rate_decay", "periodic_decay"]
    start_val: Real
    """Value until start_step."""
    end_val: Real | None = None
    """Value from end_step on; also in enjoy and evaluation. May be above or below start_val, 0 included."""
    start_step: Natural = 0
    """Frame at which the change begins."""
    end_step: Natural | None = None
    """Frame at which it ends."""

    @property
    def parts(self) -> tuple[str, float, float | None, int, int | None]:
        """Name, start_val, end_val, start_step, end_step: as `functional.schedules.at_frame` takes them."""
        return self.name, self.start_val, self.end_val, self.start_step, self.end_step

    @model_validator(mode="after")
    def _ends_stated(self) -> Self:
        if self.name != "no_decay":
            for key in ("end_val", "end_step"):
                if getattr(self, key) is None:
                    raise PydanticCustomError("schedule", f"{self.name} needs '{key}'")
            if self.end_step is not None and self.end_step <= self.start_step:
                raise PydanticCustomError("schedule", "end_step must be after start_step")
        return self


def _within(low: float, high: float, rule: str) -> AfterValidator:
    def check(schedule: ScheduleSpec) -> ScheduleSpec:
        for key in ("start_val", "end_val"):
            value = getattr(schedule, key)
            if value is not None and not low <= value <= high:
                raise wrong(key, value, rule)
        return schedule

    return AfterValidator(check)


NonNegativeSchedule = Annotated[ScheduleSpec, _within(0, math.inf, "must be at least 0")]
"""Of a coefficient, a temperature, a distance."""
UnitSchedule = Annotated[ScheduleSpec, _within(0, 1, "must be between 0 and 1")]
"""Of a share or an exponent."""
