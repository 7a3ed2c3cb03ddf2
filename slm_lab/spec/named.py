"""Parts of the spec whose keys are those of a class found by name: algorithm, memory, net, sink."""

from typing import Any, Self

from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from slm_lab.lib.registry import UnknownName, lookup
from slm_lab.spec.basics import SpecModel


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
