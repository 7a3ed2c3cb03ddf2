"""The dstack task of a run: a template of `.dstack/`, filled in."""

import re
import secrets
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from slm_lab.lib.errors import LabError
from slm_lab.remote.dstack import NAME
from slm_lab.remote.ship import ARCHIVE
from slm_lab.spec.files import bundled_folder

FOLDER = ".dstack"
SECRET = "hf_token"
"""Name of dstack's secret that holds the hub's token."""
_RUN = "{run}"
_PATIENCE = 900
"""Seconds for which a job repeats a failing upload: when it ends, what was not uploaded is lost."""


@dataclass(frozen=True)
class Task:
    """A run that is to be made elsewhere."""

    spec_file: str
    """Name of the file."""
    spec_name: str
    mode: str
    folder: str
    """Name of the run folder."""
    sets: dict[str, str] = field(default_factory=dict)
    repo: str | None = None
    """Where it is uploaded; None: it is not."""
    endpoint: str | None = None
    """Of the hub."""
    commit: str | None = None
    """Of the code."""

    def command(self) -> str:
        """The command line of the run, quoted for a shell. The same again resumes what was uploaded."""
        words = ["python", "-m", "slm_lab", "run", f"job/{self.spec_file}", self.spec_name, self.mode]
        words += ["--folder", self.folder]
        for key, value in self.sets.items():
            words += ["-s", f"{key}={value}"]
        if self.repo is not None:
            words.append("--upload-hf")
        return shlex.join(words)

    def env(self) -> dict[str, str]:
        """Variables of the job; the token by name only."""
        env = {"SLM_LAB_COMMIT": self.commit or ""}
        if self.repo is not None:
            env |= {"HF_REPO": self.repo, "HF_TOKEN": f"${{{{ secrets.{SECRET} }}}}"}
            env |= {"HF_ENDPOINT": self.endpoint or "", "SLM_LAB_HUB_PATIENCE": str(_PATIENCE)}
        return {name: value for name, value in env.items() if value}


def run_name(folder: str) -> str:
    """A name that dstack takes and no other run has: of the run folder, with its time and two random digits.

    >>> run_name("ppo_cartpole_2026_01_31_120000")[:-2]
    'ppo-cartpole-0131-120000-'
    """
    stem, month, day, time = re.sub(r"_\d{4}_(\d\d)_(\d\d)_(\d{6})(_\d+)?$", r" \1 \2 \3", folder).rsplit(" ", 3)
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"run-{slug}"
    return f"{slug[:25].rstrip('-')}-{month}{day}-{time}-{secrets.randbelow(100):02}"


def check_name(name: str) -> str:
    """The name."""
    if not NAME.fullmatch(name):
        raise LabError(f"-n: must be 2 to 41 of a-z, 0-9 and -, beginning with a letter (got '{name}')")
    return name


def render(task: Task, name: str, *, gpu: bool, here: Path, archive: Path) -> str:
    """The YAML of a task with this name at dstack, and with the code in the file `archive`.

    A template in `.dstack/` of the working folder `here` goes before the bundled one.

    Raises:
        LabError: the template can't be used; a value that dstack would take for a variable of its own.
    """
    path, template = _template("gpu" if gpu else "cpu", "search" if task.mode == "search" else "train", here)
    for word in [task.spec_file, task.spec_name, *task.sets, *task.sets.values(), task.repo or ""]:
        if "${{" in word or not word.isprintable():
            raise LabError(f"{word!r}: can't be passed on: dstack reads ${{{{ }}}} as its own, and a line must be one")
    commands = template.get("commands")
    if not isinstance(commands, list) or sum(_RUN in str(c) for c in commands) != 1:
        raise LabError(f"{path}: one of its commands must hold {_RUN}, where the command of the run comes")
    env = template.get("env") or {}
    if not isinstance(env, dict):
        raise LabError(f"{path}: env must be an object, name: value")
    filled: dict[str, Any] = {
        **template,
        "name": name,
        "env": {**env, **task.env()},
        "files": [*(template.get("files") or []), f"{archive}:/workflow/{ARCHIVE}"],
        "commands": [str(c).replace(_RUN, task.command()) for c in commands],
    }
    return yaml.safe_dump(filled, sort_keys=False, allow_unicode=True, width=1000)


def _template(kind: str, work: str, here: Path) -> tuple[Path, dict[str, Any]]:
    name = f"{kind}-{work}.yml"
    own = here / FOLDER / name
    path = own if own.is_file() else bundled_folder().parent / FOLDER / name
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise LabError(f"{path}: can't be read as YAML: {' '.join(str(e).split())}") from None
    if not isinstance(content, dict) or content.get("type") != "task":
        raise LabError(f"{path}: must be a dstack task (type: task)")
    return path, content
