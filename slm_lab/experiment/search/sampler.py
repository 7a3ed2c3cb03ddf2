"""Which values the trials get: Optuna's TPE through Ray's OptunaSearch, seeded, and played back after a kill."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from slm_lab.experiment.search.journal import Journal, TrialStatus
from slm_lab.spec.search import Axis, Domain, grid

METRIC = "total_reward_ma"


class Sampler(Searcher):
    """Gives each trial its index and its values.

    Points of the grid_search axes are gone through in order, all of them before any comes again; the other axes are
    sampled. Ten trials are drawn at random, after that the sampler goes by how the earlier ones ended. The same seed
    asks and answers the same; with several trials at a time it also matters which of them ends first.

    Args:
        axes: searched keys.
        count: trials in all.
        seed: of the sampler.
        journal: what it holds is played back first; trials in it that have not ended come before new ones.
        mode: max or min of METRIC.
    """

    def __init__(self, axes: Sequence[Axis], count: int, seed: int, journal: Journal, mode: str = "max") -> None:
        super().__init__(metric=METRIC, mode=mode)
        self._sampled = {axis.path: axis for axis in axes if axis.dist != "grid_search"}
        self._grid_axes = {axis.path: axis for axis in axes if axis.dist == "grid_search"}
        self._grid = grid(axes)
        self._count = count
        self._journal = journal
        self._indices: dict[str, int] = {}
        self._told: set[int] = set()
        space = {path: distribution(axis.domain) for path, axis in self._sampled.items()}
        self._optuna = OptunaSearch(space=space, metric=METRIC, mode=mode, seed=seed) if space else None
        for kind, trial, metric in journal.events:
            if kind == "ask":
                self._ask(trial)
            else:
                self._tell(trial, metric)
        for record in journal.records.values():
            if record.ended:
                # the search was killed before the sampler got the result
                self._learn(record.trial)
        self._waiting = [record.trial for record in journal.records.values() if not record.ended]
        self._next = max(journal.records, default=-1) + 1

    @property
    def left(self) -> int:
        """Trials that are to be run."""
        return len(self._waiting) + max(0, self._count - self._next)

    def suggest(self, trial_id: str) -> Any:
        """Index and values of the next trial, as the trainable takes them; FINISHED where there is none."""
        if self._waiting:
            trial = self._waiting.pop(0)
        elif self._next < self._count:
            trial = self._next
            self._next += 1
            self._journal.asked(trial, self._ask(trial))
        else:
            return self.FINISHED
        self._indices[trial_id] = trial
        return {"trial": trial, "values": self._journal.records[trial].values}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Learn from how it ended: from the journal, which knows where a trial was cut."""
        trial = self._indices.get(trial_id)
        if trial is not None and self._journal.records[trial].ended:
            self._learn(trial)

    def save(self, checkpoint_path: str) -> None:
        """The journal holds everything."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal holds everything."""

    def _ask(self, trial: int) -> dict[str, Any]:
        raw: Mapping[str, Any] = {} if self._optuna is None else self._optuna.suggest(str(trial)) or {}
        values = {path: axis.value(raw[path]) for path, axis in self._sampled.items()}
        point = self._grid[trial % len(self._grid)]
        values |= {path: axis.value(point[path]) for path, axis in self._grid_axes.items()}
        return dict(sorted(values.items()))

    def _learn(self, trial: int) -> None:
        if trial not in self._told:
            record = self._journal.records[trial]
            metric = None if record.status is TrialStatus.CRASHED else record.metric
            self._journal.told(trial, metric)
            self._tell(trial, metric)

    def _tell(self, trial: int, metric: float | None) -> None:
        if self._optuna is not None and trial not in self._told:
            result = None if metric is None else {METRIC: metric}
            self._optuna.on_trial_complete(str(trial), result, error=metric is None)
        self._told.add(trial)


def distribution(domain: Domain) -> BaseDistribution:
    """The domain as Optuna names it."""
    if domain.kind == "category":
        return CategoricalDistribution(list(range(int(domain.high) + 1)))
    if domain.kind == "int":
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)
