"""All that can be known of a spec before it runs, in one round: form, names, env, and what nothing reads."""

import copy
import functools
import re
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydash
import torch
from pydantic import ValidationError

from slm_lab.agent.net.check import net_faults
from slm_lab.env.check import check_env
from slm_lab.experiment.session.resources import share_faults
from slm_lab.experiment.trial.build import UNUSED, Built, build, covers, explain_idle
from slm_lab.lib.cores import available_cores
from slm_lab.lib.errors import SpecError
from slm_lab.spec import load
from slm_lab.spec.load import Checked
from slm_lab.spec.model import Spec
from slm_lab.spec.repair import NAMES, repaired
from slm_lab.spec.search_parse import parse_search, search_faults, variants
from slm_lab.spec.variables import variables

ROUNDS = 5
"""Builds of a spec, each without what the one before it complained of."""
ENVS = ("CartPole-v1", "ALE/Pong-v5", "Pendulum-v1")
"""Stand for a variable `env`: one of each kind."""
_PATH = re.compile(r"[a-z]+(\.[\w-]+|\[\d+\])+(?=: )")
_NAMED = {*NAMES, *NAMES.values(), "agent", "env", "env.name"}
"""Key paths that decide which other keys there are, or what the agent meets."""


_passed: "weakref.WeakValueDictionary[int, Spec]" = weakref.WeakValueDictionary()
"""Specs that need no second look, by id."""


def load_specs(
    source: str | Path | dict[str, Any], name: str | None = None, *, sets: dict[str, Any] | None = None
) -> list[Spec]:
    """As `spec.load.load_specs`, with every check but those of a search, see `require_search`."""
    return load.load_specs(source, name, sets=sets, checker=_CHECK)


def load_spec(
    source: str | Path | dict[str, Any], name: str | None = None, *, sets: dict[str, Any] | None = None
) -> Spec:
    """Load, fill in and check a spec, as `slm-lab validate` does. Imports the modules that its `meta.plugins` lists.

    A spec of an older version is taken to the present one; what was changed in it is logged, once.

    Args:
        source: file (absolute, relative to the working folder, or a bundled one), or an object of specs, or one spec
        name: of the spec in the file; may be left out where there is one only
        sets: values of `${variables}`, and of keys by dotted path. With `env` among the variables, the name of the spec
            takes over the env's short name (`ppo_atari` with env=ALE/Pong-v5: `ppo_atari_pong`).

    Raises:
        SpecError: all that is wrong, a line each. What can't be searched but trains is none of it.
    """
    return load.load_spec(source, name, sets=sets, checker=_CHECK)


def require(spec: Spec, changed: Iterable[str] | None = None) -> None:
    """Refuse a spec that can't run; changed: keys that a resumed run changes.

    A key that was not changed may be without effect: the run was started with it.
    """
    if changed is None and _passed.get(id(spec)) is spec:
        return
    faults = [*net_faults(spec.agent.net), *check_env(spec.env)]
    if not faults:
        built = build(spec)
        idle = built.idle
        if changed is not None:
            keys = set(changed)
            idle = {path: why for path, why in (idle | _asked_for(spec, built)).items() if covers(keys, path)}
        faults = built.faults or explain_idle(spec, idle)
    if faults:
        raise SpecError(faults, spec.name)


def _asked_for(spec: Spec, built: Built) -> dict[str, str]:
    """Keys that another one is meant to come before, but for those that ask for nothing: null or `default`."""
    data = spec.to_dict()
    return {path: why for path, why in built.yielding.items() if pydash.get(data, path) not in (None, "default")}


def require_search(spec: Spec, device: str, *, cluster: bool) -> None:
    """Refuse a spec that runs but can't be searched, on this device; with `cluster` on machines that are not known yet.

    Raises:
        SpecError: all that is wrong with its search block; a trial asks for more than there is.
    """
    parse_search(spec)
    faults = _search_faults(spec)
    if not cluster:
        faults += share_faults(spec, available_cores(), 0 if device == "cpu" else torch.cuda.device_count())
    if faults:
        raise SpecError(faults, spec.name)


def check_spec(raw: dict[str, Any], name: str, *, sets: dict[str, str] | None = None, search: bool = True) -> Checked:
    """As `spec.load.check`, with every check there is, `search` those of a search too; nothing is raised."""
    checked = load.check(raw, name, sets=sets, check_env=check_env)
    if checked.data is None:
        return checked
    faults = list(checked.faults)
    wrong = {path for fault in faults if (path := _path(fault))}
    wrong |= {path for paths in checked.open_variables.values() for path in paths}
    whole = (checked.spec, set[str]()) if checked.spec is not None else repaired(checked.data, wrong)
    if whole is None:
        return checked
    found, built, beside = _deep_faults(checked.data, *whole)
    faults += [fault for fault in found if fault not in faults]
    if faults and not checked.old:
        faults += beside()
    if faults or checked.spec is None:
        return replace(checked, spec=None, faults=faults)
    checked = _without_idle(checked, built, sets or {})
    if checked.spec is not None:
        _passed[id(checked.spec)] = checked.spec
    if checked.spec is None or not checked.spec.search or not search:
        return checked
    return replace(checked, unsearchable=search_faults(checked.spec) or _search_faults(checked.spec))


_CHECK = functools.partial(check_spec, search=False)


def _deep_faults(
    data: dict[str, Any], spec: Spec, changed: set[str]
) -> tuple[list[str], Built, Callable[[], list[str]]]:
    """Faults of a spec, but for those of keys that were changed.

    Returns:
        The faults; the keys without effect where there are none; and what finds those beside faults.
    """
    buildable = not any(path in _NAMED for path in changed) and not check_env(spec.env)
    faults = [fault for fault in net_faults(spec.agent.net) if not covers(changed, _path(fault))]
    for _ in range(ROUNDS if buildable else 0):
        paths = {_path(fault) for fault in faults} - changed
        if paths:
            whole = repaired(data, changed | paths)
            if whole is None or any(path in _NAMED for path in whole[1]):
                break
            spec, changed = whole
        built = build(spec)
        if not built.faults:
            beside = functools.partial(_idle_beside, spec, built, changed)
            return faults, Built([]) if changed else built, beside
        new = [f for f in built.faults if f not in faults and not covers(changed, _path(f))]
        faults += new if not changed else [f for f in new if _path(f)]
        if not any(_path(f) for f in new):
            break
    return faults, Built([]), list


def _idle_beside(spec: Spec, built: Built, changed: set[str]) -> list[str]:
    """Keys without effect of a spec of which some keys were changed: those whose reason is another key than these."""
    idle = {path: why for path, why in built.idle.items() if not covers(changed, path)}
    names = {path.rpartition(".")[2] for path in changed}
    return [
        fault
        for fault in explain_idle(spec, idle)
        if not fault.endswith(UNUSED) and not names & set(re.findall(r"\w+", fault.partition(": ")[2]))
    ]


def _without_idle(checked: Checked, built: Built, sets: dict[str, str]) -> Checked:
    """Keys without effect are faults; in a spec of an older version they are left out, but for those just given."""
    spec = checked.spec
    assert spec is not None
    given = {path: why for path, why in built.idle.items() if not checked.old or covers(set(sets), path)}
    given |= {path: why for path, why in _asked_for(spec, built).items() if covers(set(sets), path)}
    if given:
        return replace(checked, spec=None, faults=explain_idle(spec, given))
    if not built.idle:
        return checked
    data, notes = drop_idle(spec, built.idle)
    return replace(checked, spec=Spec.model_validate(data), left_out=notes)


def drop_idle(spec: Spec, idle: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The data of a spec without the keys that have no effect, as far as it is valid without; a note for each."""
    data, notes = spec.to_dict(), []
    for path, why in idle.items():
        rest = copy.deepcopy(data)
        if not pydash.unset(rest, path):
            continue
        try:
            Spec.model_validate(rest)
        except ValidationError:
            continue
        data = rest
        notes.append(f"{path}: left out: it has no effect here{f', {why}' if why else ''}")
    return data, notes


def without_idle(data: dict[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Raw data of a spec without the keys that have no effect, and a note for each.

    Variables are given a value for the time being; where the spec can't be built with any, it stays as it is.
    """
    open_ = variables(data)
    for env in ENVS if "env" in open_ else ENVS[:1]:
        checked = load.check(data, name, sets={key: env if key == "env" else "1000" for key in open_})
        built = Built([""]) if checked.spec is None else build(checked.spec)
        if checked.spec is not None and not built.faults:
            notes = drop_idle(checked.spec, built.idle)[1]
            data = copy.deepcopy(data)
            return data, [note for note in notes if pydash.unset(data, _path(note))]
    return data, []


def _search_faults(spec: Spec) -> list[str]:
    """Faults that show only when trials are built: values that can't be built, axes that change nothing."""
    faults: list[str] = []
    axes = {axis.path: axis for axis in parse_search(spec)}
    without = dict.fromkeys(axes, "")
    for variant in variants(spec):
        built = build(variant)
        faults += built.faults
        whys = built.idle | built.yielding
        idle = {path: next((i for i in whys if covers({i}, path)), None) for path in without}
        without = {path: explain_idle(variant, {i: whys[i]})[0] for path, i in idle.items() if i is not None}
    for path, why in without.items():
        faults.append(f"search.{axes[path].key}: {why.partition(': ')[2]}")
    return list(dict.fromkeys(faults))


def _path(fault: str) -> str:
    """The key path that a fault begins with; empty where it names none."""
    found = _PATH.match(fault)
    return found[0] if found else ""
