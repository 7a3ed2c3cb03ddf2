"""Pieces of the page: text that can't be mistaken for markup, tables, sections."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from slm_lab.experiment.report.figures import Figure


class Markup(str):
    """HTML that was made here, and is taken as it is."""

    __slots__ = ()


@dataclass
class Section:
    """A heading, what is said under it, and its figures."""

    title: str
    parts: list[Markup | Figure] = field(default_factory=list)


@dataclass
class Page:
    """All that a page shows."""

    title: str
    subtitle: str
    badges: list[tuple[str, str]]
    """Word and kind: good, busy, bad, plain."""
    headline: Markup
    sections: list[Section]
    switches: dict[str, str] = field(default_factory=dict)
    """What can be switched on and off -> its colour."""
    missing: list[str] = field(default_factory=list)
    """What the report lacks, in words."""


def text(value: Any) -> Markup:
    """Escaped.

    >>> text("a < b")
    'a &lt; b'
    """
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def tag(name: str, *inner: Any, **attributes: str) -> Markup:
    """An element.

    >>> tag("p", "1 < 2", cls="note")
    '<p class="note">1 &lt; 2</p>'
    """
    head = "".join(f' {k.replace("cls", "class")}="{html.escape(v)}"' for k, v in attributes.items())
    return Markup(f"<{name}{head}>{''.join(map(text, inner))}</{name}>")


def note(words: str) -> Markup:
    """Small print."""
    return tag("p", words, cls="note")


def sentences(words: Iterable[str]) -> Markup:
    """A paragraph each; empty ones are left out."""
    return tag("div", *(tag("p", sentence) for sentence in words if sentence), cls="words")


def headline(value: str, what: str, words: Iterable[str]) -> Markup:
    """The number that counts, what it is, and what there is to say of it."""
    return Markup(tag("div", value, tag("small", what), cls="score") + sentences(words))


def table(
    headers: Sequence[Any], rows: Sequence[Sequence[Any]], *, numbers: Sequence[int] = (), **attributes: str
) -> Markup:
    """A table; `numbers`: columns that are set to the right."""

    def cells(name: str, row: Sequence[Any]) -> Markup:
        found = [tag(name, v, **({"cls": "number"} if i in numbers else {})) for i, v in enumerate(row)]
        return tag("tr", *found)

    body = [cells("td", row) for row in rows]
    inner = tag("table", tag("thead", cells("th", headers)), tag("tbody", *body), **attributes)
    return tag("div", inner, cls="scroll")
