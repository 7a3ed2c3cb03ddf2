"""Which keys of a spec have an effect: those that something read while it was built from the spec.

`watching` notes every attribute of a spec that is read, from the spec itself to the arguments of its optimizers. So a
key without effect is found because nothing asked for its value, whichever class was built, and no list of such keys
has to be kept. What is read only later, when the agent learns, is found in the code of the objects that keep a part of
the spec (`Watch.note_later_reads`).
"""

import dataclasses
import dis
import functools
import threading
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from slm_lab.spec.basics import SpecModel

_WHOLE = ("__dict__", "__pydantic_serializer__", "__iter__", "__reduce_ex__", "__getstate__", "model_dump")
"""Attributes by which all keys of a model are read at once."""
_EXTRA = ("__pydantic_extra__", "model_extra")
_FOREIGN = ("torch", "numpy", "gymnasium", "builtins", "pydantic", "loguru", "collections", "threading")
"""Packages whose objects keep no spec."""
_lock = threading.RLock()
_watches: "list[Watch | None]" = [None]
"""The last one is active."""


class Watch:
    """What was read of a spec.

    Args:
        spec: the whole of it
    """

    def __init__(self, spec: SpecModel) -> None:
        self._spec = spec
        self._read: set[tuple[int, str]] = set()
        self.sources: dict[int, tuple[SpecModel, Mapping[str, tuple[int, str]]]] = {}
        """id of a model made from others -> the model itself, so that the id stays its own; key -> where it is from"""
        self.overruled: dict[tuple[int, str], str] = {}
        self.yielded: dict[tuple[int, str], str] = {}
        self._models = {id(model) for model in _models(spec)}

    def idle(self) -> dict[str, str]:
        """Key paths that were given and have no effect, each with the reason where it was stated (else "").

        A key that the spec must have is never one of them, nor one with its default value.
        """
        return dict(self._idle(self._spec, ""))

    def yielding(self) -> dict[str, str]:
        """Key paths that were given and have no effect because another key is meant to come before them."""
        places = {place: path for path, place in _places(self._spec, "")}
        return {places[place]: why for place, why in self.yielded.items() if place in places}

    def note(self, model_id: int, key: str) -> None:
        """The key of a model was read."""
        if model_id in self.sources:
            source = self.sources[model_id][1].get(key)
            if source is not None:
                self._read.add(source)
        self._read.add((model_id, key))

    def note_later_reads(self, *roots: object) -> None:
        """Count the keys that the methods of these objects, and of all that hang on them, may still read."""
        for owner in _objects(roots):
            near = _values(owner)
            near += [value for held in near if dataclasses.is_dataclass(held) for value in _values(held)]
            held = [m for m in near if isinstance(m, SpecModel) and self._known(m)]
            if held:
                self.note_code(type(owner), *held)

    def note_code(self, cls: type, *models: SpecModel) -> None:
        """Count the keys of these models, and of the models in them, that the methods of a class may read."""
        self._note_names(_mentioned(cls), *models)

    def note_module(self, module: types.ModuleType, *models: SpecModel) -> None:
        """Count the keys of these models that functions and classes of a module may read."""
        own = [m for m in vars(module).values() if getattr(m, "__module__", None) == module.__name__]
        functions = [getattr(m, "__wrapped__", m) for m in own]
        codes = [m.__code__ for m in functions if isinstance(m, types.FunctionType)]
        names = frozenset[str]().union(*map(_attributes, codes), *(_mentioned(m) for m in own if isinstance(m, type)))
        self._note_names(names, *models)

    def _note_names(self, names: frozenset[str], *models: SpecModel) -> None:
        waiting = list(models)
        while waiting:
            model = waiting.pop()
            values = _given(model)
            for name in names:
                if name in values:
                    self.note(id(model), name)
                    waiting += [values[name]] if isinstance(values[name], SpecModel) else []
                elif isinstance(getattr(type(model), name, None), property):
                    getattr(model, name)

    def _known(self, model: SpecModel) -> bool:
        return id(model) in self._models or id(model) in self.sources

    def _idle(self, model: SpecModel, prefix: str) -> Iterator[tuple[str, str]]:
        fields = type(model).model_fields
        for key, value in _given(model).items():
            path, place = f"{prefix}{key}", (id(model), key)
            if key not in model.model_fields_set or (key in fields and value == fields[key].get_default()):
                continue
            if place in self.overruled:
                yield path, self.overruled[place]
            elif place not in self._read:
                if key not in fields or not fields[key].is_required():
                    yield path, ""
            elif isinstance(value, SpecModel):
                yield from self._idle(value, f"{path}.")


def _hook(self: SpecModel, name: str) -> Any:
    watch = _watches[-1]
    if watch is not None:
        if name in _WHOLE:
            for key in type(self).model_fields:
                watch.note(id(self), key)
        if name in _WHOLE or name in _EXTRA:
            for key in _own(self, "__pydantic_extra__") or {}:
                watch.note(id(self), key)
        watch.note(id(self), name)
    return object.__getattribute__(self, name)


@contextmanager
def watching(spec: SpecModel) -> Iterator[Watch]:
    """Note what is read of a spec, in this block."""
    with _lock:
        watch, outermost = Watch(spec), len(_watches) == 1
        _watches.append(watch)
        SpecModel.__getattribute__ = _hook  # type: ignore[method-assign, assignment]
        try:
            yield watch
        finally:
            _watches.pop()
            if outermost:
                del SpecModel.__getattribute__


@contextmanager
def unwatched() -> Iterator[None]:
    """Reads in this block are no use of the values: they are only checked."""
    with _lock:
        _watches.append(None)
        try:
            yield
        finally:
            _watches.pop()


def given(model: SpecModel, key: str) -> Any:
    """The value of a key, without counting as its reader: for code that only passes it on."""
    return _own(model, "__dict__")[key]


def passed_on(made: SpecModel, source: SpecModel, keys: Mapping[str, str]) -> None:
    """Tell the watch, if there is one, that `made[key]` is `source[keys[key]]`: who reads one has read the other."""
    watch = _watches[-1]
    if watch is not None:
        watch.sources[id(made)] = (made, {key: (id(source), origin) for key, origin in keys.items()})


def overruled(model: SpecModel, key: str, why: str, *, meant: bool = False) -> None:
    """Tell the watch, if there is one, that a value that was read has no effect all the same.

    Args:
        model: holds the key
        key: counts only where the spec gives it; a default may be overruled
        why: what limits it, as the end of the sentence "has no effect: ..."
        meant: another key was made to come before it: a fault only where this one is searched, or given just now
    """
    watch = _watches[-1]
    if watch is not None:
        origins = watch.sources[id(model)][1] if id(model) in watch.sources else {}
        place = origins.get(key, (id(model), key))
        (watch.yielded if meant else watch.overruled)[place] = why


def _own(model: BaseModel, name: str) -> Any:
    return object.__getattribute__(model, name)


def _given(model: BaseModel) -> dict[str, Any]:
    return {**_own(model, "__dict__"), **(_own(model, "__pydantic_extra__") or {})}


def _places(model: SpecModel, prefix: str) -> Iterator[tuple[str, tuple[int, str]]]:
    for key, value in _own(model, "__dict__").items():
        if key in model.model_fields_set:
            yield f"{prefix}{key}", (id(model), key)
            if isinstance(value, SpecModel):
                yield from _places(value, f"{prefix}{key}.")


def _models(model: SpecModel) -> Iterator[SpecModel]:
    yield model
    for value in _own(model, "__dict__").values():
        if isinstance(value, SpecModel):
            yield from _models(value)


def _values(owner: object) -> list[Any]:
    if isinstance(owner, types.FunctionType):
        cells = [cell.cell_contents for cell in owner.__closure__ or () if not _is_empty(cell)]
        return [*cells, *(owner.__defaults__ or ())]
    if isinstance(owner, functools.partial):
        return [owner.func, *owner.args, *owner.keywords.values()]
    if isinstance(owner, types.MethodType):
        return [owner.__self__]
    return [*vars(owner).values()] if hasattr(owner, "__dict__") else []


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _objects(roots: tuple[object, ...]) -> Iterator[object]:
    """These objects and what hangs on them, each once."""
    seen: set[int] = set()
    waiting: list[Any] = list(roots)
    while waiting:
        owner = waiting.pop()
        if id(owner) in seen or isinstance(owner, BaseModel | type | types.ModuleType | str | bytes):
            continue
        seen.add(id(owner))
        if isinstance(owner, dict):
            waiting += owner.values()
        elif isinstance(owner, list | tuple | set | frozenset):
            waiting += owner
        elif isinstance(owner, types.FunctionType | types.MethodType | functools.partial):
            waiting += _values(owner)
        else:
            package = type(owner).__module__.partition(".")[0]
            if package not in _FOREIGN:
                yield owner
            if package not in _FOREIGN or package == "torch":  # containers of modules
                waiting += _values(owner)


@functools.cache
def _mentioned(cls: type) -> frozenset[str]:
    """Attributes that methods of a class read of anything but `self`; what `__init__` reads has been read."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] in _FOREIGN:
            continue
        for name, member in vars(base).items():
            if name == "__init__":
                continue
            # of a property, a cached one, a class method
            inner = next((f for k in ("fget", "func", "__func__") if (f := getattr(member, k, None))), member)
            code = getattr(inner, "__code__", None)
            if code is not None:
                found |= _attributes(code)
    return frozenset(found)


def _attributes(code: types.CodeType) -> set[str]:
    found: set[str] = set()
    of_self = False
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        if name in ("LOAD_ATTR", "LOAD_METHOD") and not of_self:
            found.add(value)
        last = value[-1] if isinstance(value, tuple) and value else value
        of_self = name.startswith(("LOAD_FAST", "LOAD_DEREF")) and last == "self"
    texts = {const for const in code.co_consts if isinstance(const, str)}
    if "getattr" in code.co_names:
        found |= texts
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found |= _attributes(const)
    return found
