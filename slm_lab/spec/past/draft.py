"""A spec on its way from an old format to the present one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from slm_lab.lib.errors import SpecError

Data = dict[str, Any]


class Gone(SpecError):
    """The spec asks for something that no longer exists; one line says what."""

    def __init__(self, fault: str) -> None:
        super().__init__([fault])


@dataclass
class Draft:
    """A copy of a spec that steps change, with the notes on it. Whatever a file holds, its accessors give a dict."""

    spec: Data
    notes: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Key paths of what nothing reads, since the last note on such."""

    def note(self, path: str, text: str) -> None:
        """Add a note about a key."""
        self.notes.append(f"{path}: {text}")

    def put(self, path: str, value: Any, text: str) -> None:
        """Give a key a value, and note it."""
        block, _, key = path.rpartition(".")
        self.at(block)[key] = value
        self.note(path, text)

    def drop(self, path: str, key: str) -> None:
        """Leave out what nothing reads."""
        del self.at(path)[key]
        self.dropped.append(f"{path}.{key}".removeprefix("."))

    def drop_all(self, path: str, keys: Iterable[str]) -> None:
        """Leave out those of the keys that are there."""
        for key in keys:
            if key in self.at(path):
                self.drop(path, key)

    def take(self, step: "Step") -> None:
        """Take a step; all keys that it left out have one note."""
        step(self)
        if paths := self.dropped:
            self.notes.append(f"left out, nothing reads {'it' if len(paths) == 1 else 'them'}: {', '.join(paths)}")
            self.dropped = []

    def at(self, path: str) -> Data:
        """The object at a dotted path; another, empty one where there is none."""
        here: Any = self.spec
        for key in path.split(".") if path else ():
            here = here.get(key) if isinstance(here, dict) else None
        return here if isinstance(here, dict) else {}

    @property
    def env(self) -> Data:
        """The object `env`."""
        return self.at("env")

    @property
    def algorithm(self) -> Data:
        """The object `agent.algorithm`."""
        return self.at("agent.algorithm")

    @property
    def memory(self) -> Data:
        """The object `agent.memory`."""
        return self.at("agent.memory")

    @property
    def net(self) -> Data:
        """The object `agent.net`."""
        return self.at("agent.net")

    def nets(self) -> Iterator[tuple[str, Data]]:
        """Path and object of each net that has a spec."""
        for key in ("net", "critic_net"):
            if net := self.at(f"agent.{key}"):
                yield f"agent.{key}", net

    def net_parts(self, name: str) -> Iterator[tuple[str, Data]]:
        """Path and object of each `optim_spec`, say: of all nets, with and without the prefix of a role."""
        for path, net in self.nets():
            for prefix in ("", "actor_", "critic_"):
                part = net.get(prefix + name)
                if isinstance(part, dict):
                    yield f"{path}.{prefix}{name}", part

    @property
    def num_envs(self) -> int:
        """N; 1 where it is not a number."""
        n = number(self.env.get("num_envs"))
        return int(n) if n is not None and n >= 1 else 1


Step = Callable[[Draft], None]
"""A part of a migration: changes a draft, and notes what the user should know of the changes."""


def number(value: Any) -> float | None:
    """The value if it is a number, else None.

    >>> number(3), number(True), number("3")
    (3, None, None)
    """
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def text(value: Any) -> str:
    """The value if it is text, else the empty text."""
    return value if isinstance(value, str) else ""


def words(names: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(names.split())
