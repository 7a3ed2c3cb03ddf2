"""Which env a name means: ids of older gyms, `module:Env-v0`, and helpful words where there is none."""

import functools
import importlib
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec as Registration
from loguru import logger

from slm_lab.lib.errors import LabError
from slm_lab.lib.suggest import did_you_mean

RENAMED = {
    "BipedalWalker-v2": "BipedalWalker-v3",
    "BipedalWalkerHardcore-v2": "BipedalWalkerHardcore-v3",
    "CartPole-v0": "CartPole-v1",
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
    "Pendulum-v0": "Pendulum-v1",
}
"""Ids of older gyms that specs still hold, and what they are now."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "LunarLanderContinuous-v3": ("LunarLander-v3", {"continuous": True}),
}
"""Ids that not every gymnasium has, as another id with arguments."""

FAMILIES = {
    ("Unity",): "Unity ML-Agents envs are not supported any more",
    ("vizdoom",): "VizDoom envs are not supported any more",
    ("Roboschool",): "Roboschool is no longer maintained; gymnasium has MuJoCo envs, e.g. HalfCheetah-v5",
    ("BulletEnv", "pybullet"): "PyBullet's envs never came to gymnasium; it has MuJoCo envs, e.g. HalfCheetah-v5",
    ("ALE/", "NoFrameskip"): "Atari envs come with the package ale-py, as ALE/<Game>-v5",
}
"""Parts of names of whole families, and what is to be said of them."""


class Found(NamedTuple):
    """An env that gymnasium knows."""

    id: str
    registration: Registration
    kwargs: dict[str, Any]
    """Arguments that the name implies."""


def find(name: str) -> Found:
    """The env of that name.

    Args:
        name: a registered id, an id of an older gym, an id without its version (the newest is taken), or any of these
            behind `module:`, the module that registers it.

    Raises:
        LabError: there is none; with the nearest known name.
    """
    module, _, env_id = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as e:
            raise LabError(f"env.name: can't import '{module}' of '{name}': {e}") from e
    new_id = RENAMED.get(env_id, env_id)
    newest = _newest(new_id)
    if new_id not in gym.registry and newest is not None:
        new_id = newest
    kwargs: dict[str, Any] = {}
    if new_id not in gym.registry and new_id in VARIANTS:
        new_id, kwargs = VARIANTS[new_id]
    if new_id not in gym.registry:
        raise LabError(_unknown(env_id))
    if new_id != env_id:
        note(f"env.name: '{env_id}' is now '{new_id}'" + "".join(f", {k}={v}" for k, v in kwargs.items()))
    return Found(new_id, gym.registry[new_id], dict(kwargs))


@functools.cache
def note(text: str) -> None:
    """Log a text at level info, once in a process."""
    logger.info(text)


def _newest(env_id: str) -> str | None:
    """The id with the highest version, for an id without one."""
    versions = [r.version for r in gym.registry.values() if r.version is not None and r.id == f"{env_id}-v{r.version}"]
    return f"{env_id}-v{max(versions)}" if versions else None


def _unknown(env_id: str) -> str:
    text = f"env.name: unknown env '{env_id}'"
    for parts, advice in FAMILIES.items():
        if any(part.lower() in env_id.lower() for part in parts):
            return f"{text}: {advice}"
    near = did_you_mean(env_id, gym.registry)
    return f"{text}{near}" if near else f"{text} (an env of another package is named 'module:{env_id}')"
