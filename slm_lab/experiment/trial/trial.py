"""Trial: a spec run from several seeds, side by side."""

import dataclasses
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from loguru import logger

from slm_lab.agent.metrics import Row
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.records.analysis import save_trial, trial_metrics
from slm_lab.experiment.session.callbacks import Callbacks
from slm_lab.experiment.session.commons import Commons
from slm_lab.experiment.session.resources import choose_device, parallel_sessions, thread_share
from slm_lab.experiment.session.rollouts import why_no_batch
from slm_lab.experiment.session.run import Crash, Mode, Options, Outcome, Run, SessionResult, TrialResult
from slm_lab.experiment.trial.contain import Event, run_together, to_job, write_crash
from slm_lab.experiment.trial.pool import Job, Pool
from slm_lab.experiment.trial.progress import Progress
from slm_lab.experiment.trial.stopping import StopRequest
from slm_lab.lib.cores import available_cores
from slm_lab.lib.layout import Layout
from slm_lab.spec.model import Spec

if TYPE_CHECKING:
    from slm_lab.experiment.graphs.plot import Graphs


def session_count(spec: Spec, mode: Mode) -> int:
    """Sessions of a trial: one in dev mode, else `meta.max_session`."""
    return 1 if mode is Mode.DEV else spec.meta.max_session


def batch_of(spec: Spec, mode: Mode, device: str) -> int:
    """Sessions that a process computes together, as `meta.batch_sessions` sets it; see `choose_device`.

    A single session, as in dev mode, is no batch. Device `cuda` shares the sessions out among the GPUs.
    """
    setting, sessions = spec.meta.batch_sessions, session_count(spec, mode)
    if sessions == 1 or not setting or why_no_batch(spec) is not None:
        return 1
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    chosen = choose_device(spec, device, 0, 0, gpus)
    if chosen == "cpu":
        return 1 if setting == "auto" else sessions
    return sessions if device == chosen else -(-sessions // gpus)


def worker_count(spec: Spec, mode: Mode, device: str = "auto") -> int:
    """Processes that a trial's sessions run in; 0: a single session runs in the process of its trial.

    In a search it is 0 too: the trials have theirs.
    """
    if mode is Mode.SEARCH:
        return 0
    sessions = session_count(spec, mode)
    if sessions == 1:
        return 0
    return min(pool_size(spec, available_cores()), -(-sessions // batch_of(spec, mode, device)))


def pool_size(spec: Spec, cores: int) -> int:
    """Sessions that run at a time."""
    # what one distributed session learns is of use to the others only while they run
    return spec.meta.max_session if spec.meta.distributed else parallel_sessions(spec.meta.max_session, cores)


def _told(stop: Callable[[], bool]) -> Callable[[], bool]:
    """`stop`, which is said to be heard when it is first true: to save and end may take a while."""
    told = False

    def ask() -> bool:
        nonlocal told
        if not stop():
            return False
        if not told:
            told = True
            logger.warning("stopping: sessions save and end; a second Ctrl-C stops at once")
        return True

    return ask


def _is_stopped(outcome: Outcome) -> bool:
    """Whether the session can be resumed and is not at its end."""
    return outcome is None or (isinstance(outcome, SessionResult) and outcome.stopped)


class Trial:
    """Runs the sessions, then analyses and draws what they found.

    Sessions that have a checkpoint continue from it, so running a trial of an existing folder again resumes it.

    Args:
        layout: where files go; its folders must exist.
        pool: workers that were started early; by default the trial starts its own.
        stop: asked now and then; true makes the sessions save and stop. By default SIGINT and SIGTERM do.
        cores: that the trial may use; by default all of the machine.
        listen: called with each session and row, and with None where a session crashed.
    """

    def __init__(
        self,
        spec: Spec,
        mode: Mode,
        layout: Layout,
        options: Options,
        trial: int = 0,
        *,
        pool: Pool | None = None,
        stop: Callable[[], bool] | None = None,
        cores: int | None = None,
        listen: Callable[[int, Row | None], None] | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.spec = spec
        self.layout = layout
        self.trial = trial
        self.options = options
        self._mode = mode
        self._pool = pool
        self._stop = stop
        self._listen = listen or (lambda session, row: None)
        self._callbacks = callbacks or Callbacks()
        cores = cores or available_cores()
        threads = thread_share(spec, cores)
        batch = batch_of(spec, mode, options.device)
        self.runs = [
            Run(
                *(spec, mode, layout, trial, session, threads, options, cores),
                report_episodes=self._callbacks.wants_episodes,
                batch=batch,
            )
            for session in range(session_count(spec, mode))
        ]
        self._workers = worker_count(spec, mode, options.device)
        self._outcomes: dict[int, Outcome] = {}
        self._said: set[str] = set()
        self._painter: ThreadPoolExecutor | None = None
        self._drawn: list[Future[None]] = []
        self._progress = Progress(
            [run.session for run in self.runs],
            spec.env.max_frame,
            live=options.progress,
            # there every row is logged
            quiet=mode is Mode.DEV,
        )

    def run(self) -> TrialResult:
        """Run the sessions to their end, or until a stop."""
        with ExitStack() as stack:
            stop = _told(self._stop or stack.enter_context(StopRequest()).is_set)
            with self._progress:
                if self._workers or self._pool is not None:
                    # this process is idle while others train; matplotlib is for one thread at a time
                    self._painter = stack.enter_context(ThreadPoolExecutor(1))
                    pool = self._pool or stack.enter_context(Pool(self._workers))
                    self._run_in(pool, stop)
                else:
                    self._run_here(stop)
            return self._finish()

    def _run_here(self, stop: Callable[[], bool]) -> None:
        for runs in self._processes():
            if stop():
                break
            run_together(runs, report=self._on_event, stop=stop, forward=False)

    def _processes(self) -> list[list[Run]]:
        """The sessions of each process: one, or a batch."""
        size = self.runs[0].batch
        return [self.runs[i : i + size] for i in range(0, len(self.runs), size)]

    def _run_in(self, pool: Pool, stop: Callable[[], bool]) -> None:
        def on_death(job: Job, reason: str, output: str) -> None:
            for session in job["sessions"]:
                if session in self._outcomes:
                    continue
                file = self.layout.crash(self.trial, session)
                write_crash(file, f"{reason}\n\n{output}")
                if self.spec.meta.distributed:
                    Commons(pool.shared_fd, session, len(self.runs)).leave()
                self._on_outcome(session, Crash(session, reason, file))

        if self.spec.meta.distributed:
            os.ftruncate(pool.shared_fd, 0)
            self.runs = [dataclasses.replace(run, shared_fd=pool.shared_fd) for run in self.runs]
        pool.run(
            [to_job(*runs) for runs in self._processes()],
            on_event=lambda job, told: self._on_event(*told),
            on_done=lambda job, _: None,
            on_death=on_death,
            should_stop=stop,
        )

    def _on_event(self, session: int, event: Event) -> None:
        if event["kind"] == "row":
            self._progress.row(session, event["row"])
            self._listen(session, event["row"])
            self._callbacks.row(session, event["row"])
        elif event["kind"] == "episodes":
            self._callbacks.episodes(session, event["episodes"])
        elif event["kind"] == "end":
            self._on_outcome(session, event["outcome"])
        elif event["kind"] == "begin":
            self._progress.state(session, "starting")
        elif event["message"] not in self._said:
            # what is true of one session is mostly true of all: once is enough
            self._said.add(event["message"])
            logger.log(event["level"], "session {}: {}", session, event["message"])

    def _on_outcome(self, session: int, outcome: Outcome) -> None:
        self._outcomes[session] = outcome
        if isinstance(outcome, Crash):
            self._progress.state(session, "crashed")
            self._listen(session, None)
            # a fault of the spec fails every session: the caller reports it once
            if not outcome.misuse:
                logger.error("session {} crashed: {}\n  see {}", session, outcome.reason, outcome.file)
            return
        self._progress.state(session, "stopped" if _is_stopped(outcome) else "done")
        if outcome is not None and not self._spare(outcome.stopped):
            self._draw(functools.partial(self._draw_session, outcome))

    def _finish(self) -> TrialResult:
        outcomes = [self._outcomes.get(run.session) for run in self.runs]
        results = [o for o in outcomes if isinstance(o, SessionResult)]
        crashed = [o for o in outcomes if isinstance(o, Crash)]
        stopped = any(map(_is_stopped, outcomes))
        if not results:
            return TrialResult(self.trial, {}, results, crashed, stopped)
        found = [r.metrics for r in results]
        # metrics are of a trial that ended; the graphs show how far a stopped one got
        metrics = trial_metrics(found) if stopped else save_trial(self.layout, self.trial, found)
        if not self._spare(stopped):
            self._draw(lambda graphs: graphs.trial(self.trial, metrics))
        for drawing in self._drawn:
            drawing.result()
        return TrialResult(self.trial, {} if stopped else metrics["scalar"], results, crashed, stopped)

    def _spare(self, stopped: bool) -> bool:
        """A search stops many trials, and draws them together."""
        return stopped and self._mode is Mode.SEARCH

    def _draw(self, draw: "Callable[[Graphs], object]") -> None:
        def safely() -> None:
            try:
                from slm_lab.experiment.graphs.plot import Graphs  # not before something is drawn

                draw(Graphs(self.layout, self.spec.env.name, self.options.log_metrics))
            except OSError as e:
                logger.warning("the graphs could not be drawn: {}", e)
            except Exception as e:  # noqa: BLE001  a graph that can't be drawn must not take a training with it
                logger.opt(exception=e).warning("the graphs could not be drawn")

        if self._painter is None:
            safely()
        else:
            self._drawn.append(self._painter.submit(safely))

    def _draw_session(self, r: SessionResult, graphs: "Graphs") -> None:
        kinds = {"train": r.metrics} if r.eval_metrics is None else {"train": r.metrics, "eval": r.eval_metrics}
        for kind, found in kinds.items():
            rows = read_rows(self.layout.session_df(r.trial, r.session, kind))
            graphs.session(r.trial, r.session, rows, found, kind)
