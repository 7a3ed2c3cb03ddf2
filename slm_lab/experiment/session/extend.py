"""Resuming a run with a changed spec: longer, with other schedules, with more sessions."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pydash
from loguru import logger

from slm_lab.agent.net.optim import lr_schedule
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.session.run import Mode
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.files import write_atomic, write_json
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import check, load_spec
from slm_lab.spec.model import Spec
from slm_lab.spec.variables import as_texts, variables

_FREE = re.compile(
    r"env\.max_frame"
    r"|meta\.(max_session|log_frequency|eval_frequency|rigorous_eval|checkpoint_interval|keep_checkpoints|compile)"
    r"|meta\.(sinks|plugins)(\..*)?"
    r"|agent\.net\.((actor|critic)_)?(lr_scheduler_spec(\..*)?|optim_spec\.lr|clip_grad_val|polyak_coef)"
    r"|agent\.algorithm\.(\w+_spec(\..*)?|\w+_coef|gamma|lam|lr|training_(epoch|iter|batch_iter)|minibatch_size)"
)
"""Keys that can change in the middle of a run: no tensor that is saved has another shape under them."""
_KNOWN = (
    "env.max_frame, meta.max_session and the frequencies of meta, schedules, coefficients, learning rates, gamma, lam, "
    "minibatch_size, training_epoch, training_iter"
)


def changed_keys(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Key paths at which two specs differ, each with the old and the new value; None where there was none.

    >>> changed_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4})
    {'a.c': (2, 3), 'd': (None, 4)}
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in {**old, **new}:
            found |= changed_keys(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        return found
    return {} if old == new else {path: (old, new)}


def can_change(key: str) -> bool:
    """Whether a key can change in the middle of a run.

    >>> can_change("env.max_frame"), can_change("agent.net.hid_layers")
    (True, False)
    """
    return _FREE.fullmatch(key) is not None


def as_changes(raw: dict[str, Any], name: str, sets: dict[str, str]) -> dict[str, str]:
    """What `sets` say of a spec of a file, by the key paths of its runs: variables are filled in there, old keys new.

    Raises:
        SpecError: a key that the spec does not have, or a value that it can't have; all at once.
    """
    before, after = (check(raw, name, sets=given) for given in ({}, sets))
    if after.faults or after.data is None:
        raise SpecError(after.faults, name)
    own = [key for key in sets if key not in variables(raw) and pydash.has(after.data, key)]
    paths = changed_keys(before.data or {}, after.data).keys() - {"name"} | set(own)
    return as_texts({path: pydash.get(after.data, path) for path in sorted(paths)})


def extended(
    layout: Layout, spec: Spec, sets: dict[str, str], mode: Mode = Mode.TRAIN
) -> tuple[Spec, dict[str, tuple[Any, Any]]]:
    """The spec of a run with some keys changed, and the changes.

    Raises:
        SpecError: a key that can't change in the middle of a run, or a value that it can't have; all at once. Of a
            search no key can.
    """
    source = str(layout.spec() if mode is Mode.SEARCH else layout.trial_spec(0))
    new = load_spec(spec.to_dict(), sets=sets)
    changes = changed_keys(spec.to_dict(), new.to_dict())
    if mode is Mode.SEARCH and changes:
        raise SpecError([f"{key}: the spec of a search can't be changed on its way" for key in changes], source)
    faults = [
        f"{key}: can't be changed when a run is resumed; start a new run (these can: {_KNOWN})"
        for key in changes
        if not can_change(key)
    ]
    reached = frames_reached(layout, spec.meta.max_session)
    if "env.max_frame" in changes and new.env.max_frame <= reached:
        why = f"must be greater than {reached}, the frame the run has reached"
        faults.append(f"env.max_frame: {why} (got {new.env.max_frame})")
    if mode is Mode.DEV and "meta.max_session" in changes:
        faults.append(f"meta.max_session: a dev run has one session (got {new.meta.max_session})")
    if new.meta.max_session < spec.meta.max_session:
        faults.append(
            f"meta.max_session: must be at least {spec.meta.max_session}, the number of sessions of the run "
            f"(got {new.meta.max_session})"
        )
    if faults:
        raise SpecError(faults, source)
    return new, changes


def frames_reached(layout: Layout, sessions: int) -> int:
    """Frame of the last row of the session that is furthest."""
    tables = [read_rows(layout.session_df(0, session)) for session in range(sessions)]
    return max((int(rows[-1]["frame"] or 0) for rows in tables if rows), default=0)


def idle_rates(spec: Spec, frame: int) -> list[str]:
    """Keys of learning-rate schedules that leave nothing to learn with between a frame and the end of the run."""
    found = []
    algorithm = spec.agent.algorithm
    for role in ("actor", "critic"):
        net = spec.agent.net.for_role(role)
        lr = net.optim_spec.lr if algorithm.lr is None else algorithm.lr
        schedule = lr_schedule(net.lr_scheduler_spec, lr)
        if schedule is not None and lr > 0 and schedule(frame + 1) == 0 == schedule(spec.env.max_frame):
            own = f"{role}_lr_scheduler_spec" in spec.agent.net.model_fields_set
            found.append(f"agent.net.{role + '_' if own else ''}lr_scheduler_spec")
    return list(dict.fromkeys(found))


@contextmanager
def rewritten(layout: Layout, spec: Spec) -> Iterator[None]:
    """Write this spec into the spec files of the run; restore them and the run file if the run is refused."""
    paths = [layout.spec(), layout.trial_spec(0), layout.run_file()]
    before = {path: path.read_bytes() for path in paths if path.exists()}
    for path in paths[:2]:
        write_json(path, spec.to_dict())
    try:
        yield
    except LabError:
        for path, content in before.items():
            write_atomic(path, content)
        raise


def tell_changes(layout: Layout, spec: Spec, changes: dict[str, tuple[Any, Any]]) -> None:
    """Log in one line what changes from here on; warn of learning rates that stay 0."""
    if not changes:
        return
    frame = frames_reached(layout, spec.meta.max_session)
    told = ", ".join(f"{key} {json.dumps(old)} -> {json.dumps(new)}" for key, (old, new) in changes.items())
    logger.info("changed: {}; rows up to frame {:,} are kept", told, frame)
    for key in idle_rates(spec, frame):
        logger.warning("{}: the learning rate is 0 from here to the end; raise its `frame` as well", key)
