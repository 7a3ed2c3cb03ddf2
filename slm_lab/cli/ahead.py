"""Processes that a run will need, started before this process imports torch: their imports run beside its own."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from slm_lab.experiment.records.runs import RunFile, Status, find_run, mode_of
from slm_lab.experiment.session.resources import needs_inductor, use_compile
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.experiment.trial import nursery
from slm_lab.lib import compiler
from slm_lab.lib.compiler import Effort
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json
from slm_lab.spec.load import read_file
from slm_lab.spec.variables import apply_sets


def start_ahead(file: str, name: str | None, sets: Mapping[str, str], options: Options, mode: str) -> None:
    """Start what the spec of this name (None: the first), not yet checked, will probably need."""
    specs = read_file(file)
    raw = specs.get(name or next(iter(specs), ""))
    # the trials of a search are other processes
    if raw is None or mode == "search":
        return
    filled, _ = apply_sets(raw, dict(sets))
    env, meta, agent = (part if isinstance(part := filled.get(key), dict) else {} for key in ("env", "meta", "agent"))
    frames, sessions, net = env.get("max_frame"), meta.get("max_session", 1), agent.get("net")
    if isinstance(sessions, int) and sessions > 1 and mode == "train" and not options.profile:
        nursery.start_ahead()
    if options.device not in ("auto", "cpu") or not isinstance(net, dict) or not needs_inductor(net):
        return
    setting = meta.get("compile", "auto") if meta else "off"
    if isinstance(frames, int | float) and use_compile(setting, frames, net) is Effort.FULL:
        compiler.start_ahead(json.dumps(filled, sort_keys=True, default=str))


def start_sessions_ahead(target: str | Path, out: Path, name: str | None, *, changed: bool) -> None:
    """Start what the sessions of a resumed run will need; `changed`: keys are set, a completed run goes on too."""
    # what is wrong with the run is for `resume` to report
    with suppress(LabError, OSError, ValueError, LookupError, TypeError):
        layout = find_run(target, out, name, fits=lambda x: mode_of(x) is Mode.TRAIN)
        file, sessions = RunFile.open(layout), read_json(layout.trial_spec(0))["meta"]["max_session"]
        if file.mode is Mode.TRAIN and sessions > 1 and (changed or file.status is not Status.COMPLETED):
            nursery.start_ahead()
