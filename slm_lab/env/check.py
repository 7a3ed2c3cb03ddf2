"""Faults of the `env` of a spec that show without making one."""

import inspect
from typing import Any

from gymnasium.envs.registration import load_env_creator

from slm_lab.env.modes import LIMIT, beyond_native, has_native, is_atari, is_playground, why_no_tensor
from slm_lab.env.names import Found, find
from slm_lab.env.outfit import Outfit
from slm_lab.lib.errors import LabError, one_line
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.model import EnvSpec

CAR_RACING = "gymnasium.envs.box2d.car_racing:CarRacing"
RENDER = "not a key of the spec: rendering is asked for on the command line, with --render"
ATARI_ELSEWHERE = {
    "reward_clipping": "not a key of the spec: use env.clip_reward",
    "episodic_life": "not a key of the spec: use env.life_loss_info, which leaves the score to the whole game",
    "num_threads": "not a key of the spec: all cores of a session are used",
    "autoreset_mode": "not a key of the spec: episodes begin in the step in which the one before ends",
}
"""Arguments of ALE's vector env that the lab sets itself."""


def check_env(spec: EnvSpec) -> list[str]:
    """What is wrong with a spec's `env`, as lines `env.<key>: ...`; no env is made for it."""
    try:
        found = find(spec.name)
        given = {**found.registration.kwargs, **found.kwargs, **spec.kwargs}
        faults = [*_check_limit(given), *_check_mode(found, spec), *_check_arguments(found, spec, given)]
        return [*faults, *Outfit.of(spec).faults()]
    except LabError as e:
        return [str(e)]


def _check_limit(given: dict[str, Any]) -> list[str]:
    limit = given.get(LIMIT, 1)
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1:
        return []
    return [f"env.{LIMIT}: must be a whole number from 1 (got {limit!r})"]


def _check_mode(found: Found, spec: EnvSpec) -> list[str]:
    faults = []
    if (is_playground(found.id) or is_atari(found)) and spec.vectorization not in ("auto", "native"):
        faults = [f"env.vectorization: {found.id} has a vector env of its own: use auto or native"]
    if is_playground(found.id):
        beyond = ("frame_op", *beyond_native(spec))
        return faults + [f"env.{key}: {found.id} does not support it" for key in beyond if getattr(spec, key)]
    if is_atari(found) or spec.vectorization == "native":
        why = f"the vector env of {found.id} does not support it"
        faults += [f"env.{key}: {why}" for key in beyond_native(spec)]
    if spec.vectorization == "tensor" and not is_atari(found) and (reason := why_no_tensor(found, spec)):
        faults.append(reason)
    if spec.vectorization == "native" and not has_native(found):
        faults.append(f"env.vectorization: there is no vector env for {found.id}: use auto, sync, thread or async")
    if spec.vectorization == "thread" and found.registration.entry_point == CAR_RACING:
        faults.append(f"env.vectorization: {found.id} can't be drawn in threads: use auto, sync or async")
    if is_atari(found) and spec.frame_op is not None:
        faults.append(f"env.frame_op: {found.id} shows several frames as it is: use env.stack_num for another number")
    return faults


def _check_arguments(found: Found, spec: EnvSpec, given: dict[str, Any]) -> list[str]:
    """Compare the keys with the signature of what makes the env."""
    parameters = None if is_playground(found.id) else _parameters(found)
    if parameters is None:
        return []
    elsewhere = {"render_mode": RENDER, **(ATARI_ELSEWHERE if is_atari(found) else {})}
    faults = [f"env.{key}: {why}" for key, why in elsewhere.items() if key in spec.kwargs]
    named = {
        p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "render_mode"
    }
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        takes = ", ".join(named) or "none"
        known = [*EnvSpec.model_fields, LIMIT, *named]
        faults += [
            f"env.{key}: {found.id} takes no such argument{did_you_mean(key, known)} (it takes: {takes})"
            for key in spec.kwargs
            if key not in named and key not in (LIMIT, *elsewhere)
        ]
    faults += [
        f"env.{key}: {found.id} needs this argument"
        for key, p in named.items()
        if p.default is p.empty and key not in given
    ]
    if is_atari(found):
        from slm_lab.env.atari import check_arguments

        faults += check_arguments(given)
    return faults


def _parameters(found: Found) -> list[inspect.Parameter] | None:
    """Of what makes the env; None where they can't be known."""
    creator: Any = found.registration.entry_point
    if creator is None:
        raise LabError(f"env.name: {found.id} comes only as a vector env of its own, which is not supported")
    if is_atari(found):
        from slm_lab.env.atari import ARGUMENTS

        return [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ARGUMENTS]
    if isinstance(creator, str):
        try:
            creator = load_env_creator(creator)
        except Exception as e:
            raise LabError(f"env.name: can't load {found.id}: {one_line(e)}") from e
    try:
        return list(inspect.signature(creator).parameters.values())
    except ValueError:
        return None
