"""Pages of the documentation, and the code that they show."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def page(name: str) -> str:
    """Its text."""
    return (ROOT / name).read_text(encoding="utf-8")


def block(name: str, language: str, word: str) -> str:
    """The one code block of a page in that language that contains the word."""
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL) if word in code]
    return str(found)


def run_python(code: str, folder: Path) -> str:
    """What the code prints, run in a folder outside the repository."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
