"""What `slm-lab run` is asked for: the words spec file, spec name and mode, or a job file that holds many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slm_lab.experiment.records.runs import LATEST
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.parse import decode, parse_json

MODES = ("dev", "train", "search", "enjoy")
DEFAULT_FILE, DEFAULT_NAME, DEFAULT_MODE = "ppo/ppo_cartpole.json", "ppo_cartpole", "train"

MEANT = {
    "evaluate": "eval",
    "upload": "push",
    "download": "pull",
    "resume": f"train@{LATEST}",
    "continue": f"train@{LATEST}",
    LATEST: f"train@{LATEST}",
    "profile": "run SPEC_FILE SPEC_NAME --profile",
}
"""Words that are tried as a command, and what they are meant for."""


@dataclass(frozen=True)
class Request:
    """What to run."""

    file: str | None
    """None: the run folder of the target says it."""
    name: str | None
    """None: the only spec of the file."""
    mode: str
    target: str | None = None
    """What follows the @ of a mode: `latest` or a path."""


def parse_mode(word: str, known: Sequence[str] = MODES) -> tuple[str, str | None]:
    """Mode and target; `known` are those that are told where there is no such mode.

    >>> parse_mode("train"), parse_mode("enjoy@data/x")
    (('train', None), ('enjoy', 'data/x'))
    """
    mode, at, target = word.partition("@")
    if mode not in MODES:
        raise LabError(f"unknown mode '{mode}'{did_you_mean(mode, known)} (known: {', '.join(known)})")
    if at and not target:
        raise LabError(f"{mode}@: name what to resume: {mode}@{LATEST}, or {mode}@ and a run folder")
    return mode, target or None


def parse_words(words: list[str]) -> Request:
    """What up to three words mean: `FILE NAME MODE`, `FILE NAME`, `FILE MODE`, `FILE`, `MODE` or nothing.

    >>> parse_words(["spec.json", "dev"])
    Request(file='spec.json', name=None, mode='dev', target=None)
    """
    if words and words[0] in MEANT:
        meant = MEANT[words[0]]
        if "@" in meant and len(words) > 1:
            meant = f"train@{words[1]}" if len(words) == 2 else f"{' '.join(words[1:])} {meant}"
        raise LabError(f"'{words[0]}' is neither a command nor a spec file, did you mean '{meant}'?")
    if len(words) > 1 and words[0] in MODES:
        raise LabError(f"{words[0]}: the mode comes last: slm-lab run SPEC_FILE SPEC_NAME {words[0]}")
    rest, mode, target = words, DEFAULT_MODE, None
    if words and (len(words) == 3 or _is_mode(words[-1])):
        rest = words[:-1]
        mode, target = parse_mode(words[-1])
    file, name = [*rest, None, None][:2]
    if file is None and target is None:
        file, name = DEFAULT_FILE, DEFAULT_NAME
    return Request(file, name, mode, target)


def read_job(path: Path) -> tuple[list[Request], list[str]]:
    """The requests of a job file, `{spec_file: {spec_name: mode}}`, and what is wrong with the others."""
    try:
        data = parse_json(decode(path.read_bytes(), str(path)), str(path))
    except OSError as e:
        raise SpecError([f"can't be read: {e.strerror}"], str(path)) from None
    faults, requests = [], []
    for file, modes in data.items() if isinstance(data, dict) else ():
        if not isinstance(modes, dict):
            faults.append(f"{file}: must be an object: spec names and their modes")
            continue
        for name, word in modes.items():
            try:
                mode, target = parse_mode(word if isinstance(word, str) else repr(word))
            except LabError as e:
                faults.append(f"{file}.{name}: {e}")
                continue
            requests.append(Request(file, name, mode, target))
    if not faults and not requests:
        raise SpecError(["must be an object: {spec_file: {spec_name: mode}}"], str(path))
    return requests, faults


def _is_mode(word: str) -> bool:
    mode, at, _ = word.partition("@")
    return mode in MODES or (bool(at) and bool(did_you_mean(mode, MODES)))
