"""The page: its pieces, and one file with markup, style, script, data and plotly's script. The door to plotly.

Text can't be mistaken for markup. plotly's script and the data are compressed, and unpacked by the browser: 1.9 MB in
place of 4.8.
"""

import base64
import gzip
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from string import Template
from typing import Any

import slm_lab
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


def render(page: Page, *, footer: str, refresh: int | None = None) -> str:
    """The whole HTML file; footer: how it was made; refresh: seconds after which the browser loads it again."""
    figures: list[Figure] = []
    sections = [_section(section, i, figures) for i, section in enumerate(page.sections)]
    contents = [tag("a", s.title, href=f"#section{i}") for i, s in enumerate(page.sections)]
    badges = [tag("span", word, cls=f"badge {kind}") for word, kind in page.badges]
    switches = [_switch(name, colour) for name, colour in page.switches.items()] if len(page.switches) > 1 else []
    missing = Markup()
    if page.missing:
        missing = tag("div", "Mind that", tag("ul", *(tag("li", m) for m in page.missing)), cls="missing")
    return Template(_asset("page.html")).substitute(
        version=slm_lab.__version__,
        refresh=f'\n<meta http-equiv="refresh" content="{refresh}">' if refresh else "",
        title=text(page.title),
        css=_asset("page.css"),
        subtitle="".join(badges) + " " + text(page.subtitle),
        headline=page.headline,
        missing=missing,
        contents="".join(contents),
        switches="".join(switches),
        sections="".join(sections),
        footer=text(footer),
        library=_library(),
        data=_pack(json.dumps([f.plain() for f in figures], separators=(",", ":"), allow_nan=False)),
        script=_asset("page.js"),
    )


def _section(section: Section, index: int, figures: list[Figure]) -> Markup:
    parts: list[Markup] = []
    row: list[Markup] = []

    def close() -> None:
        if row:
            parts.append(tag("div", *row, cls="figures"))
            row.clear()

    for part in section.parts:
        if isinstance(part, Figure):
            figures.append(part)
            plot = tag("div", cls="plot")
            row.append(tag("figure", tag("figcaption", part.title), plot, cls="wide" if part.wide else "narrow"))
        else:
            close()
            parts.append(part)
    close()
    return tag("section", tag("h2", section.title), *parts, id=f"section{index}")


def _switch(name: str, colour: str) -> Markup:
    dot = tag("span", cls="dot", style=f"background:{colour}")
    return tag("button", dot, name, **{"data-switch": name, "aria-pressed": "true", "type": "button"})


def _pack(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


@cache
def _library() -> str:
    from plotly.offline import get_plotlyjs

    script: Any = get_plotlyjs()
    return _pack(script)


@cache
def _asset(name: str) -> str:
    return (resources.files("slm_lab.experiment.report") / "assets" / name).read_text(encoding="utf-8")
