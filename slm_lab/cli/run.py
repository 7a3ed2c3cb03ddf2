"""`slm-lab run`: checks everything that is asked for, then runs it, one after the other."""

import functools
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_lab.cli.ahead import start_ahead, start_sessions_ahead
from slm_lab.cli.chosen import chosen_spec, find_spec_file, run_name
from slm_lab.cli.modes import Request, parse_words, read_job
from slm_lab.cli.report import report_user_error, show
from slm_lab.cli.runs import check_folder, find_local_plugins, locate
from slm_lab.experiment.records.runs import LATEST, find_run
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.log import setup
from slm_lab.spec.model import Spec

if TYPE_CHECKING:
    from slm_lab.cli.upload import Upload
    from slm_lab.experiment.session.run import RunResult

OK, CRASHED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Command:
    """What the command line says."""

    words: list[str]
    """Spec file, spec name, mode, as far as given."""
    sets: dict[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    job: Path | None = None
    episodes: int | None = None
    video: Path | None = None
    folder: str | None = None
    """Name of the run folder, to make or to resume."""
    upload: bool = False
    """To the Hugging Face Hub."""
    upload_every: float = 10.0
    """Minutes."""
    typed: frozenset[str] = frozenset()
    """Options given on the command line, not in the environment: those must have an effect."""
    given: frozenset[str] = frozenset()
    """Options given there or in the environment: those count for a resumed run too, where they can."""
    commands: list[str] = field(default_factory=list)
    """Names of the other commands: a first word that is no file may be meant as one."""


Task = Callable[[], int]
"""Something checked and ready to run; gives an exit code."""


def main(command: Command) -> int:
    """Do what the command line says.

    Returns:
        Exit code: 0, 1 where a session crashed, 2 after a user error, 130 where it was interrupted.
    """
    # imports make a million objects that stay: no collection need look through them, now or later
    gc.disable()
    try:
        return _run(command)
    finally:
        gc.enable()


def _run(command: Command) -> int:
    options = command.options
    setup(options.log_level)
    find_local_plugins()
    if options.start_from is not None:
        found = str(locate(options.start_from, options.out))
        command = replace(command, options=replace(options, start_from=found))
    requests, faults = _requests(command)
    if not re.fullmatch(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", options.device):
        raise LabError(f"--device: unknown '{options.device}' (known: auto, cpu, cuda, cuda:0 ..., mps, xpu)")
    _check_options(command, requests)
    worst = OK
    tasks = _prepare_all(requests, faults, command)
    # once: a second time it would keep the objects of an ended run
    gc.freeze()
    gc.enable()
    for task in tasks:
        begin_work()
        try:
            code = task()
        except (LabError, OSError) as e:
            if len(requests) == 1 or not report_user_error(e):
                raise
            code = USER_ERROR
        if code == INTERRUPTED:
            return code
        worst = max(worst, code)
    return worst


def _check_options(command: Command, requests: list[Request]) -> None:
    """Refuse options that would have no effect."""
    options, modes = command.options, {request.mode for request in requests}
    enjoys, trains = "enjoy" in modes, modes - {"enjoy"}
    faults = []
    for option, value, mode in (
        ("--video", command.video, "enjoy"),
        ("--episodes", command.episodes, "enjoy"),
        ("--keep", "keep" in command.typed, "search"),
    ):
        if value and mode not in modes:
            faults.append(f"{option} belongs to the mode {mode}")
    if command.upload and enjoys:
        faults.append("--upload-hf belongs to the modes that train; what enjoy plays is there already")
    if options.start_from is not None and enjoys:
        faults.append("--from belongs to the modes train and dev")
    if "upload_every" in command.typed and not command.upload:
        faults.append("--upload-every goes with --upload-hf")
    if "log_metrics" in command.typed and not trains:
        faults.append("--log-metrics belongs to the modes that train")
    if "render" in command.typed and modes == {"search"}:
        faults.append("--render does not go with the mode search: its trials show no window")
    if command.folder is not None and (len(requests) > 1 or enjoys or requests[0].target is not None):
        faults.append("--folder names the folder of one run: it goes with one spec and no @")
    if faults:
        raise LabError("\n".join(faults))
    if options.render:
        _warn_without_display()


def _warn_without_display() -> None:
    from slm_lab.env.rows import no_display

    if no_display():
        show("note", "--render: no display here, no window will be seen; enjoy --video FILE films instead", "yellow")


def begin_work() -> None:
    """From here on Ctrl-C has something to tidy up: it is an exception again, until a run listens to it itself."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _requests(command: Command) -> tuple[list[Request], list[str]]:
    if command.job is None:
        return [parse_words(command.words)], []
    if command.words:
        raise LabError("--job says what to run: give either a job file, or spec file, spec name and mode")
    return read_job(command.job)


def _prepare_all(requests: list[Request], faults: list[str], command: Command) -> list[Task]:
    tasks: list[Task] = []
    errors = []
    for request in requests:
        try:
            tasks += _prepare(request, command)
        except LabError as e:
            if command.job is None:
                raise
            errors.append(str(e))
    if errors:
        raise LabError("\n".join([f"{command.job}: nothing was run", *(f"  {fault}" for fault in faults), *errors]))
    if faults:
        raise SpecError(faults, str(command.job))
    return tasks


def _prepare(request: Request, command: Command) -> list[Task]:
    options = command.options
    if request.mode == "enjoy":
        if command.sets.keys() - {"env"}:
            show("note", "enjoy plays with the spec of the run: -s does not change it", "yellow")
        return [functools.partial(_enjoy, request, run_name(request, command), command)]
    if request.mode != "search" and options.ray_address is not None and "RAY_ADDRESS" not in os.environ:
        raise LabError("--ray-address belongs to the mode search")
    if request.target is not None:
        if options.start_from is not None:
            raise LabError("--from is where a new run starts from; a resumed run has its own weights")
        _check_kept(command)
        target = locate(request.target, options.out)
        return [functools.partial(_resume, request, run_name(request, command), target, command)]
    specs = _load(request, command)
    for spec in specs:
        if command.folder is not None:
            check_folder(command.folder, spec.name)
    if request.mode == "search":
        from slm_lab.experiment.trial.check import require_search

        for spec in specs:
            require_search(spec, options.device, cluster=options.ray_address is not None)
    if options.profile and request.mode != "dev":
        show("note", "--profile: runs in dev mode", "yellow")
    return [functools.partial(_uploaded, command, functools.partial(_train, spec, request)) for spec in specs]


def _check_kept(command: Command) -> None:
    """Refuse what a resumed run can't do, and tell what it keeps."""
    if "profile" in command.typed:
        raise LabError("--profile belongs to a new run: a resumed one is not profiled")
    if command.options.seed is not None:
        show("note", "a resumed run keeps its seed: --seed does not change it", "yellow")


def _load(request: Request, command: Command) -> list[Spec]:
    assert request.file is not None
    find_spec_file(request.file, command)
    start_ahead(request.file, request.name, command.sets, command.options, request.mode)
    from slm_lab.experiment.trial.check import load_specs  # imports torch: not for a wrong file name

    return load_specs(request.file, request.name, sets=command.sets)


def _train(spec: Spec, request: Request, command: Command, upload: "Upload | None") -> "RunResult":
    """Run a spec; or resume the run folder that was named, if it exists here or on the hub."""
    from slm_lab.cli.profile import profiled
    from slm_lab.experiment.launch import run_spec

    beside = nullcontext if upload is None else upload.beside
    options, folder = command.options, command.folder
    if folder is not None:
        root = options.out / folder
        if not root.exists() and upload is not None:
            upload.fetch(folder, options.out)
        if any(root.glob("info/*_run.json")):
            _check_kept(command)
            if options.start_from is not None:
                show("note", "a resumed run keeps its weights: --from does not change them", "yellow")
            return _go_on(root, request, spec.name, command, upload)
    if not command.options.profile:
        return run_spec(spec, Mode(request.mode), options, folder=folder, beside=beside)
    result, profile = profiled(lambda: run_spec(spec, Mode.DEV, options, folder=folder, beside=beside))
    show("profile", str(profile), "bold")
    return result


def _uploaded(command: Command, work: "Callable[[Command, Upload | None], RunResult]") -> int:
    """Exit code of a run, uploaded if that was asked for; also after a crash, an interrupt or SIGTERM."""
    if not command.upload:
        return _tell(work(command, None), command)
    from slm_lab.cli.upload import Upload
    from slm_lab.experiment.trial.stopping import StopRequest

    # outside the training, too, a first signal must not end the process: the last upload is to be whole
    with StopRequest() as stop:
        upload = Upload(command.upload_every)
        if stop.is_set():
            return INTERRUPTED
        result = work(command, upload)
        good = upload.finish(result.folder)
    code = _tell(result, command)
    return code if good else CRASHED


def _resume(request: Request, name: str | None, target: str | Path, command: Command) -> int:
    if request.mode == "train":
        start_sessions_ahead(target, command.options.out, name, changed=bool(command.sets))
    # imports torch: before signals are caught, of which the first would be lost meanwhile
    import slm_lab.experiment.launch  # noqa: F401

    return _uploaded(command, functools.partial(_go_on, target, request, name))


def _go_on(
    target: str | Path, request: Request, name: str | None, command: Command, upload: "Upload | None"
) -> "RunResult":
    from slm_lab.experiment.launch import resume
    from slm_lab.experiment.session.extend import as_changes

    sets, chosen = command.sets, chosen_spec(request, command)
    if sets and chosen is not None:
        sets = as_changes(*chosen, sets)
    mode, beside = Mode(request.mode), nullcontext if upload is None else upload.beside
    return resume(target, command.options, name, sets=sets, mode=mode, given=command.given, beside=beside)


def _enjoy(request: Request, name: str | None, command: Command) -> int:
    from slm_lab.experiment.launch import enjoy

    out = command.options.out
    target: str | Path = locate(request.target or LATEST, out)
    # a checkpoint may lie anywhere
    if target == LATEST or (name is not None and Path(target).suffix != ".pt"):
        found = find_run(target, out, name).root
        target = found if target == LATEST else target
    returns = enjoy(target, command.options, episodes=command.episodes or 10, video=command.video)
    if not _log_is_seen(command):
        print(*(f"{ret:g}" for ret in returns))
    return OK


def _tell(result: Any, command: Command) -> int:
    """Exit code of a run; its folder goes to standard output where the log does not show it."""
    if not _log_is_seen(command):
        print(result.folder)
    if result.stopped:
        return INTERRUPTED
    if not result.crashed:
        return OK
    return USER_ERROR if all(crash.misuse for crash in result.crashed) else CRASHED


def _log_is_seen(command: Command) -> bool:
    return sys.stdout.isatty() and command.options.log_level in ("DEBUG", "INFO")
