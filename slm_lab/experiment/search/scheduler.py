"""When a trial is stopped: Ray's ASHA on the rows of the trials, its rungs kept in the journal."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from slm_lab.experiment.search.journal import Journal, TrialStatus
from slm_lab.lib.seeding import derive

Report = dict[str, Any]
"""One log checkpoint of a trial: frame, total_reward, total_reward_ma, training_iteration, time_total_s."""


class Rungs:
    """ASHA, known by trial index, with a state that can be written down.

    The same reports in the same order stop the same trials, whether or not the state was saved and loaded between
    them, and whether or not some of the reports are repeated: a rung counts a score once.

    Args:
        settings: keyword arguments of Ray's AsyncHyperBandScheduler.
        seed: decides which bracket a trial goes to, where there are several.
        state: of `state`, of a search that is resumed.
    """

    def __init__(self, settings: Mapping[str, Any], seed: int, state: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._asha = AsyncHyperBandScheduler(**settings)
        self._seed = seed
        self._trials: dict[str, int] = {k: int(v) for k, v in state.get("bracket_of", {}).items()}
        for bracket, saved in zip(self._asha._brackets, state.get("brackets", ()), strict=False):
            for (_, recorded), scores in zip(bracket._rungs, saved, strict=True):
                recorded.update(scores)

    def state(self) -> dict[str, Any]:
        """As JSON holds it."""
        brackets = [[dict(recorded) for _, recorded in bracket._rungs] for bracket in self._asha._brackets]
        return {"bracket_of": dict(self._trials), "brackets": brackets}

    def stops(self, trial: int, report: Report) -> bool:
        """Take the report in; whether the trial is to stop at it."""
        if report.get(self._settings["metric"]) is None:
            return False  # no episode has ended: there is no score
        nobody: Any = None  # Tune's controller, which ASHA does not look at
        return bool(self._asha.on_trial_result(nobody, self._stub(trial), report) == TrialScheduler.STOP)

    def _stub(self, trial: int) -> Any:
        """A stand-in for the trial in Ray's scheduler, which reads only the id."""
        key = str(trial)
        stub = SimpleNamespace(trial_id=key)
        if key not in self._asha._trial_info:
            if key not in self._trials:
                sizes = np.array([len(bracket._rungs) for bracket in self._asha._brackets])
                # Ray's own odds, but from the search's seed
                odds = np.exp(sizes - sizes.max())
                rng = np.random.default_rng(derive(self._seed, trial))
                self._trials[key] = int(rng.choice(len(sizes), p=odds / odds.sum()))
            self._asha._trial_info[key] = self._asha._brackets[self._trials[key]]
        return stub


class Scheduler(FIFOScheduler):
    """Reads the reports of the trials into the journal, one by one, and stops those that ASHA stops.

    Trials hand over what they logged in batches, so that Ray has little to do; each row in them is evaluated on its own
    and in its order, and where one stops the trial, the later ones do not count.

    Args:
        journal: of the search.
        rungs: None: every trial runs to its end.
        end: frame at which a trial is stopped without being stopped early.
        full: frame at which it ends by itself.
    """

    def __init__(self, journal: Journal, rungs: Rungs | None, end: float, full: float) -> None:
        super().__init__()
        self._journal = journal
        self._rungs = rungs
        self._end = end
        self._full = full

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """CONTINUE or STOP."""
        index = trial.config["trial"]
        record, rungs = self._journal.records[index], self._rungs
        if record.ended:
            return TrialScheduler.STOP
        record.status = TrialStatus.RUNNING
        before = None if rungs is None else rungs.state()
        for row in result.get("rows", ()):
            # a resumed trial reports rows again that ASHA has seen
            is_known = row["frame"] < record.frame
            if not is_known:
                record.frame, record.metric = row["frame"], row["total_reward_ma"]
            if row["frame"] >= self._full:
                continue  # it ends by itself, and then has its graphs as well
            if rungs is not None and rungs.stops(index, row) and not is_known:
                self._journal.scheduler = rungs.state()
                at_end = row["frame"] >= self._end
                self._journal.ended(index, TrialStatus.COMPLETED if at_end else TrialStatus.STOPPED)
                return TrialScheduler.STOP
        if rungs is not None and (state := rungs.state()) != before:
            self._journal.scheduler = state
            self._journal.save()
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> None:
        """The trial ended, or reported its crash."""
        index = trial.config["trial"]
        if reason := result.get("crash"):
            self._journal.ended(index, TrialStatus.CRASHED, reason=reason, misuse=bool(result.get("misuse")))
        else:
            crashed = int(result.get("crashed_sessions", 0))
            self._journal.ended(index, TrialStatus.COMPLETED, crashed_sessions=crashed)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Its process died."""
        error = trial.get_error()
        reason = " ".join(str(error).split())[:500] if error else "its process died"
        self._journal.ended(trial.config["trial"], TrialStatus.CRASHED, reason=reason)
