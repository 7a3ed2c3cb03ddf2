"""specs/schema.json: fresh, and saying of spec files what the loader says."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from slm_lab.lib.registry import names
from slm_lab.spec.files import bundled_files
from slm_lab.spec.parse import parse_json, parse_yaml
from slm_lab.spec.schema import file_schema

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
READ = {
    *("$ref", "$schema", "$defs", "title", "description", "default", "type", "enum", "const", "pattern", "items"),
    *("minimum", "maximum", "exclusiveMinimum", "properties", "required", "additionalProperties", "patternProperties"),
    *("anyOf", "allOf", "if", "then", "else", "prefixItems", "minItems", "maxItems"),
}


def faults(value: Any, schema: Any, root: dict[str, Any], path: str = "") -> list[str]:
    """Places at which the value does not fit; a small reader of JSON schema that refuses words it does not know."""
    if isinstance(schema, bool):
        return [] if schema else [path]
    assert set(schema) <= READ, set(schema) - READ
    found: list[str] = []
    if "$ref" in schema:
        found += faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, path)
    if not fits(value, schema):
        found.append(path)
    if "anyOf" in schema and all(faults(value, option, root, path) for option in schema["anyOf"]):
        found.append(path)
    for part in schema.get("allOf", []):
        found += faults(value, part, root, path)
    if "if" in schema:
        branch = "else" if faults(value, schema["if"], root, path) else "then"
        found += faults(value, schema.get(branch, True), root, path)
    if isinstance(value, dict):
        found += [f"{path}.{key}" for key in schema.get("required", []) if key not in value]
        for key, inner in value.items():
            found += faults(inner, for_key(key, schema), root, f"{path}.{key}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(path)
        for i, (inner, part) in enumerate(zip(value, schema.get("prefixItems", []), strict=False)):
            found += faults(inner, part, root, f"{path}.{i}")
        for i, inner in enumerate(value):
            found += faults(inner, schema.get("items", True), root, f"{path}[{i}]")
    return found


def for_key(key: str, schema: dict[str, Any]) -> Any:
    if key in schema.get("properties", {}):
        return schema["properties"][key]
    for pattern, inner in schema.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return inner
    return schema.get("additionalProperties", True)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    if "type" in schema:
        wanted = TYPES[schema["type"]]
        whole = schema["type"] == "integer" and isinstance(value, float) and value.is_integer()
        if not (isinstance(value, wanted) or whole) or (isinstance(value, bool) and wanted is not bool):
            return False
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return False
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        return False
    if isinstance(value, int | float):
        low, high, above = (schema.get(key) for key in ("minimum", "maximum", "exclusiveMinimum"))
        return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)
    return True


def test_the_file_is_fresh(root: Path) -> None:
    """Where it is not: `uv run slm-lab schema -o specs/schema.json`."""
    assert json.loads((root / "specs" / "schema.json").read_text(encoding="utf-8")) == file_schema()


def test_every_class_is_an_alternative() -> None:
    defs = file_schema()["$defs"]
    for kind, key, name in (
        ("algorithm", "name", "AlgorithmSpec"),
        ("memory", "name", "MemorySpec"),
        ("net", "type", "NetSpec"),
    ):
        assert defs[name]["properties"][key]["anyOf"][0]["enum"] == names(kind)
        assert len(defs[name]["allOf"]) == len(names(kind))


def test_descriptions_are_the_docstrings() -> None:
    defs = file_schema()["$defs"]
    assert defs["EnvSpec"]["properties"]["num_envs"]["description"] == "N, envs stepped together."
    assert "lambda" in defs["PPOSpec"]["properties"]["lam"]["description"]


@pytest.mark.parametrize("path", bundled_files(), ids=lambda p: p.name)
def test_the_bundled_files_fit(path: Path) -> None:
    schema = file_schema()
    parse = parse_json if path.suffix == ".json" else parse_yaml
    data = parse(path.read_text(encoding="utf-8"), path.name)
    assert faults(data, schema, schema) == []
    for spec in data.values():
        assert faults(spec, schema, schema) == []


@pytest.mark.parametrize(
    ("where", "value", "fault"),
    [
        ("agent.algorithm.horizon", 0, ".x.agent.algorithm.horizon"),
        ("agent.algorithm.horizon", "${n}", None),
        ("agent.algorithm.horizon", "many", ".x.agent.algorithm.horizon"),
        ("agent.algorithm.lam", None, None),
        ("agent.algorithm.lam", "${lam}", None),
        ("agent.algorithm.clip_val_loss", False, ".x.agent.algorithm.clip_val_loss"),
        ("agent.algorithm.name", "Clymber", ".x.agent.algorithm.name"),
        ("agent.algorithm.clip_eps_spec", {"name": "no_decay"}, ".x.agent.algorithm.clip_eps_spec"),
        ("agent.net.actor_hid_layers", [8], None),
        ("agent.net.actor_hid_layers", [0], ".x.agent.net.actor_hid_layers[0]"),
        ("agent.net.optim_spec", {"name": "SGD", "momentum": 0.9}, None),
        ("env.continuous", True, None),
        ("meta.compile", "of", ".x.meta.compile"),
        ("meta.max_session", True, ".x.meta.max_session"),
        ("meta.sinks", ["a plug-in's", {"name": "Spring", "depth": 3}], None),
        ("meta.sinks", [{"name": "Spring", "deep": 3}], ".x.meta.sinks[0]"),
        ("body", {}, ".x.body"),
    ],
)
def test_what_fits(raw: dict[str, Any], where: str, value: Any, fault: str | None) -> None:
    schema = file_schema()
    spec = copy.deepcopy(raw)
    assert faults({"$schema": "s", "_note": 1, "x": spec}, schema, schema) == []
    *path, last = where.split(".")
    holder = spec
    for key in path:
        holder = holder[key]
    holder[last] = value
    found = faults({"x": spec}, schema, schema)
    assert found == [] if fault is None else fault in found
