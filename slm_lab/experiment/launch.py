"""What the command line and the library call: start a run, or resume one."""

import dataclasses
import json
import math
import shlex
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path

from loguru import logger

from slm_lab.experiment.play.enjoy import enjoy
from slm_lab.experiment.records.runs import RunFile, Status, find_run, locked, mode_of, versions
from slm_lab.experiment.records.wording import block
from slm_lab.experiment.session.callbacks import Callbacks
from slm_lab.experiment.session.extend import extended, rewritten, tell_changes
from slm_lab.experiment.session.resources import needs_inductor, use_compile
from slm_lab.experiment.session.run import Mode, Options, RunResult, Scalars, TrialResult
from slm_lab.experiment.trial.check import require, require_search
from slm_lab.experiment.trial.origin import open_origin, save_origin
from slm_lab.experiment.trial.pool import Pool
from slm_lab.experiment.trial.stopping import StopRequest
from slm_lab.experiment.trial.trial import Trial, session_count, worker_count
from slm_lab.lib.compiler import Effort, start_ahead
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json, write_json
from slm_lab.lib.layout import Layout
from slm_lab.lib.log import check_level, log_file, renew_notes
from slm_lab.lib.registry import import_plugins
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

__all__ = ["enjoy", "resume", "run_spec"]

Beside = Callable[[Layout], AbstractContextManager[object]]
"""Entered while a run is running: its uploads."""
PATIENCE = 20.0
"""Seconds that a resume waits for what is left of a killed run to end."""


TAKEN_OVER = frozenset({"device", "cuda_offset", "log_metrics", "keep"})
"""Options that a resume may change, if it is told to; of those that only show the run, its own always count."""


class Refused(LabError):
    """What no session could be built from."""


def run_spec(
    spec: Spec,
    mode: Mode,
    options: Options,
    *,
    folder: str | None = None,
    beside: Beside = nullcontext,
    callbacks: Callbacks | None = None,
) -> RunResult:
    """Run a spec in a new run folder.

    Args:
        spec: is run as it is.
        mode: dev, train or search.
        options: `out` is where the run folder is made.
        folder: its name, `<spec name>_<timestamp>`; by default the time is now.
        beside: entered with the run folder while the run is at work.
        callbacks: called while the run is at work; an exception of theirs stops it and is raised again.

    Raises:
        LabError: the env or the agent can't be made; a mode that runs nothing. There is no run folder then. Faults of
            the training are in the result.
    """
    if mode is Mode.ENJOY:
        raise LabError(f"mode '{mode}': can't be run like this (known: dev, train, search)")
    check_level(options.log_level)
    import_plugins(spec.meta.plugins)
    require(spec)
    if mode is Mode.SEARCH:
        require_search(spec, options.device, cluster=options.ray_address is not None)
    origin = open_origin(spec, mode, options)
    if origin is not None:
        # `latest`, or the best policy of a run, may be another one by the time the run is repeated
        options = dataclasses.replace(options, start_from=str(origin.path.resolve()))
    fresh = folder is None or not (options.out / folder).exists()
    try:
        layout = Layout.new(options.out, spec.name) if folder is None else Layout.named(options.out, spec.name, folder)
    except OSError as e:
        raise LabError(f"{options.out}: run folders can't be made there: {e.strerror}") from e
    data, net = spec.to_dict(), spec.agent.net
    ahead = use_compile(spec.meta.compile, spec.env.max_frame, net) is Effort.FULL and needs_inductor(net)
    if ahead and mode is not Mode.SEARCH:
        start_ahead(json.dumps([data["agent"], data["env"]], sort_keys=True))
    file: RunFile | None = None
    try:
        layout.make_folders()
        write_json(layout.spec(), spec.to_dict())
        if mode is not Mode.SEARCH:
            write_json(layout.trial_spec(0), spec.to_dict())
        save_origin(origin, layout)
        with locked(layout) as held, log_file(layout.log(layout.name), options.log_level):
            # the check of the spec may have logged them already, before there was a file
            renew_notes()
            file = RunFile.create(layout, mode, options)
            return _work(spec, mode, layout, options, file, held, beside=beside, callbacks=callbacks or Callbacks())
    except (Refused, OSError) as e:
        begun = file is not None and not isinstance(e, Refused)
        if fresh and not begun:
            # nothing was run, and what was made for it would only be in the way
            shutil.rmtree(layout.root, ignore_errors=True)
        if isinstance(e, OSError) and not begun:
            raise LabError(f"{options.out}: run folders can't be made there: {e.strerror}") from e
        raise


def resume(
    target: str | Path,
    options: Options,
    spec_name: str | None = None,
    *,
    sets: dict[str, str] | None = None,
    mode: Mode | None = None,
    given: Collection[str] = (),
    beside: Beside = nullcontext,
    callbacks: Callbacks | None = None,
) -> RunResult:
    """Resume a run that was stopped or killed, or whose sessions crashed; or extend one that is finished.

    Every session that is not at its end continues from its checkpoint, or starts over if it has none. The mode, the
    seed and everything else that decides the numbers are those of the run, whatever `options` say.

    Args:
        target: `latest` (of `options.out`), or a run folder.
        options: `out`, and how it is shown: progress, render, log_level.
        spec_name: takes only runs of that spec.
        sets: keys to change from here on, by path: `env.max_frame` makes the run longer. Not of a search.
        mode: takes only runs that were started in it; None: any run.
        given: which other options count from here on, of TAKEN_OVER.
        beside: see `run_spec`.
        callbacks: see `run_spec`.

    Raises:
        LabError: no such run; it can't be read; another process is working on it.
    """
    kind = {Mode.SEARCH: "search", Mode.DEV: "dev run"}.get(mode or Mode.TRAIN, "training")
    layout = find_run(target, options.out, spec_name, fits=lambda x: mode in (None, mode_of(x)), kind=kind)
    check_level(options.log_level)
    file = RunFile.open(layout)
    if mode not in (None, file.mode):
        raise LabError(f"{layout.root}: was started in mode {file.mode}, resume it with {file.mode}@{layout.root}")
    if file.status is Status.COMPLETED and not sets:
        return _completed(layout, file.mode)
    own = {"progress", "render", "log_level", "ray_address", *TAKEN_OVER.intersection(given)}
    merged = dataclasses.replace(file.options, **{key: getattr(options, key) for key in own})
    with locked(layout, PATIENCE) as held:
        # it may have ended while the lock was waited for
        file = RunFile.open(layout)
        spec = load_spec(layout.spec() if file.mode is Mode.SEARCH else layout.trial_spec(0))
        spec, changes = extended(layout, spec, sets or {}, file.mode)
        if file.status is Status.COMPLETED and not changes:
            return _completed(layout, file.mode)
        if changes:
            require(spec, changes)
        for name, now in versions().items():
            if (then := file.content["versions"].get(name)) not in (None, now):
                logger.warning("the run was started with {} {}, this is {}: later numbers may differ", name, then, now)
        logger.info("resuming {}", layout.root)
        layout.make_folders()
        rewrite = rewritten(layout, spec) if changes else nullcontext()
        with log_file(layout.log(layout.name), merged.log_level), rewrite:
            renew_notes()
            tell_changes(layout, spec, changes)
            file, callbacks = file.resumed(changes), callbacks or Callbacks()
            return _work(spec, file.mode, layout, merged, file, held, beside=beside, callbacks=callbacks)


def _work(
    spec: Spec,
    mode: Mode,
    layout: Layout,
    options: Options,
    file: RunFile,
    held: Sequence[int],
    *,
    beside: Beside,
    callbacks: Callbacks,
) -> RunResult:
    """Run the trial of a folder that this process holds; keep the run file true."""
    status = Status.STOPPED
    try:
        with ExitStack() as stack:
            stack.enter_context(beside(layout))
            request = stack.enter_context(StopRequest())
            stop = callbacks.with_stop(request.is_set)
            workers = worker_count(spec, mode, options.device)
            pool = stack.enter_context(Pool(workers, pass_fds=held)) if workers else None
            logger.info("{} {}: {}", mode.value, spec.name, layout.root)
            saved, sessions = "", 0
            if mode is Mode.SEARCH:
                from slm_lab.experiment.search.launch import Search  # Ray: not for those who do not search

                try:
                    done = Search(spec, layout, options, stop).run()
                except LabError as e:
                    if layout.search_file().exists():
                        raise
                    raise Refused(str(e)) from e  # no trial was started
            else:
                trial = Trial(spec, mode, layout, options, pool=pool, stop=stop, callbacks=callbacks).run()
                sessions = session_count(spec, mode)
                saved = f"{_saved(trial, sessions)}; "
                done = RunResult(layout.root, Scalars(trial.metrics), trial.crashed, trial.stopped)
        _keep_output(pool, layout)
        if not done.stopped:
            status = Status.CRASHED if done.crashed else Status.COMPLETED
    except KeyboardInterrupt:
        logger.warning("stopped at once; what was saved is kept; to resume: {}", _go_on(mode, layout.root))
        raise
    finally:
        # an interrupt that did not wait for the sessions comes by here too
        try:
            file.ended(status)
        except OSError as e:
            logger.error("{}: can't be written: {}", file.path, e.strerror)
    faults = list(dict.fromkeys(crash.reason for crash in done.crashed if crash.misuse))
    if faults and len(done.crashed) == sessions:
        raise Refused("\n".join([spec.name, *(f"  {fault.strip()}" for fault in faults)]))
    for fault in faults:
        logger.error("{}", fault.strip())
    _tell_end(done, mode, saved, sessions)
    if callbacks.error is not None:
        raise callbacks.error
    return dataclasses.replace(done, signal=request.number)


def _keep_output(pool: Pool | None, layout: Layout) -> None:
    """What the workers printed goes to a file."""
    if pool is not None and pool.output:
        path = layout.log(f"{layout.name}_output")
        # the disk is full: the results can still be printed
        with suppress(OSError), path.open("a", encoding="utf-8") as output:
            output.writelines(pool.output)


def _tell_end(done: RunResult, mode: Mode, saved: str, sessions: int) -> None:
    if done.stopped:
        logger.warning("stopped; {}to resume: {}", saved, _go_on(mode, done.folder))
    elif done.crashed and mode is Mode.SEARCH:
        logger.error("no trial reached its end: {} crashed", len(done.crashed))
    elif done.crashed:
        count = f"{len(done.crashed)} of {sessions} sessions crashed"
        analysed = "" if done.metrics else ": there is nothing to analyse"
        resume_with = f"once you have fixed the cause, resume with: {_go_on(mode, done.folder)}"
        logger.error("{}{}; {}", count, analysed, resume_with)
    if done.metrics and mode is not Mode.SEARCH:
        logger.info("{}", block(done.metrics, width=shutil.get_terminal_size().columns))
    logger.info("results: {}", done.folder)


def _go_on(mode: Mode, folder: Path) -> str:
    """The command that resumes a run."""
    return shlex.join(["slm-lab", "run", f"{mode.value}@{folder}"])


def _saved(done: TrialResult, sessions: int) -> str:
    """What there is of each session of a trial that was stopped."""
    frames = {r.session: r.frame for r in done.sessions}
    saved = [f"session {session} at frame {frame:,}" for session, frame in sorted(frames.items())]
    rest = sorted(set(range(sessions)) - {*frames, *(crash.session for crash in done.crashed)})
    as_before = f"session{'s' * (len(rest) > 1)} {', '.join(map(str, rest))} as before this start" if rest else ""
    return "saved: " + ", ".join(saved) + (f"; {as_before}" if rest else "") if saved else "nothing new was saved"


def _completed(layout: Layout, mode: Mode) -> RunResult:
    """A run that is at its end, with its metrics; of a search those of its best trial."""
    logger.info("{} is completed: nothing is left to do", layout.root)
    path = layout.best_scalar() if mode is Mode.SEARCH else layout.trial_scalar(0)
    metrics = read_json(path) if path.exists() else {}
    return RunResult(layout.root, Scalars({k: math.nan if v is None else v for k, v in metrics.items()}))
