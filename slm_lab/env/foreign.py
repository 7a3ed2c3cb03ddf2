"""Envs of other packages: what a module registers, also where it has to be asked, and what to say where it does not."""

import re
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec as Registration

from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note
from slm_lab.lib.registry import import_foreign
from slm_lab.lib.suggest import did_you_mean

REGISTER = "register_envs"
"""Name of the function by which some modules register their envs."""
SHOWN = 6
"""Ids that a message lists."""
_registered: dict[str, set[str]] = {}
"""Module -> ids that came into gymnasium's registry while it was imported and asked; not of one imported elsewhere."""


def find_foreign(module: str, env_id: str) -> Registration | None:
    """The env `module:env_id`, which the module registers, or makes under that name.

    Where importing it does not register the env, its `register_envs()` is called, then its submodules that register
    envs are tried. A class or function of the module is an env's maker under its own name: `my_envs:MyEnv`.

    Returns:
        The registration; None where there is none.

    Raises:
        LabError: the module can't be imported.
    """
    before, fresh = set(gym.registry), module not in sys.modules
    try:
        return _find(module, env_id)
    finally:
        new = set(gym.registry) - before
        if fresh:
            _registered[module] = new
        elif module in _registered:
            _registered[module] |= new


def _find(module: str, env_id: str) -> Registration | None:
    try:
        import_foreign(module)
    except LabError as e:
        raise LabError(f"env.name: '{module}:{env_id}': {e}{_why_not_imported(module, e)}") from e
    root = sys.modules[module]
    if env_id not in gym.registry:
        _register(root)
    if env_id in gym.registry:
        return gym.registry[env_id]
    if callable(getattr(root, env_id, None)):
        name = f"{module}:{env_id}"
        return Registration(name, entry_point=name)
    for name in _registering(root):
        # a part of a package may need what is not installed
        with suppress(LabError):
            import_foreign(name)
            _register(sys.modules[name])
        if env_id in gym.registry:
            note(f"env.name: {env_id} is registered by {name}")
            return gym.registry[env_id]
    return None


def package_of(registration: Registration) -> str:
    """The top-level package of what makes an env."""
    made_by: Any = registration.entry_point
    place = made_by if isinstance(made_by, str) else getattr(made_by, "__module__", "")
    return str(place).partition(":")[0].partition(".")[0]


def unknown_of(module: str, env_id: str) -> str:
    """What to say where a module has no such env: only of what it has itself."""
    root = sys.modules[module]
    # an env that it registers may be of a class of another package
    own, package = _registered.get(module, set()), module.partition(".")[0]
    known = sorted(i for i, r in gym.registry.items() if i in own or package_of(r) == package)
    text = f"env.name: unknown env '{env_id}' of the module {module}"
    if known:
        near = did_you_mean(env_id, known)
        more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
        return f"{text}{near} (it registers: {', '.join(known[:SHOWN])}{more})"
    if _speaks_old_gym(root, env_id):
        return f"{text}: it registers its envs with the old package gym, not with gymnasium; is there a newer release?"
    if module in _registered:
        return f"{text}: it registers no env, and has no class or function of that name"
    return f"{text}: it has no class or function of that name either"


def _why_not_imported(module: str, error: LabError) -> str:
    package = module.partition(".")[0]
    missing = re.search(r"No module named '(\w+)", str(error))
    if missing is None:
        return ""
    if missing[1] == "gym":
        return " (it is made for the old package gym, not for gymnasium; is there a newer release?)"
    return " (install the package that it comes with)" if missing[1] == package else ""


def _register(module: ModuleType) -> None:
    """Call the module's `register_envs()`, where it has one."""
    register = getattr(module, REGISTER, None)
    # gymnasium has a function of that name for another purpose
    if register is gym.register_envs:
        return
    if callable(register) and register.__module__.partition(".")[0] == module.__name__.partition(".")[0]:
        try:
            register()
        except Exception as e:
            raise LabError(f"env.name: {module.__name__}.{REGISTER}(): {type(e).__name__}: {e}") from e


def _registering(root: ModuleType) -> list[str]:
    """Modules and packages one level below whose source registers envs; it is only read."""
    found = []
    for folder in map(Path, getattr(root, "__path__", [])):
        for file in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
            name = file.parent.name if file.name == "__init__.py" else file.stem
            with suppress(OSError, UnicodeDecodeError):
                if file.parent != folder or name != folder.name:
                    source = file.read_text(encoding="utf-8")
                    if re.search(r"\bregister(_envs)?\(", source) and "gymnasium" in source:
                        found.append(f"{root.__name__}.{name}")
    return found


def _speaks_old_gym(root: ModuleType, env_id: str) -> bool:
    old: Any = sys.modules.get("gym.envs.registration")
    specs = getattr(getattr(old, "registry", {}), "env_specs", getattr(old, "registry", {}))
    imports_gym = getattr(getattr(root, "gym", None), "__name__", "") == "gym"
    return imports_gym or env_id in specs
