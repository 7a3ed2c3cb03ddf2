"""The JSON schema of a spec file, for editors: keys are completed and explained while one types.

Made from the models, with every registered algorithm, memory and net; `slm-lab schema -o specs/schema.json` renews the
file in the repository.
"""

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from slm_lab.lib.registry import lookup, names
from slm_lab.spec.model import EnvSpec, NetSpec, Spec

Schema = dict[str, Any]
_NAMED: tuple[tuple[str, str, str], ...] = (
    ("algorithm", "name", "AlgorithmSpec"),
    ("memory", "name", "MemorySpec"),
    ("net", "type", "NetSpec"),
    ("sink", "name", "SinkSpec"),
)
_MODE: Literal["validation"] = "validation"
_VARIABLE = {"type": "string", "pattern": r"^\$\{\w+\}$", "description": "Filled in with -s name=value."}


def file_schema() -> Schema:
    """The schema of a whole spec file: an object of specs, or one bare spec."""
    classes = {kind: {name: lookup(kind, name).Spec for name in names(kind)} for kind, _, _ in _NAMED}
    models: list[type[BaseModel]] = [Spec, *(model for known in classes.values() for model in known.values())]
    pairs = [(model, _MODE) for model in dict.fromkeys(models)]
    refs, made = models_json_schema(pairs, ref_template="#/$defs/{model}")
    defs: dict[str, Schema] = made["$defs"]
    for kind, key, base in _NAMED:
        choices = {name: refs[model, _MODE] for name, model in classes[kind].items()}
        defs[base] = _by_name(key, choices, f"{kind.capitalize()}, chosen by '{key}'.")
    # a sink without keys may be given by its name alone
    sinks: Schema = defs["MetaSpec"]["properties"]["sinks"]
    sinks["items"] = {"anyOf": [{"type": "string"}, sinks["items"]]}
    for model in models:
        if issubclass(model, NetSpec):
            definition = defs[str(refs[model, _MODE]["$ref"]).rpartition("/")[2]]
            for key, schema in definition["properties"].items():
                if key.partition("_")[0] in NetSpec.roles:
                    schema.pop("default", None)
    defs["Spec"]["required"].remove("name")
    defs["Variable"] = dict(_VARIABLE)
    for name, definition in defs.items():
        if name != "Variable":
            defs[name] = _allow_variables(definition)
    defs[EnvSpec.__name__]["additionalProperties"] = True
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "slm_lab spec file",
        "description": "Specs by name; a file may also hold one bare spec. Names that begin with _ are no specs.",
        "type": "object",
        "if": {"required": ["agent", "env", "meta"]},
        "then": {"$ref": "#/$defs/Spec"},
        "else": {
            "properties": {"$schema": {"type": "string"}},
            "patternProperties": {"^_": True},
            "additionalProperties": {"$ref": "#/$defs/Spec"},
        },
        "$defs": dict(sorted(defs.items())),
    }


def _by_name(key: str, choices: dict[str, Schema], description: str) -> Schema:
    # if/then rather than oneOf: an editor then complains about the key that is wrong, not about all alternatives
    return {
        "type": "object",
        "description": description,
        "required": [key],
        "properties": {key: {"enum": [*choices]}},
        "allOf": [
            {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": ref}
            for name, ref in choices.items()
        ],
    }


def _allow_variables(schema: Any) -> Any:
    """The schema with `${variable}` beside each number, switch and enumeration; and without generated titles."""
    if isinstance(schema, list):
        return [_allow_variables(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: v if k in ("default", "enum", "const", "if", "anyOf") else _allow_variables(v) for k, v in schema.items()}
    if isinstance(out.get("title"), str):
        del out["title"]
    options = out.get("anyOf", [out])
    if not any(_is_plain(option) for option in options):
        return out | ({"anyOf": _allow_variables(options)} if "anyOf" in out else {})
    outer = {k: out[k] for k in ("description", "default") if k in out}
    members = options if "anyOf" in out else [{k: v for k, v in out.items() if k not in outer}]
    return {**outer, "anyOf": [*members, {"$ref": "#/$defs/Variable"}]}


def _is_plain(schema: Schema) -> bool:
    return schema.get("type") in ("integer", "number", "boolean") or "enum" in schema or "const" in schema
