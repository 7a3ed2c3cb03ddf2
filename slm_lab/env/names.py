"""Which env a name means: ids of older gyms, `module:Env-v0`, and helpful words where there is none."""

import importlib
import re
from contextlib import suppress
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec as Registration

from slm_lab.env.foreign import find_foreign, unknown_of
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.past.envs import OLD_ATARI_IDS, OLD_IDS, UNITY, VIZDOOM, replaced

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "LunarLanderContinuous-v2": ("LunarLander-v3", {"continuous": True}),
    "LunarLanderContinuous-v3": ("LunarLander-v3", {"continuous": True}),
}
"""Ids that not every gymnasium has, as another id with arguments."""

FAMILIES = {
    ("Unity",): UNITY,
    ("vizdoom",): VIZDOOM,
    ("Roboschool",): "Roboschool is no longer maintained; gymnasium has MuJoCo envs, e.g. HalfCheetah-v5",
    ("BulletEnv", "pybullet"): "PyBullet's envs never came to gymnasium; it has MuJoCo envs, e.g. HalfCheetah-v5",
    ("-ram",): "the memory of the console is no observation any more; ALE/<Game>-v5 shows the screen",
}
"""Parts of names of whole families, and what is to be said of them."""

PACKAGES = {
    ("BabyAI-", "MiniGrid-"): ("minigrid", "minigrid"),
    ("MiniWorld-",): ("miniworld", "miniworld"),
    ("MinAtar/",): ("minatar", "minatar"),
    ("Vizdoom",): ("vizdoom", "vizdoom.gymnasium_wrapper"),
    ("Adroit", "AntMaze", "Fetch", "FrankaKitchen", "HandManipulate", "HandReach", "PointMaze"): (
        "gymnasium-robotics",
        "gymnasium_robotics",
    ),
    ("dm_control/",): ("shimmy[dm-control]", "shimmy"),
    ("Meta-World/",): ("metaworld", "metaworld"),
    ("Panda",): ("panda-gym", "panda_gym"),
    ("PyFlyt/",): ("PyFlyt", "PyFlyt.gym_envs"),
    ("gym_pusht/",): ("gym-pusht", "gym_pusht"),
    ("popgym-",): ("popgym", "popgym"),
    ("tetris_gymnasium/",): ("tetris-gymnasium", "tetris_gymnasium.envs"),
    ("mo-",): ("mo-gymnasium", "mo_gymnasium"),
    ("FlappyBird-",): ("flappy-bird-gymnasium", "flappy_bird_gymnasium"),
    ("highway-", "merge-", "parking-", "roundabout-"): ("highway-env", "highway_env"),
}
"""How names of other packages begin: the package to install, and the module that registers its envs."""


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
            after `module:`, the module that registers it; or `module:Name` of a class or function that makes it.

    Raises:
        LabError: there is none; with the nearest known name, of the module where one is named.
    """
    if name.startswith("playground/"):
        from slm_lab.env.playground import find_task

        return Found(name, find_task(name), {})
    module, _, env_id = name.rpartition(":")
    if module:
        # an id that a module registers is not an old one, even if it looks like it; but for ALE's
        own = find_foreign(module, env_id)
        if own is not None and not _by_ale(own):
            return Found(own.id, own, {})
    new_id, remark = _modern(env_id)
    kwargs: dict[str, Any] = {}
    if new_id not in gym.registry and new_id in VARIANTS:
        new_id, kwargs = VARIANTS[new_id]
    if new_id not in gym.registry:
        raise LabError(unknown_of(module, env_id) if module else _unknown(env_id))
    if new_id != env_id:
        changed = "".join(f", {k}={v}" for k, v in kwargs.items()) + (f"; {remark}" if remark else "")
        note(f"env.name: '{env_id}' is now '{new_id}'{changed}")
    return Found(new_id, gym.registry[new_id], dict(kwargs))


def _modern(env_id: str) -> tuple[str, str]:
    """What an old id is called now, and what is to be said of it."""
    if env_id.startswith("ALE/"):
        _import_ale()
        return _newest(env_id) or env_id, ""
    if found := replaced(env_id, OLD_IDS):
        return found
    # ALE registers old ids too; only the new ones give what it has now
    if env_id in gym.registry and not _by_ale(gym.registry[env_id]):
        return env_id, ""
    newest = _newest(env_id)
    if newest is not None and not _by_ale(gym.registry[newest]):
        return newest, ""
    for pattern, template, remark in OLD_ATARI_IDS:
        if match := re.fullmatch(pattern, env_id):
            _import_ale()
            new_id = template.format(*match.groups())
            if new_id in gym.registry:
                return new_id, remark
    return env_id, ""


def _by_ale(registration: Registration) -> bool:
    return str(registration.entry_point).startswith("ale_py.")


def _import_ale() -> None:
    """ALE's envs are registered when it is imported: only for names that look like its own, as that takes a while."""
    try:
        importlib.import_module("ale_py")
    except ImportError as e:
        raise LabError(f"env.name: Atari envs come with the package ale-py, which can't be imported: {e}") from e


def _newest(env_id: str) -> str | None:
    """The highest version of an env, for an id without a version or with a lower one."""
    base, _, asked = env_id.rpartition("-v")
    base, least = (base, int(asked)) if asked.isdecimal() else (env_id, -1)
    versions = [r.version for r in gym.registry.values() if r.version is not None and r.id == f"{base}-v{r.version}"]
    return f"{base}-v{max(versions)}" if versions and max(versions) > least else None


def _unknown(env_id: str) -> str:
    text = f"env.name: unknown env '{env_id}'"
    for starts, (package, module) in PACKAGES.items():
        if env_id.startswith(starts):
            return f"{text}: it comes with the package {package}: install it, and name the env '{module}:{env_id}'"
    for parts, advice in FAMILIES.items():
        if any(part.lower() in env_id.lower() for part in parts):
            return f"{text}: {advice}"
    with suppress(LabError):
        _import_ale()
    game = f"ALE/{env_id.rpartition('-')[0] or env_id}-v5"
    # of ALE's own old ids only those are known that `OLD_ATARI_IDS` says
    known = [i for i, r in gym.registry.items() if i.startswith("ALE/") or not _by_ale(r)]
    near = f", did you mean '{game}'?" if game in gym.registry else did_you_mean(env_id, known)
    return f"{text}{near}" if near else f"{text} (install the package it comes with, and name it 'module:{env_id}')"
