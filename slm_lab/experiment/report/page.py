"""The page as one file: markup, style, script, data, and plotly's script, all inside. The door to plotly.

plotly's script and the data are compressed, and unpacked by the browser: 1.9 MB in place of 4.8.
"""

import base64
import gzip
import json
from functools import cache
from importlib import resources
from string import Template
from typing import Any

import slm_lab
from slm_lab.experiment.report.figures import Figure
from slm_lab.experiment.report.html import Markup, Page, Section, tag, text


def render(page: Page, *, footer: str, refresh: int | None = None) -> str:
    """The whole HTML file.

    Args:
        page: what it shows.
        footer: when it was made, and from what.
        refresh: seconds after which the browser loads it again.
    """
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
