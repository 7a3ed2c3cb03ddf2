"""What the saved policies do: a final evaluation, and a film of the best one. Both need what trains."""

import base64
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_lab.experiment.report.page import Markup, Section, note, table, tag
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout

KINDS = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
"""What a browser plays, by suffix."""
MOST = 2_000_000
"""Bytes of a film that is put into the page; a larger one is linked."""


def video_section(layout: Layout, page: Path, *, make: bool) -> Section | None:
    """The film, where there is one; `make`: or can be made. A large one is linked from the file of the page.

    Raises:
        LabError: why there is none.
    """
    film = find_film(layout)
    if film is None and make:
        film = make_film(layout)
    if film is None:
        return None
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
    return Section("Best policy", [shown, note(f"{name}: the best policy plays greedily.")])


def final_evaluation(layout: Layout, episodes: int | None) -> list[Markup]:
    """What the best policy of each session reaches in so many episodes; None: the page tells the command.

    Raises:
        LabError: why that can't be found out.
    """
    if episodes is None:
        command = shlex.join(["slm-lab", "eval", str(layout.root), "--all-sessions"])
        return [note("Many greedy episodes of the best policies:"), tag("pre", command)]
    try:
        from slm_lab.experiment.play.measure import evaluate

        headers, rows = evaluate(layout.root, episodes, all_sessions=True).table()
    except Exception as e:
        raise LabError(f"no final evaluation: {_reason(e)}") from e
    words = (
        "Greedy episodes of the best policies in envs of their own. The interval of a session is over its episodes, "
        "that of all over the sessions' means."
    )
    return [tag("h3", "Final evaluation"), table(headers, rows, numbers=range(1, len(headers))), note(words)]


def find_film(layout: Layout) -> Path | None:
    """The film of the run's best policy; None where there is none, or a checkpoint is newer than it."""
    films = [p for p in (_film(layout).with_suffix(kind) for kind in KINDS) if p.is_file() and p.stat().st_size]
    film = max(films, key=lambda p: p.stat().st_mtime, default=None)
    models = layout.root / "model"
    best = list(models.glob("*_ckpt-best.pt")) or list(models.glob("*_ckpt.pt"))
    if film is None or any(p.stat().st_mtime > film.stat().st_mtime for p in best):
        return None
    return film


def _film(layout: Layout) -> Path:
    return layout.root / "graph" / f"{layout.name}_best_policy.mp4"


def _reason(error: Exception) -> str:
    """An error in one line; of one that is no message for users with its class."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed"
    text = " ".join(str(error).split())
    return text if isinstance(error, LabError | OSError) else f"{type(error).__name__}: {text}"


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


def make_film(layout: Layout) -> Path:
    """Film an episode of the best policy, into the run folder.

    Raises:
        LabError: why that can't be done.
    """
    if not list((layout.root / "model").glob("*.pt")):
        raise LabError("no video: the model folder holds no checkpoint")
    path = _film(layout)
    try:
        from slm_lab.experiment.play.enjoy import enjoy
        from slm_lab.experiment.session.run import Options

        with warnings.catch_warnings(), _without_screen():
            warnings.simplefilter("ignore")  # renderers have much to say where there is no screen
            enjoy(layout.root, Options(device="cpu"), episodes=1, video=path)
    except Exception as e:
        raise LabError(f"no video: {_reason(e)}") from e
    return path
