"""`-s key=value`: fills `${key}`, sets a key by its path (`agent.algorithm.gamma`), or a whole block (`search`)."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from slm_lab.lib.errors import SpecError
from slm_lab.lib.suggest import did_you_mean

VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECTIONS = ("agent", "env", "meta", "search")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}


def parse_value(text: str) -> Any:
    """What a word of the command line means: a number, true, false, null, a JSON list or object; else text.

    >>> parse_value("1e6"), parse_value("0.5"), parse_value("[64, 64]"), parse_value("CartPole-v1")
    (1000000, 0.5, [64, 64], 'CartPole-v1')
    """
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        if word[:1] in ("[", "{"):
            return json.loads(word)
        number = float(word)
    except (ValueError, RecursionError):
        return text
    if not math.isfinite(number):
        return text
    if re.fullmatch(r"[-+]?\d{1,4000}", word, re.ASCII):  # beyond 2^53 a float is not exact
        return int(word)
    return int(number) if number.is_integer() else number


def as_texts(sets: Any) -> dict[str, str]:
    """Values as the command line would give them; scalars and arrays of numpy as their Python numbers.

    >>> as_texts({"env.max_frame": 4000, "agent.net.hid_layers": [64, 64], "env": "CartPole-v1"})
    {'env.max_frame': '4000', 'agent.net.hid_layers': '[64, 64]', 'env': 'CartPole-v1'}

    Raises:
        SpecError: it is no mapping.
    """
    if not isinstance(sets, Mapping):
        raise SpecError([f'sets: must be a dict, such as {{"env.max_frame": 4000}} (got {sets!r})'])
    return {key: value if isinstance(value, str) else json.dumps(value, default=_plain) for key, value in sets.items()}


def variables(data: Any) -> dict[str, list[str]]:
    """Names of the variables in the data, each with the key paths where it stands."""
    found: dict[str, list[str]] = {}
    for path, text in _texts(data, ""):
        for name in VARIABLE.findall(text):
            found.setdefault(name, []).append(path)
    return found


def fill(data: Any, values: dict[str, str]) -> Any:
    """A copy with each `${name}` that has a value replaced. Alone in its text it becomes what `parse_value` reads."""
    if isinstance(data, dict):
        return {key: fill(value, values) for key, value in data.items()}
    if isinstance(data, list):
        return [fill(value, values) for value in data]
    if not isinstance(data, str):
        return data
    alone = VARIABLE.fullmatch(data)
    if alone and alone[1] in values:
        return parse_value(values[alone[1]])
    return VARIABLE.sub(lambda m: values.get(m[1], m[0]), data)


def apply_sets(spec: dict[str, Any], sets: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The spec with variables filled in and dotted keys set; and a fault for each key that is neither."""
    known = variables(spec)
    faults = []
    result = fill(spec, sets)
    for key, text in sets.items():
        if key in known:
            continue
        value = parse_value(text)
        if key in _SECTIONS and (isinstance(value, dict) or text.lstrip()[:1] == "{"):
            if isinstance(value, dict):
                result[key] = value
            else:
                faults.append(f"-s {key}: must be a JSON object (got {text!r})")
        elif "." not in key:
            faults.append(f"-s {key}: {_why_no_variable(key, sorted(known))}")
        elif key.partition(".")[0] not in _SECTIONS:
            near = did_you_mean(key, [*key_paths(spec), *known])
            faults.append(f"-s {key}: no such key path{near}")
        elif not _set(result, key.split("."), value):
            faults.append(f"-s {key}: no such key path (what holds it is not an object)")
    return result, faults


def key_paths(data: Any, prefix: str = "") -> list[str]:
    """Dotted paths of all keys of an object, outer ones first."""
    found = []
    if isinstance(data, dict):
        for key, value in data.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            found += [path, *key_paths(value, path)]
    return found


def short_path(path: str) -> str:
    """The end of a key path that says which key is meant.

    >>> [short_path(f"agent.{key}") for key in ("algorithm.gamma", "algorithm.name", "net.lr_scheduler_spec.frame")]
    ['gamma', 'algorithm.name', 'lr_scheduler_spec.frame']
    """
    parts = path.split(".")
    alone = len(parts) <= (3 if parts[0] == "agent" else 2) and parts[-1] not in ("name", "type")
    return ".".join(parts[-1:] if alone else parts[-2:])


def short_env(name: str) -> str:
    """What a spec's name takes over from the variable `env`.

    >>> short_env("ALE/MsPacman-v5"), short_env("CartPole-v1"), short_env("gymnasium_robotics:FetchReach-v4")
    ('mspacman', 'cartpole', 'fetchreach')
    """
    return re.split("[/:]", name)[-1].partition("-")[0].lower()


def _plain(value: Any) -> Any:
    """What JSON can hold in place of a value that it can't."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _why_no_variable(key: str, known: list[str]) -> str:
    if not known:
        return "this spec has no variables (to set a key, give its whole path, such as env.max_frame)"
    return f"no ${{{key}}} in this spec{did_you_mean(key, known)} (variables: {', '.join(known)})"


def _set(data: dict[str, Any], path: list[str], value: Any) -> bool:
    for key in path[:-1]:
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
        if isinstance(data, list) and len(data) == 1:  # agents and envs of old specs
            data = data[0]
        if not isinstance(data, dict):
            return False
    data[path[-1]] = value
    return True


def _texts(data: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _texts(value, f"{path}[{i}]")
