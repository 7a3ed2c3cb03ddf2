"""What is wrong with a spec, in words: pydantic's errors become lines that begin with the key path."""

import re
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from slm_lab.lib.suggest import did_you_mean, nearest
from slm_lab.spec.model import EnvSpec, MetaSpec, NetSpec, ScheduleSpec, Spec

GOT_LENGTH = 60
"""Longest `got` value, in characters; longer ones are cut."""

_OBJECT = "must be an object"
_RULES = {
    "missing": "missing",
    "extra_forbidden": "unknown key",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be finite",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "none_required": "must be null",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "too_short": "must have {min_length} entries or more",
    "too_long": "must have {max_length} entries or fewer",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have {max_length} characters or fewer",
    "unknown_name": "{why}",
    "no_name": "missing",
}
_WITHOUT_GOT = {"missing", "no_name"}
_ELSEWHERE: tuple[tuple[str, type[BaseModel]], ...] = (("env", EnvSpec), ("meta", MetaSpec))


Place = tuple[int | str, ...]
Error = Mapping[str, Any]


class Fault(NamedTuple):
    """One thing that is wrong."""

    path: str
    """Key path, `agent.net.hid_layers[0]`; empty for the whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def explain(error: ValidationError, model: type[BaseModel] = Spec) -> list[Fault]:
    """The faults behind a validation error, in the order of the model's keys."""
    return _explain(error.errors(include_url=False), model, ())


def shorten(value: Any) -> str:
    """The value as Python writes it, cut to GOT_LENGTH.

    >>> shorten([1] * 100)
    '[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,...'
    """
    text = repr(value)
    return text if len(text) <= GOT_LENGTH else text[: GOT_LENGTH - 3].rstrip() + "..."


def _explain(errors: Sequence[Error], model: type[BaseModel], prefix: Place) -> list[Fault]:
    located = [(*_locate(model, error["loc"]), error) for error in errors]
    unions: dict[Place, list[Error]] = {}
    for place, _, in_union, error in located:
        if in_union:
            unions.setdefault(place, []).append(error)
    faults: list[Fault] = []
    listed: set[Place] = set()  # objects whose known keys were listed
    for place, holder, in_union, error in located:
        context = error.get("ctx") or {}
        path = dotted((*prefix, *place, *([context["key"]] if "key" in context else [])))
        if error["type"] == "nested":
            faults += _explain(context["errors"], context["model"], (*prefix, *place))
        elif in_union:
            faults += _explain_union(unions.pop(place, []), len(place), prefix)
        elif error["type"] == "extra_forbidden":
            text, tells = _unknown_key(str(place[-1]), holder, error["input"], tell=place[:-1] not in listed)
            faults.append(Fault(path, text))
            listed |= {place[:-1]} if tells else set()
        else:
            faults.append(
                Fault(path, _text(error, holder.model_fields.get(str(place[-1])) if holder and place else None))
            )
    return faults


def _explain_union(errors: Sequence[Error], depth: int, prefix: Place) -> list[Fault]:
    """One fault for a value that is of no kind that its key takes; or, where it is of one, what is wrong inside.

    The locations go on with the name of the member at `depth`.
    """
    inside = [error for error in errors if len(error["loc"]) > depth + 1]
    if inside or not errors:
        return [Fault(dotted((*prefix, *e["loc"][:depth], *e["loc"][depth + 1 :])), _text(e)) for e in inside]
    words = [rule.removeprefix("must be ") for rule in dict.fromkeys(map(_rule, errors))]
    text = f"must be {' or '.join(words)} (got {shorten(errors[0]['input'])})"
    return [Fault(dotted((*prefix, *errors[0]["loc"][:depth])), text)]


def dotted(place: Sequence[int | str]) -> str:
    """A key path as users write it.

    >>> dotted(("agent", "net", "hid_layers", 0))
    'agent.net.hid_layers[0]'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _text(error: Error, field: FieldInfo | None = None) -> str:
    kind, rule = error["type"], _rule(error)
    context = error.get("ctx") or {}
    value = context.get("got", error["input"])
    if context.get("class_name") == ScheduleSpec.__name__ and type(value) in (int, float):
        return f'{rule}, such as {{"name": "no_decay", "start_val": {value}}} (got {value})'
    if kind == "list_type" and isinstance(value, str) and field and _unwrap(get_args(field.annotation)[-1]) is str:
        return f'{rule}, such as ["{value}"] (got {shorten(value)})'
    if kind == "literal_error" and isinstance(value, str):
        rule += did_you_mean(value, re.findall(r"'([^']*)'", context["expected"]))
    if kind in _WITHOUT_GOT or (kind == "unknown_name" and "got" not in context):
        return rule
    if rule == _OBJECT and isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        rule += ", not a list that holds one"
    if kind not in _RULES and isinstance(value, dict):  # a rule about several keys names them
        return rule
    return f"{rule} (got {shorten(value)})"


def _rule(error: Error) -> str:
    context = {k: f"{v:g}" if isinstance(v, float) else v for k, v in (error.get("ctx") or {}).items()}
    if error["type"] in _RULES:
        return _RULES[error["type"]].format(**context)
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text.replace("Input should be", "must be").replace("Input should", "must")


def _unknown_key(key: str, holder: type[BaseModel] | None, value: Any, *, tell: bool) -> tuple[str, bool]:
    """The text, and whether it lists the known keys; it does so where nothing is near and `tell` is true."""
    known = list(holder.model_fields) if holder else []
    # hid_layers is not meant for hid_layers_activation
    near = nearest(key, known, cutoff=0.7)
    if near:
        return f"unknown key, did you mean '{near}'? (got {shorten(value)})", False
    for section, model in _ELSEWHERE:
        if key in model.model_fields and model is not holder and key != "name":
            return f"unknown key, it belongs to '{section}' (got {shorten(value)})", False
    if holder is None or not tell:
        return f"unknown key (got {shorten(value)})", False
    if issubclass(holder, NetSpec):
        known = [k for k in known if k.partition("_")[0] not in NetSpec.roles]
    return f"unknown key (got {shorten(value)}; known: {', '.join(known)})", True


def _locate(root: type[BaseModel], loc: Place) -> tuple[Place, type[BaseModel] | None, bool]:
    """The key path in a pydantic location, the model that holds its last key, and whether a union was met on the way.

    Below a union, pydantic's location goes on with the names of its members: those are left out.
    """
    kind: Any = root
    holder: type[BaseModel] | None = None
    for i, part in enumerate(loc):
        kind = _unwrap(kind)
        if get_origin(kind) in (Union, UnionType):
            return loc[:i], holder, True
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            holder = kind
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            holder = None
            inner = get_args(kind)
            kind = inner[-1] if get_origin(kind) in (list, dict) and inner else None
    return loc, holder, False


def _unwrap(kind: Any) -> Any:
    """Without Annotated; `X | None` is X, which pydantic gives no member name."""
    if get_origin(kind) is Annotated:
        return _unwrap(get_args(kind)[0])
    members = [m for m in get_args(kind) if m is not NoneType]
    return _unwrap(members[0]) if get_origin(kind) in (Union, UnionType) and len(members) == 1 else kind
