"""Run a search: draw values, hand trials to Ray, keep the journal, report the results."""

import dataclasses
import shlex
import shutil
from collections.abc import Callable
from typing import Any

from loguru import logger
from ray import tune

from slm_lab.env.names import find
from slm_lab.experiment.records.runs import locked
from slm_lab.experiment.records.wording import block
from slm_lab.experiment.search import findings
from slm_lab.experiment.search.cluster import Cluster, connected
from slm_lab.experiment.search.journal import Journal, TrialStatus
from slm_lab.experiment.search.sampler import Sampler
from slm_lab.experiment.search.scheduler import Rungs, Scheduler
from slm_lab.experiment.search.store import Plan, start_receiver
from slm_lab.experiment.search.table import SearchTable
from slm_lab.experiment.search.trainable import SearchTrial
from slm_lab.experiment.session.resources import choose_device, search_shares, share_faults
from slm_lab.experiment.session.run import Crash, Options, RunResult, Scalars
from slm_lab.experiment.trial.trial import pool_size
from slm_lab.lib.errors import SpecError
from slm_lab.lib.layout import Layout
from slm_lab.lib.seeding import derive
from slm_lab.spec.model import Spec
from slm_lab.spec.search import scheduler_settings, search_sessions, trial_count, trial_spec
from slm_lab.spec.search_parse import parse_search

SAMPLER, BRACKETS = 0, 1
"""What a search's seed is split into."""
PATIENCE = 20.0
"""Seconds that a resume waits for what is left of a killed search to end."""


class _Interrupted(Exception):
    """Raised between two steps of Tune, which then stops all trials."""


class _Watch(tune.Callback):
    """Calls a function after each step of Tune."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune did something, or waited a moment."""
        self._look()


class Search:
    """One search, in its run folder, whose folders exist. What its journal holds is not done again.

    `stop` is asked now and then; true makes the trials save and stop.

    Raises:
        SpecError: the search block, or what `meta` says of the search, is wrong.
    """

    def __init__(self, spec: Spec, layout: Layout, options: Options, stop: Callable[[], bool]) -> None:
        self._spec, self._layout, self._options, self._stop = spec, layout, options, stop
        self._axes = parse_search(spec)
        self._paths = [axis.path for axis in self._axes]
        self._settings = scheduler_settings(spec)
        self._count = trial_count(spec, self._axes)
        self._seed = options.seed if options.seed is not None else spec.meta.random_seed or 0
        self._journal = Journal.open(layout.search_file())
        self._found: findings.Found = {}

    def run(self) -> RunResult:
        """Run the trials that are left, then write what was found.

        Raises:
            LabError: Ray can't be started or reached; it has not what a trial asks for.
        """
        self._analyse()
        interrupted = False
        if any(not r.ended for r in self._journal.records.values()) or len(self._journal.records) < self._count:
            log = self._layout.log(f"{self._layout.name}_ray")
            with locked(self._layout, PATIENCE, workers=True):
                pass  # the processes of a search that was killed have saved and ended
            with connected(self._options.ray_address, log, gpus=self._options.device != "cpu") as cluster:
                interrupted = self._run_trials(cluster)
        return self._finish(interrupted)

    def _run_trials(self, cluster: Cluster) -> bool:
        """Whether it was interrupted."""
        plan = self._plan(cluster)
        mode = self._settings["mode"] if self._settings else "max"
        sampler = Sampler(self._axes, self._count, derive(self._seed, SAMPLER), self._journal, mode)
        rungs, end = None, float(self._spec.env.max_frame)
        if self._settings is not None:
            rungs = Rungs(self._settings, derive(self._seed, BRACKETS), self._journal.scheduler)
            end = min(end, float(self._settings["max_t"])) if self._settings["time_attr"] == "frame" else end
        table = SearchTable(
            self._journal, self._paths, self._count, self._spec.env.max_frame, live=self._options.progress
        )

        def look() -> None:
            self._analyse()
            table.update()
            if self._stop():
                logger.warning("stopping: trials save and end; a second Ctrl-C stops at once")
                raise _Interrupted

        with table:
            try:
                tune.run(
                    tune.with_parameters(SearchTrial, plan=plan),
                    name="search",
                    storage_path=str(cluster.folder),
                    resources_per_trial={"cpu": plan.cpu, "gpu": plan.gpu},
                    num_samples=sampler.left,
                    search_alg=sampler,
                    scheduler=Scheduler(self._journal, rungs, end, self._spec.env.max_frame),
                    callbacks=[_Watch(look)],
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: f"t{trial.config['trial']}",
                    raise_on_failed_trial=False,
                    verbose=0,
                )
            except _Interrupted:
                return True
            finally:
                table.update()
        return False

    def _plan(self, cluster: Cluster) -> Plan:
        """What each trial gets of what there is."""
        cpu, gpu = search_shares(self._spec)
        cpu = cpu or max(1, min(search_sessions(self._spec), cluster.largest))
        if gpu is None:
            device = choose_device(self._spec, self._options.device, 0, 0, int(cluster.gpus))
            gpu = 1.0 if device.startswith("cuda") else 0.0
        elif gpu and (not cluster.gpus or self._options.device == "cpu"):
            logger.warning("meta.search_resources.gpu: no GPU to use, trials run on the CPU")
            gpu = 0.0
        if faults := share_faults(self._spec, cluster.largest, cluster.gpus if gpu else 0):
            raise SpecError(faults, self._spec.name)
        places = min(cluster.cpus // cpu, int(cluster.gpus / gpu + 1e-9) if gpu else cluster.cpus)
        logger.info(
            "{}, {} at a time: {} and {:g} GPU each, on {}",
            _trials(self._count),
            min(places, self._count),
            "1 core" if cpu == 1 else f"{cpu} cores",
            gpu,
            "1 machine" if cluster.machines == 1 else f"{cluster.machines} machines",
        )
        token = self._layout.run_file().read_text(encoding="utf-8")
        # a trial sees only the GPUs that it was given
        device = ("cuda" if self._options.device.startswith("cuda") else "auto") if gpu else "cpu"
        return Plan(
            spec=self._spec.to_dict(),
            layout=self._layout,
            options=dataclasses.replace(self._options, device=device, cuda_offset=0, render=False, progress=False),
            cpu=cpu,
            workers=pool_size(trial_spec(self._spec, {}), cpu),
            gpu=gpu,
            token=token,
            receiver=start_receiver(self._layout, token) if cluster.machines > 1 else None,
        )

    def _analyse(self) -> None:
        """Metrics of the trials that ended since the last time; the models of the poorer ones go."""
        done = [r for r in self._journal.records.values() if r.ended and r.status is not TrialStatus.CRASHED]
        new = [record for record in done if record.trial not in self._found]
        for record in new:
            metrics = findings.analyse(self._layout, record, self._spec)
            if metrics is not None:
                self._found[record.trial] = metrics
        if new:
            findings.prune(self._layout, self._journal, self._found, self._options.keep)

    def _finish(self, interrupted: bool) -> RunResult:
        layout, records = self._layout, list(self._journal.records.values())
        findings.prune(layout, self._journal, self._found, self._options.keep)
        findings.save_table(layout, findings.table(self._journal, self._found, self._paths))
        ranked = findings.ranking(self._journal, self._found)
        if interrupted or not ranked:
            crashes = [
                Crash(r.trial, r.reason or "", None, r.misuse) for r in records if r.status is TrialStatus.CRASHED
            ]
            return RunResult(layout.root, {}, [] if interrupted else crashes, interrupted)
        best = ranked[0]
        if not findings.has_score(self._found[best.trial]):
            logger.warning("no trial has a score, so there is no best one: did any episode end?")
            return RunResult(layout.root, {})
        findings.save_best(layout, self._spec, best, self._found[best.trial])
        try:
            findings.draw(layout, self._journal, self._found, self._paths, find(self._spec.env.name).id)
        except Exception as e:  # noqa: BLE001  a graph that can't be drawn must not take a finished search with it
            logger.opt(exception=e).warning("the graphs could not be drawn")
        frames = sum(record.frame for record in records)
        crashed = sum(record.status is TrialStatus.CRASHED for record in records)
        early = sum(record.status is TrialStatus.STOPPED for record in records)
        logger.info("{}, {} stopped early, {} crashed; {:,} frames", _trials(len(records)), early, crashed, frames)
        metrics = self._found[best.trial]["scalar"]
        logger.info("{}", block(metrics, f"best: trial {best.trial}", shutil.get_terminal_size().columns))
        for path, value in best.values.items():
            logger.info("  {} = {}", path, value)
        command = shlex.join(["slm-lab", "run", str(layout.best_spec()), self._spec.name, "train"])
        logger.info("to train it: {}", command)
        return RunResult(layout.root, Scalars(metrics))


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
