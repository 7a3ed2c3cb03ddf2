"""Which files travel between a run folder and the hub, and which names are taken from there.

The same rule holds both ways: what is pushed can be pulled. Names in a repository are written by others; one that could
reach outside its run folder, or that Python would import, is never written here.
"""

import re
from pathlib import PurePosixPath

from slm_lab.lib.layout import FOLDER_NAME

FOLDER = "data"
"""Folder of the repository that holds the run folders."""
_SPEC = re.compile(r"[A-Za-z0-9][\w.+=-]{0,120}", re.ASCII)
"""Name of a spec, in that of a run folder."""
SUFFIXES = frozenset(
    {".csv", ".gif", ".html", ".json", ".jsonl", ".log", ".md", ".mp4", ".pdf", ".png", ".pt", ".safetensors", ".svg"}
    | {".prev", ".txt", ".yaml", ".yml"}
)
"""Kinds of file that a run folder holds. Nothing that could be imported or run: a spec may name modules to import."""
_EVENTS = "events.out.tfevents."
_PART = re.compile(r"[\w+=,()@ -][\w.+=,()@ -]*", re.ASCII)
DEPTH = 6


def is_run_name(name: str) -> bool:
    """Whether a folder of this name is a run.

    >>> is_run_name("ppo_cartpole_2026_01_31_120000"), is_run_name(".."), is_run_name("ppo_cartpole")
    (True, False, False)
    """
    match = FOLDER_NAME.fullmatch(name)
    return match is not None and _SPEC.fullmatch(match["spec"]) is not None


def is_run_file(path: str) -> bool:
    """Whether a path inside a run folder, with `/`, is one that travels.

    >>> is_run_file("model/a_ckpt.pt"), is_run_file("../a.json"), is_run_file("evil.py"), is_run_file("C:/a.json")
    (True, False, False, False)
    """
    parts = path.split("/")
    if len(parts) > DEPTH or not all(_PART.fullmatch(part) and not part.endswith((".", " ")) for part in parts):
        return False
    return PurePosixPath(path).suffix in SUFFIXES or parts[-1].startswith(_EVENTS)
