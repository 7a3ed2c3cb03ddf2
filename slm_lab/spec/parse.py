"""Text to plain data: the JSON and YAML of spec files, with errors that name the place.

JSON may have trailing commas. YAML numbers such as `3e-4` and `10e6`, which YAML 1.1 reads as text, are numbers. In
both, a key given twice, NaN and Infinity are errors: each would silently mean something else than it says.
"""

import codecs
import json
import math
import re
from typing import Any, NoReturn

import yaml

from slm_lab.lib.errors import SpecError

MAX_BYTES = 10_000_000
MAX_DEPTH = 50
MAX_VALUES = 100_000

# possessive, and the closing quote optional: linear on any text, an unclosed string runs to the end
_STRING = r'"(?:[^"\\]|\\.)*+"?'
_TOKEN = re.compile(_STRING + r'|[^\s",:\[\]{}]+|\S', re.DOTALL)
_TRAILING_COMMA = re.compile(rf"({_STRING}|(?:\A|[\[{{:,])\s*,)|,(?=\s*[\]}}])", re.DOTALL)
"""Or, as its group, a text, or a comma that has nothing before it, which stays an error."""
_SURROGATE = re.compile("[\ud800-\udfff]")
"""What UTF-8 can't write."""
_NOT_JSON = {"NaN", "Infinity", "-Infinity"}
_BOMS = {"UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}


def decode(data: bytes, where: str) -> str:
    """Bytes of a spec file as text: UTF-8, with or without a byte order mark.

    Raises:
        SpecError: another encoding, or a file too large to be a spec.
    """
    if len(data) > MAX_BYTES:
        raise SpecError([f"too large for a spec file ({len(data)} bytes)"], where)
    for encoding, boms in _BOMS.items():
        if data.startswith(boms):
            raise SpecError([f"is {encoding} text, must be UTF-8"], where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise SpecError([f"is not UTF-8 text (byte 0x{data[e.start]:02x})"], f"{where}:{line}") from None


def parse_json(text: str, where: str, twice: list[tuple[str, str]] | None = None) -> Any:
    """JSON that may have a comma before a closing bracket. `where` begins the error messages.

    Keys given twice are errors; or told in `twice`, each with the outermost key it is under, and the last one counts.

    Raises:
        SpecError: syntax error (file:line:column), key given twice (each with its line), NaN or Infinity, a number too
            large.
    """
    clean = _TRAILING_COMMA.sub(lambda match: match[1] or " ", text)  # as long as it was: places stay
    faults, repeated = _scan(text)
    if twice is None:
        faults = [*(fault for _, fault in repeated), *faults]
    else:
        twice += repeated
    try:
        data = json.loads(clean, parse_float=_finite)
    except json.JSONDecodeError as e:
        raise SpecError([_json_message(clean, e)], f"{where}:{e.lineno}:{e.colno}") from None
    except RecursionError:
        raise SpecError(["nested too deeply"], where) from None
    except ValueError as e:  # a number that python can't hold
        raise SpecError([str(e)], where) from None
    if faults:
        raise SpecError(faults, where)
    return plain_data(data, where)


def parse_yaml(text: str, where: str) -> Any:
    """YAML, one document. `where` begins the error messages.

    Raises:
        SpecError: as for JSON; and values that JSON does not have (sets, dates by tag, keys that are no text).
    """
    try:
        loader = _Loader(text)
        data = loader.get_single_data()
    except yaml.YAMLError as e:
        _yaml_error(e, where)
    except RecursionError:
        raise SpecError(["nested too deeply, or an alias that holds itself"], where) from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as e:
        # PyYAML's own constructors raise these for tags that do not fit their value
        raise SpecError([f"a value that can't be read: {e}"], where) from None
    if loader.faults:
        raise SpecError(loader.faults, where)
    return plain_data(data, where)


def plain_data(data: Any, where: str) -> Any:
    """A deep copy of data that JSON can hold.

    Raises:
        SpecError: keys that are no text, values of another type, not finite, or text that can't be written as UTF-8;
            each with its key path. Also data nested deeper than MAX_DEPTH, or with more than MAX_VALUES values.
    """
    faults: list[str] = []
    count = 0

    def copy(value: Any, path: str, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > MAX_VALUES:
            raise SpecError([f"more than {MAX_VALUES} values"], where)
        if depth > MAX_DEPTH:
            raise SpecError(["nested too deeply, or an alias that holds itself"], where)
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    faults.append(f"{_at(path)}key {key!r} must be text: put it in quotes")
                elif _SURROGATE.search(key):
                    faults.append(f"{_at(path)}key {key!r} is not valid Unicode")
            return {k: copy(v, f"{path}.{k}" if path else str(k), depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [copy(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            faults.append(f"{_at(path)}must be finite (got {value})")
        elif isinstance(value, str) and _SURROGATE.search(value):
            faults.append(f"{_at(path)}{value!r} is not valid Unicode")
        elif not isinstance(value, str | int | float | bool | None):
            faults.append(f"{_at(path)}must be a number, text, true, false, null, a list or an object (got {value!r})")
        return value

    result = copy(data, "", 0)
    if faults:
        raise SpecError(faults, where)
    return result


def _at(path: str) -> str:
    return f"{path}: " if path else ""


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number too large: {text[:40]}")
    return value


def _scan(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """What json.loads does not report: faults; and keys given twice, each with the outermost key it is under."""
    faults: list[str] = []
    twice: list[tuple[str, str]] = []
    outermost = ""
    keys: list[set[str] | None] = []  # of the open objects; None stands for an open list
    last = ""
    line, seen = 1, 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        line, seen = line + text.count("\n", seen, token.start()), token.start()
        if word in ("{", "["):
            keys.append(set() if word == "{" else None)
        elif word in ("}", "]"):
            del keys[-1:]
        elif word == ":" and last.startswith('"') and keys and keys[-1] is not None:
            key = _unquote(last)
            outermost = key if len(keys) == 1 else outermost
            if key in keys[-1]:
                twice.append((outermost, f"line {line}: key '{key}' is given twice"))
            keys[-1].add(key)
        elif word in _NOT_JSON:
            faults.append(f"line {line}: {word} is not a number that a spec can hold")
        last = word
    return faults, twice


def _unquote(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        return token


def _json_message(text: str, e: json.JSONDecodeError) -> str:
    if not text.strip():
        return "is empty"
    if text.startswith("${", e.pos):
        return 'put a variable in quotes: "${name}"'
    return e.msg[0].lower() + e.msg[1:].removesuffix(" at")


class _Loader(yaml.SafeLoader):
    """Safe YAML that notes keys given twice, and stops aliases that multiply."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # before merge keys (<<) are spread: what they bring may be overridden
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                self.faults.append(f"line {key.start_mark.line + 1}: key '{key.value}' is given twice")
            seen.add((key.tag, key.value))
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise yaml.constructor.ConstructorError(None, None, f"more than {MAX_VALUES} merged keys", node.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
            message = f"can't read {str(node.value)[:40]!r} as {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from None


# dates stay text; 3e-4 and 10e6 are numbers
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+\Z"), list("-+.0123456789")
)


def _yaml_error(e: yaml.YAMLError, where: str) -> NoReturn:
    mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
    if mark is not None:
        where = f"{where}:{mark.line + 1}:{mark.column + 1}"
    problem = getattr(e, "problem", None) or getattr(e, "reason", None) or str(e)
    context = getattr(e, "context", None)
    raise SpecError([f"{problem} ({context})" if context else str(problem)], where) from None
