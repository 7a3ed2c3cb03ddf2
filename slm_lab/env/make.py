"""From the spec's `env` to envs that run."""

import copy
import inspect
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from slm_lab.env.base import VecEnv
from slm_lab.env.cartpole import CartPole
from slm_lab.env.gym import GymVecEnv
from slm_lab.env.names import Found, find
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.model import EnvSpec

NATIVE = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
LIMIT = "max_episode_steps"
"""gym.make's own argument: sets the limit of an episode in place of the registered one, also a higher one."""


def make_env(spec: EnvSpec, *, num_envs: int | None = None, render: str | None = None) -> VecEnv:
    """The envs that a spec asks for.

    Args:
        spec: keys it does not know itself go to gym.make.
        num_envs: N, over the spec's.
        render: "human" (a window) or "rgb_array" (frames by `VecEnv.render`), of env 0.

    Raises:
        LabError: no such env, arguments it refuses, spaces the lab can't deal with, a package that is missing.
    """
    faults = check_env(spec)
    if faults:
        raise SpecError(faults)
    found = find(spec.name)
    kwargs = {**found.kwargs, **spec.kwargs}
    own_limit = kwargs.pop(LIMIT, found.registration.max_episode_steps)
    max_t = min((limit for limit in (own_limit, spec.max_t) if limit is not None), default=None)
    n = num_envs or spec.num_envs
    plain = not found.registration.additional_wrappers
    if found.registration.entry_point == NATIVE and plain and max_t is not None:
        return CartPole(n, max_t=max_t, render=render, **found.registration.kwargs, **kwargs)

    registration = copy.copy(found.registration)
    # VecEnv resets before it steps, and counts; only where a package wraps its env the limit may mean the steps inside
    registration.order_enforce = False
    registration.max_episode_steps = None if plain else own_limit

    def make(i: int) -> gym.Env[Any, Any]:
        drawn: dict[str, Any] = {"render_mode": render} if render is not None and i == 0 else {}
        try:
            return gym.make(registration, disable_env_checker=True, **kwargs, **drawn)
        except Exception as e:
            raise LabError(f"env.name: can't make {found.id}: {_one_line(e)}") from e

    return GymVecEnv(found.id, make, n, max_t=max_t)


def check_env(spec: EnvSpec) -> list[str]:
    """What is wrong with a spec's `env`, as lines `env.<key>: ...`; no env is made for it."""
    try:
        found = find(spec.name)
        given = {**found.registration.kwargs, **found.kwargs, **spec.kwargs}
        return [*_check_limit(given), *_check_arguments(found, spec, given)]
    except LabError as e:
        return [str(e)]


def _check_limit(given: dict[str, Any]) -> list[str]:
    limit = given.get(LIMIT, 1)
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1:
        return []
    return [f"env.{LIMIT}: must be a whole number from 1 (got {limit!r})"]


def _check_arguments(found: Found, spec: EnvSpec, given: dict[str, Any]) -> list[str]:
    """Compare the keys with the signature of what makes the env."""
    parameters = _parameters(found)
    if parameters is None:
        return []
    faults = []
    if "render_mode" in spec.kwargs:
        faults.append(
            "env.render_mode: not a key of the spec: rendering is asked for on the command line, with --render"
        )
    named = {
        p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "render_mode"
    }
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        takes = ", ".join(named) or "none"
        known = [*EnvSpec.model_fields, LIMIT, *named]
        faults += [
            f"env.{key}: {found.id} takes no such argument{did_you_mean(key, known)} (it takes: {takes})"
            for key in spec.kwargs
            if key not in named and key not in (LIMIT, "render_mode")
        ]
    faults += [
        f"env.{key}: {found.id} needs this argument"
        for key, p in named.items()
        if p.default is p.empty and key not in given
    ]
    return faults


def _parameters(found: Found) -> list[inspect.Parameter] | None:
    """Of what makes the env; None where they can't be known."""
    creator: Any = found.registration.entry_point
    if creator is None:
        raise LabError(f"env.name: {found.id} comes only as a vector env of its own, which is not supported")
    if isinstance(creator, str):
        try:
            creator = load_env_creator(creator)
        except Exception as e:
            raise LabError(f"env.name: can't load {found.id}: {_one_line(e)}") from e
    try:
        return list(inspect.signature(creator).parameters.values())
    except ValueError:
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
