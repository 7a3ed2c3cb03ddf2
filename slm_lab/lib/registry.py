"""Classes by the name that a spec gives them.

A class registers itself under its kind where it is defined; `lookup` imports the modules of that kind's package on
first use. So a spec can be validated without anything of the layer above being imported by hand, and a user's own
module (`meta.plugins`) needs no fork.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from slm_lab.lib.errors import LabError, place
from slm_lab.lib.suggest import did_you_mean

PACKAGES = {
    "algorithm": "slm_lab.agent.algorithm",
    "memory": "slm_lab.agent.memory",
    "net": "slm_lab.agent.net",
    "sink": "slm_lab.agent.sinks",
}
"""The package, or the module, that holds the lab's own classes of a kind."""
_classes: dict[str, dict[str, type]] = {kind: {} for kind in PACKAGES}
_swept: set[str] = set()


class UnknownName(LabError):
    """No class of that kind is registered under the name."""


class TakenName(LabError):
    """Two classes of one kind have the same name."""


def register(kind: str, *aliases: str) -> Callable[[type], Any]:
    """Class decorator: make the class known under its own name and under each alias.

    Raises:
        TakenName: another class has the name.
    """

    def add(cls: type) -> type:
        for name in (cls.__name__, *aliases):
            other = _classes[kind].get(name)
            if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TakenName(f"{kind} '{name}' is registered already, by {other.__module__}")
            _classes[kind][name] = cls
        return cls

    return add


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    _sweep(kind)
    return sorted(_classes[kind])


def lookup(kind: str, name: str) -> Any:
    """The class registered under `name`.

    Raises:
        UnknownName: with the known names and the nearest one.
    """
    _sweep(kind)
    try:
        return _classes[kind][name]
    except KeyError:
        known = names(kind)
        raise UnknownName(
            f"unknown {kind} '{name}'{did_you_mean(name, known)} (known: {', '.join(known)}; "
            "is it your own? Then name its module in meta.plugins)"
        ) from None


def having(kind: str, trait: str, value: object = True) -> list[str]:
    """Names of the classes of a kind whose attribute `trait` has this value, such as `recurrent`."""
    return [name for name in names(kind) if getattr(lookup(kind, name), trait, None) == value]


def import_plugins(modules: list[str]) -> None:
    """Import the modules a spec names in `meta.plugins`, so that what they register is known.

    Raises:
        LabError: a module can't be imported.
    """
    if modules:
        for kind in PACKAGES:  # first come, first served: a plugin can't take the name of what the lab has
            _sweep(kind)
    for module in modules:
        try:
            import_foreign(module)
        except TakenName as e:
            raise LabError(f"meta.plugins: {module}: {e}") from e
        except LabError as e:
            raise LabError(f"meta.plugins: {e}") from e


def import_foreign(module: str) -> None:
    """Import a module from outside the lab; an error in it becomes one line with its place."""
    try:
        importlib.import_module(module)
    except TakenName:
        raise
    except ImportError as e:
        raise LabError(f"can't import '{module}': {e}") from e
    except (Exception, SystemExit) as e:
        where = "" if isinstance(e, SyntaxError) else place(e)  # a syntax error has its own
        said = f"{type(e).__name__}: {' '.join(str(e).split())}{where and f' ({where})'}"
        raise LabError(f"can't import '{module}': {said}") from e


def _sweep(kind: str) -> None:
    if kind in _swept:
        return
    _swept.add(kind)
    package = importlib.import_module(PACKAGES[kind])
    for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
        importlib.import_module(f"{PACKAGES[kind]}.{module.name}")
