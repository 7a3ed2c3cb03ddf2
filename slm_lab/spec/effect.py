"""Which keys of a spec have an effect: those that something read while it was built from the spec.

`watching` notes every attribute of a spec that is read, from the spec itself to the arguments of its optimizers. So a
key without effect is found because nothing asked for its value, whichever class was built, and no list of such keys
has to be kept. What is read only later, when the agent learns, is found in the code of the objects that keep a part of
the spec (`Watch.note_later_reads`).
"""

import dataclasses
import dis
import functools
import itertools
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from slm_lab.spec.basics import SpecModel

Chain = tuple[str, ...]
"""Names that follow each other: a variable, its attribute, an attribute of that ..."""
_WHOLE = ("__dict__", "__pydantic_serializer__", "__iter__", "__reduce_ex__", "__getstate__", "model_dump")
"""Attributes by which all keys of a model are read at once."""
_EXTRA = ("__pydantic_extra__", "model_extra")
_FOREIGN = ("torch", "numpy", "gymnasium", "builtins", "pydantic", "loguru", "collections", "threading")
"""Packages whose objects keep no spec."""
_EMPTY_CELL = types.CellType()
"""What a closure holds of a name that has no value yet."""
_lock = threading.RLock()
_watches: "list[Watch | None]" = [None]
"""The last one is active."""


class Watch:
    """What was read of a spec."""

    def __init__(self, spec: SpecModel) -> None:
        self._spec = spec
        self._read: set[tuple[int, str]] = set()
        self.sources: dict[int, tuple[SpecModel, Mapping[str, tuple[int, str]]]] = {}
        """id of a model made from others -> the model itself, so that the id stays its own; key -> where it is from"""
        self.overruled: dict[tuple[int, str], str] = {}
        self.yielded: dict[tuple[int, str], str] = {}
        self._models = {id(model) for _, model in _models(spec)}
        self.misread: set[str] = set()
        """Attributes that code reads of models which lack them."""

    def idle(self) -> dict[str, str]:
        """Key paths that were given and have no effect, each with the reason where it was stated (else "").

        A key that the spec must have is never one of them, nor one with its default value.
        """
        return dict(self._idle(self._spec, ""))

    def yielding(self) -> dict[str, str]:
        """Key paths that were given and have no effect because another key is meant to come before them."""
        places = {(id(m), key): f"{prefix}{key}" for prefix, m in _models(self._spec) for key in m.model_fields_set}
        return {places[place]: why for place, why in self.yielded.items() if place in places}

    def note(self, model_id: int, key: str) -> None:
        """The key of a model was read."""
        self._read |= {(model_id, key), self.origin(model_id, key)}

    def origin(self, model_id: int, key: str) -> tuple[int, str]:
        """The key of the spec that this one of a model was made from; itself where it was not."""
        made = self.sources.get(model_id)
        return made[1].get(key, (model_id, key)) if made else (model_id, key)

    def note_later_reads(self, *roots: object) -> None:
        """Count the keys that the methods of these objects, and of all that hang on them, may still read.

        `self.spec.lr` reads `lr` of the model that the object holds there. Where code does not tell whose attribute it
        reads (`spec.lr` of an argument), the key counts in every model that the object holds.
        """
        for owner in _objects(roots):
            near = _values(owner)
            near += [value for held in near if dataclasses.is_dataclass(held) for value in _values(held)]
            held = [m for m in near if isinstance(m, SpecModel) and self._known(m)]
            if held:
                paths, names = _mentioned(type(owner))  # type: ignore[arg-type]
                followed = [self._follow(owner, path) for path in paths]
                lost = [name for rest, _ in followed for name in rest]
                # `spec = self.spec.beta_spec`, then `spec.parts`
                held += [end for _, end in followed if end is not None]
                self._note_names(names.union(lost), held)

    def note_module(self, module: types.ModuleType, **models: SpecModel) -> None:
        """Count the keys of these models that functions and classes of a module may read.

        Args:
            module: its code is looked at
            models: by the name under which the code has them: `meta.sinks`, `run.spec.meta.sinks`
        """
        own = [m for m in vars(module).values() if getattr(m, "__module__", None) == module.__name__]
        functions = [getattr(m, "__wrapped__", m) for m in own]
        codes = [m.__code__ for m in functions if isinstance(m, types.FunctionType)]
        codes += [code for m in own if isinstance(m, type) for code in _codes(m)]
        for chain in frozenset[Chain]().union(*map(_chains, codes)):
            for name, key in itertools.pairwise(chain):
                # `self.env` is the env itself
                if name in models and chain[:2] != ("self", name):
                    self._note_names(frozenset([key]), [models[name]])

    def _note_names(self, names: frozenset[str], models: Iterable[SpecModel]) -> None:
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

    def _follow(self, owner: Any, path: Chain) -> tuple[Chain, SpecModel | None]:
        """Count the keys on the way along attributes.

        Returns:
            the rest of a path that leads to where can't be seen; the model that a whole path ends at
        """
        for k, name in enumerate(path):
            if isinstance(owner, SpecModel):
                if name not in _given(owner) and not hasattr(type(owner), name):
                    self.misread.add(name)
                self._note_names(frozenset([name]), [owner])
                owner = _given(owner).get(name)
            else:
                owner = getattr(owner, "__dict__", {}).get(name)
            if owner is None:
                return path[k + 1 :], None
        return (), owner if isinstance(owner, SpecModel) else None

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
        extra = _own(self, "__pydantic_extra__") or {} if name in (*_WHOLE, *_EXTRA) else ()
        for key in (name, *extra, *(type(self).model_fields if name in _WHOLE else ())):
            watch.note(id(self), key)
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
    """Register with the watch, if any, that `made[key]` is `source[keys[key]]`: reading one is reading the other."""
    watch = _watches[-1]
    if watch is not None:
        watch.sources[id(made)] = (made, {key: (id(source), origin) for key, origin in keys.items()})


def overruled(model: SpecModel, key: str, why: str, *, meant: bool = False) -> None:
    """Register with the watch, if any, that a value has no effect although it was read.

    Args:
        model: holds the key
        key: counts only where the spec gives it; a default may be overruled
        why: what limits it, as the end of the sentence "has no effect: ..."
        meant: another key was made to come before it: a fault only where this one is searched, or given just now
    """
    watch = _watches[-1]
    if watch is not None:
        (watch.yielded if meant else watch.overruled)[watch.origin(id(model), key)] = why


def _own(model: BaseModel, name: str) -> Any:
    return object.__getattribute__(model, name)


def _given(model: BaseModel) -> dict[str, Any]:
    return {**_own(model, "__dict__"), **(_own(model, "__pydantic_extra__") or {})}


def _models(model: SpecModel, prefix: str = "") -> Iterator[tuple[str, SpecModel]]:
    """A model and all inside it, each with what its key paths begin with."""
    yield prefix, model
    for key, value in _own(model, "__dict__").items():
        if isinstance(value, SpecModel):
            yield from _models(value, f"{prefix}{key}.")


def _values(owner: object) -> list[Any]:
    if isinstance(owner, types.FunctionType):
        cells = [cell.cell_contents for cell in owner.__closure__ or () if cell != _EMPTY_CELL]
        return [*cells, *(owner.__defaults__ or ())]
    if isinstance(owner, functools.partial):
        return [owner.func, *owner.args, *owner.keywords.values()]
    if isinstance(owner, types.MethodType):
        return [owner.__self__]
    return [*vars(owner).values()] if hasattr(owner, "__dict__") else []


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
def _mentioned(cls: type) -> tuple[frozenset[Chain], frozenset[str]]:
    """Attributes that methods of a class read: along which path from `self`, and those of anything else."""
    chains = frozenset[Chain]().union(*map(_chains, _codes(cls)))
    paths = frozenset(chain[1:] for chain in chains if chain[0] == "self")
    return paths, frozenset(name for chain in chains if chain[0] != "self" for name in chain[1:])


def _codes(cls: type) -> Iterator[types.CodeType]:
    """Of the methods of a class, but for `__init__`: what that reads has been read."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] not in _FOREIGN:
            for name, member in vars(base).items():
                # of a property, a cached one, a class method
                inner = next((f for k in ("fget", "func", "__func__") if (f := getattr(member, k, None))), member)
                code = getattr(inner, "__code__", None)
                if code is not None and name != "__init__":
                    yield code


@functools.cache
def _chains(code: types.CodeType) -> frozenset[Chain]:
    """What is read in a function: `run.spec.meta` as its names, one tuple; "" for what has no name.

    >>> sorted(_chains((lambda self, x: self.spec.lr + max(x).gamma).__code__))
    [('', 'gamma'), ('self', 'spec', 'lr')]
    """
    found: set[Chain] = set()
    chain: Chain = ("",)
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            found.discard(chain)
            chain = (*chain, value)
            found.add(chain)
        elif name.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_GLOBAL")):
            chain = (value[-1] if isinstance(value, tuple) else value,)
        elif name not in ("EXTENDED_ARG", "CACHE"):
            chain = ("",)
    if "getattr" in code.co_names:
        found |= {("", const) for const in code.co_consts if isinstance(const, str)}
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return frozenset(found).union(*map(_chains, inner))
