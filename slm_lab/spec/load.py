"""From a file to a checked spec."""

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydash
from pydantic import ValidationError

from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.log import note
from slm_lab.lib.registry import import_plugins
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.explain import Fault, explain
from slm_lab.spec.files import SUFFIXES, find_file, is_yaml
from slm_lab.spec.migrate import migrate, sweep, version_of
from slm_lab.spec.model import EnvSpec, Spec
from slm_lab.spec.parse import decode, parse_json, parse_yaml, plain_data
from slm_lab.spec.variables import apply_sets, as_texts, key_paths, short_env, variables

EnvCheck = Callable[[EnvSpec], list[str]]
"""Faults of an env that show only when it is made, as lines `env.<key>: ...`."""


@dataclass(frozen=True)
class Checked:
    """What became of a raw spec."""

    name: str
    spec: Spec | None
    """None where something is missing or wrong."""
    faults: list[str] = field(default_factory=list)
    open_variables: dict[str, list[str]] = field(default_factory=dict)
    """Variables without a value, each with the key paths where it is used."""
    notes: list[str] = field(default_factory=list)
    """What was changed in a spec of an older version; none: it is as it was."""
    left_out: list[str] = field(default_factory=list)
    """Keys of a spec of an older version that have no effect."""
    unsearchable: list[str] = field(default_factory=list)
    """Why a spec that trains can't be searched."""
    data: dict[str, Any] | None = None
    """In the present format, with variables filled in; None where an older one can't be taken to it."""
    old: bool = False
    """Written for an older version."""


Checker = Callable[..., Checked]
"""`check`, or what checks more."""


@dataclass(frozen=True)
class SpecFile:
    """The specs of a file by name, as in the file: neither variables filled in nor checked."""

    specs: dict[str, dict[str, Any]]
    notes: dict[str, list[str]] = field(default_factory=dict)
    """By the spec's name, what is odd about the text but was let pass."""
    content: dict[str, Any] = field(default_factory=dict)
    """All that the file holds."""
    text: str = ""


def read_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """The specs of a file by name, as in the file (see `open_file`)."""
    return open_file(path).specs


def open_file(path: str | Path) -> SpecFile:
    """Read a spec file.

    A file holds an object of specs. Names that begin with `_` (YAML anchors) and `$` (`$schema`) are no specs. A file
    may also hold one bare spec, such as the copy of it in a run folder. Keys given twice are errors, but in specs of
    version 4, whose reader took the last one.

    Raises:
        SpecError: no such file, not readable, or no JSON or YAML; with line and column where there is one.
    """
    path = find_file(path)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise SpecError([f"can't be read: {e.strerror}"], str(path)) from None
    text = decode(data, str(path))
    stem = path.stem.removesuffix("_spec")
    if is_yaml(path):
        content = parse_yaml(text, str(path))
        return SpecFile(_specs(content, str(path), stem), {}, content, text)
    twice: list[tuple[str, str]] = []
    try:
        content = parse_json(text, str(path), twice)
    except SpecError:
        if path.suffix.lower() in SUFFIXES or text.lstrip()[:1] == "{":
            raise
        raise SpecError([f"neither JSON nor YAML; spec files end in {', '.join(SUFFIXES)}"], str(path)) from None
    specs = _specs(content, str(path), stem) if isinstance(content, dict) or not twice else {}
    wrong = [fault for name, fault in twice if name not in specs or version_of(specs[name]) != "v4"]
    if wrong:
        raise SpecError(wrong, str(path))
    notes: dict[str, list[str]] = {}
    for name, fault in twice:
        notes.setdefault(name, []).append(f"{fault}: the last one counts")
    return SpecFile(specs, notes, content, text)


def load_spec(
    source: str | Path | dict[str, Any],
    name: str | None = None,
    *,
    sets: dict[str, Any] | None = None,
    checker: Checker | None = None,
) -> Spec:
    """Load, fill in and check a spec. Imports the modules that its `meta.plugins` lists.

    A spec of an older version is taken to the present one; what was changed in it is logged, once.

    Args:
        source: file (see `find_file`), or an object of specs, or one spec
        name: of the spec in the file; may be left out where there is one only
        sets: values of `${variables}`, and of keys by dotted path. With `env` among the variables, the name of the spec
            takes over the env's short name (`ppo_atari` with env=ALE/Pong-v5: `ppo_atari_pong`).
        checker: in place of `check`

    Raises:
        SpecError: all that is wrong, a line each.
    """
    found = load_specs(source, name, sets=sets, checker=checker)
    refuse_sweep([spec.name for spec in found], f"{source}: {name}")
    return found[0]


def load_specs(
    source: str | Path | dict[str, Any],
    name: str | None = None,
    *,
    sets: dict[str, Any] | None = None,
    checker: Checker | None = None,
) -> list[Spec]:
    """As `load_spec`, all that a name stands for: one spec, or those of a sweep (`spec_params` of version 4).

    One spec of a sweep is named with its values after the name. A variable that `sets` gives is not swept over.
    """
    where = "spec" if isinstance(source, dict) else str(source)
    file = SpecFile(_specs(plain_data(source, where), where, "spec")) if isinstance(source, dict) else open_file(source)
    if name is None:
        name = only_name(file.specs, where)
    found, sets = [], as_texts(sets or {})
    for key, raw in named(file, name, sets, where).items():
        checked = (checker or check)(raw, key, sets=sets)
        if checked.spec is None:
            raise SpecError(_open_faults(checked) + checked.faults, f"{where}: {key}")
        found.append(checked.spec)
        told = [*file.notes.get(name, ()), *checked.notes, *checked.left_out]
        if told:
            head = f"{where}: {key}: of an older version; runs with these changes ('slm-lab migrate' writes them):"
            note("\n  ".join([head, *told]))
    return found


def only_name(specs: Collection[str], where: str) -> str:
    """The name of the only spec of a file.

    Raises:
        SpecError: it holds several, or none.
    """
    if len(specs) != 1:
        raise SpecError([f"which of the specs? {', '.join(specs) or 'there is none'}"], where)
    return next(iter(specs))


def refuse_sweep(names: Collection[str], where: str) -> None:
    """Refuse a name that stands for these specs, where there must be one."""
    if len(names) > 1:
        raise SpecError([f"stands for {len(names)} specs (spec_params): name one of {', '.join(names)}"], where)


def named(file: SpecFile, name: str, sets: dict[str, str], where: str) -> dict[str, dict[str, Any]]:
    """The raw specs that a name stands for: one, or those of a sweep.

    Raises:
        SpecError: there is no such spec.
    """
    if name in file.specs:
        return sweep(file.specs[name], name, sets)
    swept = {key: raw for n, spec in file.specs.items() for key, raw in sweep(spec, n, sets).items()}
    if name in swept:
        return {name: swept[name]}
    listed = f"in this file: {', '.join(file.specs)}" if file.specs else "the file holds none"
    raise SpecError([f"no spec '{name}'{did_you_mean(name, file.specs)} ({listed})"], where)


def check(
    raw: dict[str, Any], name: str, *, sets: dict[str, str] | None = None, check_env: EnvCheck | None = None
) -> Checked:
    """Fill in and check one raw spec by itself, without building anything; nothing is raised.

    Where variables have no value, the rest is checked all the same. `check_env` tells what is wrong with the env, so
    that its faults are listed with the others.
    """
    filled, faults = apply_sets({**raw, "name": name}, sets or {})
    if sets and "env" in sets and "env" in variables(raw):
        filled["name"] = f"{name}_{short_env(sets['env'])}"
    old = version_of(filled) != "current"
    try:
        migrated = migrate(filled)
    except SpecError as e:
        return Checked(filled["name"], None, [*faults, *e.faults], old=old)
    filled = migrated.spec
    missing = variables(filled)
    open_paths = {path for paths in missing.values() for path in paths}
    try:
        import_plugins(_plugins(filled))
        imported = True
    except LabError as e:
        faults.append(str(e))
        imported = False
    spec = None
    try:
        spec = Spec.model_validate(filled)
    except ValidationError as e:
        faults += [str(f) for f in explain(e) if not _concerns(f, open_paths) and (imported or not _foreign(f))]
    faults = [fault + _whole_path(fault, spec.model_dump(mode="json") if spec else filled) for fault in faults]
    if check_env is not None and "env.name" not in open_paths:
        env = _env(filled)
        faults += check_env(env) if env else []
    good = spec if not faults and not missing else None
    return Checked(filled["name"], good, faults, missing, migrated.notes, data=filled, old=old)


def _specs(data: Any, where: str, stem: str) -> dict[str, dict[str, Any]]:
    if not isinstance(data, dict):
        what = "is empty" if data is None else "must hold an object: spec names and their specs"
        raise SpecError([what], where)
    if {"agent", "env", "meta"} <= data.keys():
        name = data.get("name", stem)
        return {name if isinstance(name, str) else stem: {k: v for k, v in data.items() if k[:1] != "$"}}
    specs = {name: spec for name, spec in data.items() if name[:1] not in ("_", "$")}
    wrong = [name for name, spec in specs.items() if not isinstance(spec, dict)]
    if wrong:
        raise SpecError([f"{name}: must be a spec, an object with agent, env and meta" for name in wrong], where)
    return specs


def _open_faults(checked: Checked) -> list[str]:
    return [
        f"{path}: ${{{name}}} has no value, give it one with -s {name}=..."
        for name, paths in checked.open_variables.items()
        for path in paths
    ]


def _concerns(fault: Fault, open_paths: set[str]) -> bool:
    # a class can't be looked up, nor its keys be checked, while its name is open
    return fault.path in open_paths or any(path.startswith(fault.path + ".") for path in open_paths)


def _foreign(fault: Fault) -> bool:
    """Whether the name of a class is unknown that a plugin may have."""
    return "module in meta.plugins" in fault.text and "did you mean" not in fault.text


def _whole_path(fault: str, data: dict[str, Any]) -> str:
    """What is to be added where `-s` names a key without the path that leads to it."""
    named = re.match(r"-s (\w+): ", fault)
    if named is None or "did you mean" in fault:
        return ""
    paths = [f"'-s {path}=...'" for path in key_paths(data) if path.endswith(f".{named[1]}")]
    return f", did you mean {' or '.join(paths[:3])}?" if paths else ""


def _plugins(data: dict[str, Any]) -> list[str]:
    listed = pydash.get(data, "meta.plugins")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [name for name in names if all(part.isidentifier() for part in name.split("."))]


def _env(data: dict[str, Any]) -> EnvSpec | None:
    """The env, as far as its name and the keys for gym.make say it; None where they do not."""
    env = data.get("env")
    if not isinstance(env, dict):
        return None
    known = EnvSpec.model_fields.keys() - {"name"}
    for part in (env, {k: v for k, v in env.items() if k not in known} | {"max_frame": 1}):
        with suppress(ValidationError):
            return EnvSpec.model_validate(part)
    return None
