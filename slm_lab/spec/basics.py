"""What every part of a spec is made of: the frozen model, the kinds of number, and parts that name their class."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
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
