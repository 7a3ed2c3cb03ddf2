"""The runs of a repository: one file, `runs.jsonl`, one line per run, so that a list of hundreds is one request.

It is derived from the run folders and may be behind them: a folder it does not know is looked into, a line without a
folder is left out.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from slm_lab.experiment.records.history import RunLine, get
from slm_lab.experiment.records.runs import best_trial
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import FOLDER_NAME, fitting
from slm_lab.lib.suggest import did_you_mean
from slm_lab.remote.hub import Hub
from slm_lab.remote.names import FOLDER, is_run_name

FILE = "runs.jsonl"
Catalog = dict[str, RunLine]
_LINE = TypeAdapter(RunLine)


def read(hub: Hub, revision: str) -> Catalog:
    """The runs of a repository, oldest first."""
    known = parse(hub.read(FILE, revision) or "")
    names = [name for name in hub.folders(FOLDER, revision) if is_run_name(name)]
    found = [known.get(name) or _look(hub, revision, name) for name in names]
    return {e.name: e for e in sorted(found, key=lambda e: (e.date, e.name))}


def parse(text: str) -> Catalog:
    """The lines that can be read; others wrote the file too."""
    found = {}
    for line in text.splitlines():
        with suppress(ValidationError):
            one = _LINE.validate_json(line, strict=True)
            # a control character in a text could write anything to a terminal
            clean = all(text.isprintable() for text in vars(one).values() if isinstance(text, str))
            if clean and is_run_name(one.name) and one.name.startswith(f"{one.spec}_"):
                found[one.name] = one
    return found


def dump(catalog: Mapping[str, RunLine]) -> str:
    """The file's text."""
    return "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in catalog.values())


def select(names: Iterable[str], pattern: str) -> list[str]:
    """The names that are meant (see `fitting`).

    Raises:
        LabError: none; with the nearest name.
    """
    names = list(names)
    found = fitting(names, pattern)
    if not found and pattern:
        raise LabError(f"no run in the repository fits '{pattern}'{did_you_mean(pattern, names)}")
    return found


def _look(hub: Hub, revision: str, name: str) -> RunLine:
    """What the files of a folder show that is not in the catalog."""
    match = FOLDER_NAME.fullmatch(name)
    assert match is not None
    spec_name = match["spec"]
    folder = f"{FOLDER}/{name}/{spec_name}"
    spec = loads(hub.read(f"{folder}_spec.json", revision))
    trial = best_trial(loads(hub.read(f"{FOLDER}/{name}/info/{spec_name}_trial_data_dict.json", revision))) or 0
    scalars = loads(hub.read(f"{folder}_t{trial}_trial_metrics_scalar.json", revision))
    line = RunLine(
        name,
        spec_name,
        env=get(spec, "env", "name"),
        algorithm=get(spec, "agent", "algorithm", "name"),
        total_reward_ma=get(scalars, "total_reward_ma"),
        frames=get(scalars, "frame"),
        sessions=get(spec, "meta", "max_session"),
    )
    return parse(dump({name: line})).get(name) or RunLine(name, spec_name)


def loads(text: str | None) -> Any:
    """What a JSON text says; None where there is none that can be read."""
    try:
        return json.loads(text or "null")
    except ValueError:
        return None
