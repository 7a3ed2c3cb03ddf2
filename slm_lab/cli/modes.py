"""The words of `slm-lab run`: spec file, spec name, mode."""

from dataclasses import dataclass

from slm_lab.lib.errors import LabError
from slm_lab.lib.suggest import did_you_mean

MODES = ("dev", "train", "search", "enjoy")
DEFAULT_FILE, DEFAULT_NAME, DEFAULT_MODE = "ppo/ppo_cartpole.json", "ppo_cartpole", "train"
LATEST = "latest"


@dataclass(frozen=True)
class Request:
    """What to run."""

    file: str | None
    """None: the run folder of the target says it."""
    name: str | None
    """None: the only spec of the file."""
    mode: str
    target: str | None = None
    """What stands behind the @ of a mode: `latest` or a path."""


def parse_mode(word: str) -> tuple[str, str | None]:
    """Mode and target.

    Raises:
        LabError: no such mode, or one that takes no target.

    >>> parse_mode("train"), parse_mode("enjoy@data/x")
    (('train', None), ('enjoy', 'data/x'))
    """
    mode, at, target = word.partition("@")
    if mode not in MODES:
        raise LabError(f"unknown mode '{mode}'{did_you_mean(mode, MODES)} (known: {', '.join(MODES)})")
    if at and not target:
        raise LabError(f"{mode}@: say what to go on with: {mode}@{LATEST}, or {mode}@ and a run folder")
    return mode, target or None


def parse_words(words: list[str]) -> Request:
    """What up to three words mean: `FILE NAME MODE`, `FILE NAME`, `FILE MODE`, `FILE`, `MODE` or nothing.

    Raises:
        LabError: no such mode.

    >>> parse_words(["spec.json", "dev"])
    Request(file='spec.json', name=None, mode='dev', target=None)
    """
    rest, mode, target = words, DEFAULT_MODE, None
    if words and (len(words) == 3 or _is_mode(words[-1])):
        rest = words[:-1]
        mode, target = parse_mode(words[-1])
    file, name = [*rest, None, None][:2]
    if file is None and target is None:
        file, name = DEFAULT_FILE, DEFAULT_NAME
    return Request(file, name, mode, target)


def _is_mode(word: str) -> bool:
    mode, at, _ = word.partition("@")
    return mode in MODES or (bool(at) and bool(did_you_mean(mode, MODES)))
