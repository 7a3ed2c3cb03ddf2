"""What the saved policies do: a final evaluation, and a film of the best one. Both need what trains."""

import base64
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_lab.experiment.report.html import Markup, Section, table, tag
from slm_lab.experiment.wording import interval, number
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout

KINDS = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
"""What a browser plays, by suffix."""
MOST = 2_000_000
"""Bytes of a film that is put into the page; a larger one is linked."""


def video_section(layout: Layout, page: Path, *, make: bool) -> tuple[Section | None, str | None]:
    """The film, and what there is to say where there is none.

    Args:
        layout: of the run.
        page: file of the page, which a large film is linked from.
        make: play an episode where there is no film.
    """
    film = find_film(layout)
    why = None
    if film is None and make:
        film, why = make_film(layout)
    if film is None:
        return None, why
    kind = KINDS[film.suffix.lower()]
    if film.stat().st_size <= MOST:
        source = f"data:{kind};base64,{base64.b64encode(film.read_bytes()).decode()}"
    else:
        try:
            source = film.resolve().relative_to(page.resolve().parent).as_posix()
        except ValueError:
            source = film.resolve().as_uri()
    name = str(film.relative_to(layout.root)) if film.is_relative_to(layout.root) else film.name
    if kind == "image/gif":
        shown = Markup(f'<img class="film" src="{source}" alt="an episode of the best policy">')
    else:
        shown = Markup(f'<video controls loop muted playsinline src="{source}"></video>')
    return Section("Best policy", [shown, tag("p", f"{name}: the best policy plays greedily.", cls="note")]), None


def final_evaluation(layout: Layout, episodes: int | None) -> tuple[list[Markup], str | None]:
    """What the best policy of each session reaches, and what there is to say where that can't be found out.

    Args:
        layout: of the run.
        episodes: of each policy; None: none is played, and the page tells the command.
    """
    if episodes is None:
        command = shlex.join(["slm-lab", "eval", str(layout.root), "--all-sessions"])
        return [tag("p", "Many greedy episodes of the best policies:", cls="note"), tag("pre", command)], None
    try:
        from slm_lab.experiment.measure import evaluate

        found = evaluate(layout.root, episodes, all_sessions=True)
    except ModuleNotFoundError as e:
        return [], f"no final evaluation: {e.name} is not installed"
    except (LabError, OSError) as e:
        return [], f"no final evaluation: {e}"
    rows = [
        [
            f"session {p.session}",
            f"{p.frame:,}",
            len(p.returns),
            interval(p.mean),
            number(min(p.returns)),
            number(max(p.returns)),
        ]
        for p in found.policies
    ]
    if len(found.policies) > 1:
        rows.append(["all", "", len(found), interval(found.mean), number(min(found)), number(max(found))])
    headers = ["best policy of", "frame", "episodes", "mean return [95 % interval]", "lowest", "highest"]
    note = (
        "Greedy episodes in envs of their own. The interval of a session is over its episodes, that of all over the "
        "sessions' means."
    )
    return [tag("h3", "Final evaluation"), table(headers, rows, numbers=range(1, 6)), tag("p", note, cls="note")], None


def find_film(layout: Layout) -> Path | None:
    """The newest film in the run folder."""
    films = [p for p in layout.root.rglob("*") if p.suffix.lower() in KINDS and p.is_file() and p.stat().st_size]
    return max(films, key=lambda p: p.stat().st_mtime, default=None)


@contextmanager
def _without_screen() -> Iterator[None]:
    """Let MuJoCo render where there is no screen, unless the user has said how."""
    name = "MUJOCO_GL"
    mine = sys.platform == "linux" and not {name, "DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    if mine:
        os.environ[name] = "egl"
    try:
        yield
    finally:
        if mine:
            del os.environ[name]


def make_film(layout: Layout) -> tuple[Path | None, str | None]:
    """Film an episode of the best policy, into the run folder; or say why that can't be done."""
    if not list((layout.root / "model").glob("*.pt")):
        return None, "no video: the model folder holds no checkpoint"
    path = layout.root / "graph" / f"{layout.name}_best_policy.mp4"
    try:
        from slm_lab.experiment.enjoy import enjoy
        from slm_lab.experiment.run import Options

        with warnings.catch_warnings(), _without_screen():
            warnings.simplefilter("ignore")  # renderers have much to say where there is no screen
            enjoy(layout.root, Options(device="cpu"), episodes=1, video=path)
    except ModuleNotFoundError as e:
        return None, f"no video: {e.name} is not installed"
    except (LabError, OSError) as e:
        return None, f"no video: {e}"
    return path, None
