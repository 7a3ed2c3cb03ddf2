"""Runs one session so that any failure is reported and recorded, and harms nothing else."""

import functools
import pickle
import re
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from loguru import logger

from slm_lab.agent.net.precision import float32_products
from slm_lab.experiment.session import checkpoint
from slm_lab.experiment.session.run import Crash, Outcome, Run
from slm_lab.experiment.session.session import Session
from slm_lab.experiment.trial.pool import Job
from slm_lab.lib.compile import CompileInterrupted
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.files import write_atomic
from slm_lab.lib.log import add_handler, log_file, of_thread
from slm_lab.lib.registry import import_plugins
from slm_lab.spec.model import Spec

if TYPE_CHECKING:
    from loguru import Message

Event = dict[str, Any]
"""What a session reports on its way: {"kind": "begin"}, {"kind": "row", "row": ...}, {"kind": "episodes", "episodes":
[...]}, {"kind": "log", "level": ..., "message": ...}, and last {"kind": "end", "outcome": ...}."""

_TOO_LARGE = re.compile(
    r"can't allocate memory|overflow when unpacking long|storage size calculation overflowed|array is too big"
    r"|maximum supported dimension|maximum allowed dimension|too large to convert to c"
    r"|out of memory|RESOURCE_EXHAUSTED|_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
"""What torch, numpy, CUDA and JAX say of sizes that no memory has, or that no 64 bits hold."""


def to_job(*runs: Run) -> Job:
    """Runs of one spec, which are run together, as a worker is told of them.

    The spec goes as the user wrote it: classes of plugins can't be unpickled before they are imported.
    """
    rest = [{key: value for key, value in vars(run).items() if key != "spec"} for run in runs]
    return {"sessions": [run.session for run in runs], "spec": runs[0].spec.to_dict(), "rest": pickle.dumps(rest)}


def from_job(job: Job) -> list[Run]:
    """The runs that `to_job` packed."""
    import_plugins(job["spec"]["meta"].get("plugins", []))
    spec = Spec.model_validate(job["spec"])
    return [Run(spec=spec, **rest) for rest in pickle.loads(job["rest"])]


def run_together(
    runs: Sequence[Run], *, report: Callable[[int, Event], None], stop: Callable[[], bool], forward: bool = True
) -> None:
    """Run the sessions of a process, of one spec: one, or a batch; see `run_contained`.

    `report` is called with a session's index and its events; the outcome of the last one is what `run_contained` gave.
    """
    if forward:
        logger.remove()
    frames = {run.session: 0 for run in runs}

    def tell(session: int, event: Event) -> None:
        if event["kind"] == "row":
            frames[session] = event["row"]["frame"]
        report(session, event)

    def start(run: Run) -> None:
        report_one = functools.partial(tell, run.session)
        # of a batch, one may begin when others were asked to stop already
        outcome = None if stop() else run_contained(run, report=report_one, stop=stop, forward=forward)
        report_one({"kind": "end", "outcome": outcome})

    if runs[0].batch == 1:
        for run in runs:
            start(run)
        return
    from slm_lab.lib.batch import Batch, Task  # not for those who have none

    tasks = [Task(functools.partial(start, run), functools.partial(frames.__getitem__, run.session)) for run in runs]
    gpu = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # so that the first session to end does not put back what the others compute with
    with float32_products(gpu, tf32=runs[0].spec.meta.precision == "tf32"):
        Batch(runs[0].batch).run(tasks)


def run_contained(
    run: Run, *, report: Callable[[Event], None], stop: Callable[[], bool], forward: bool = True
) -> Outcome:
    """Run a session; an exception becomes a crash, with its traceback in the run folder.

    `report` is called with its events; with `forward`, for a process whose own log nobody sees, warnings of the log are
    among them. A true `stop` asks it to save and stop.
    """
    crash_file = run.layout.crash(run.trial, run.session)
    report({"kind": "begin"})
    session = Session(run, report=report, stop=stop)
    with _logging(run, report if forward else None):
        try:
            with _process():
                result = session.run()
        except CompileInterrupted:
            # what it was in the middle of can't be saved; its last checkpoint, if any, is whole
            return None
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever it is, the other sessions continue
            e = out_of_memory(error, run.spec) or error
            # a user error says all there is to say; anything else needs its traceback
            text = str(e) if isinstance(e, LabError) else traceback.format_exc()
            write_crash(crash_file, text)
            reason = str(e) if isinstance(e, LabError) else traceback.format_exception_only(e)[-1].strip()
            logger.debug("session {} crashed: {}", run.session, reason)
            misuse = isinstance(e, SpecError) or (isinstance(e, LabError) and not session.begun)
            return Crash(run.session, reason, crash_file, misuse)
        crash_file.unlink(missing_ok=True)
        return result


def write_crash(path: Path, text: str) -> None:
    """Record a crash; if the disk is full, in the log only."""
    try:
        write_atomic(path, text.rstrip("\n") + "\n")
    except OSError as e:
        logger.error("{}: can't be written: {}\n{}", path, e.strerror, text.rstrip("\n"))


def out_of_memory(error: BaseException, spec: Spec) -> LabError | None:
    """What to say of an allocation that failed; None where something else did.

    An error of the spec: what a run needs is allocated when it is built, or in its first steps.
    """
    text = str(error)
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _TOO_LARGE.search(text):
        return None
    found = re.search(r"allocat(?:e|ing) ([\d.]+) ?(bytes|[KMGTPE]iB)", text)
    size = f"{found[1]} {found[2]} more" if found else "more"
    if found and found[2] == "bytes":
        size = f"{float(found[1]) / 2**30:,.1f} GiB more"
    on_gpu = isinstance(error, torch.OutOfMemoryError) or re.search(r"CUDA|CUBLAS|CUDNN|RESOURCE_EXHAUSTED", text)
    keys = {"algorithm": ("time_horizon", "training_frequency", "minibatch_size"), "memory": ("batch_size", "max_size")}
    given = {f"agent.{p}.{k}": getattr(getattr(spec.agent, p), k, None) for p, names in keys.items() for k in names}
    sizes = {"env.num_envs": spec.env.num_envs, **given}
    told = ", ".join(f"{key} ({n:,})" for key, n in sizes.items() if n is not None)
    text = (
        f"not enough memory{' on the GPU' if on_gpu else ''}: {size} would be needed; it grows with {told} and the net"
    )
    if on_gpu:
        text += "; fewer sessions at a time, or --device cpu, would do too"
    return SpecError([text])


@contextmanager
def _process() -> Iterator[None]:
    """Settings of the process that a session begins with, put back for whoever else uses the process."""
    before, rng = torch.get_num_threads(), checkpoint.get_rng()
    # weights are drawn alike on any number of cores; the session takes more threads where its nets need them
    torch.set_num_threads(1)
    # weights and moments that fade to denormal numbers would slow the arithmetic down
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
        checkpoint.set_rng(rng)


@contextmanager
def _logging(run: Run, report: Callable[[Event], None] | None) -> Iterator[None]:
    """The session's own log file, beside what the process logs anyway; or instead, where its warnings are reported."""
    # of several sessions in a process, each hears its own
    thread = threading.get_ident() if run.batch > 1 else None
    with ExitStack() as stack:
        if report is not None:

            def forward(message: "Message") -> None:
                record = message.record
                report({"kind": "log", "level": record["level"].name, "message": record["message"]})

            handler = add_handler(forward, level="WARNING", format="{message}", filter=of_thread(thread))
            stack.callback(logger.remove, handler)
        path = run.layout.log(run.layout.s(run.trial, run.session))
        stack.enter_context(log_file(path, run.options.log_level, thread))
        yield
