"""Where log lines go."""

import io
import re
import subprocess
import sys

import pytest
from loguru import logger
from rich.console import Console
from rich.live import Live

from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note, renew_notes, setup


@pytest.fixture(autouse=True)
def _restore():
    yield
    logger.remove()
    logger.add(sys.stderr)


def test_console_line_is_short(capsys):
    setup("info")
    logger.info("hello {}", 3)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    hello 3\n", capsys.readouterr().err)


def test_file_has_the_date_and_the_place(tmp_path, capsys):
    path = tmp_path / "log" / "x.log"
    setup("DEBUG", path, console=False)
    logger.debug("hello")
    line = path.read_text()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} DEBUG    \S+:\d+ hello\n", line)
    assert capsys.readouterr().err == ""


def test_below_the_level_nothing_is_put_together(capsys):
    class Heavy:
        def __format__(self, spec):
            raise AssertionError("formatted")

    setup("INFO")
    logger.debug("{}", Heavy())
    logger.warning("shown")
    assert "shown" in capsys.readouterr().err


def test_a_second_setup_replaces_the_first(tmp_path):
    setup("INFO", tmp_path / "a.log", console=False)
    setup("INFO", tmp_path / "b.log", console=False)
    logger.info("hello")
    assert (tmp_path / "a.log").read_text() == ""
    assert "hello" in (tmp_path / "b.log").read_text()


def test_lines_stand_above_a_live_display():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200)
    setup("INFO")
    with Live("[bar]", console=console, auto_refresh=False) as live:
        logger.info("brackets [red] stay, " + "long " * 20 + "end")
        live.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "INFO" in text
    # one line of its own: neither read as markup nor mixed with the display
    assert any(line.endswith("long end") and "brackets [red] stay" in line for line in text.splitlines())


def test_unknown_level():
    with pytest.raises(LabError, match=r"unknown 'inof', did you mean 'INFO'\?"):
        setup("inof")


def test_needs_no_torch():
    heavy = ("torch", "numpy", "rich")
    code = f"import sys, slm_lab.lib.log, slm_lab.lib.files; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_note_is_shown_once_and_is_in_every_file(tmp_path, capsys):
    renew_notes()
    for name in ("a.log", "b.log"):
        setup("INFO", tmp_path / name)
        renew_notes()
        note("something about an env")
        note("something about an env")
        assert (tmp_path / name).read_text().count("something about an env") == 1
    assert capsys.readouterr().err.count("something about an env") == 1
