"""How much each searched key matters, by Optuna's evaluators."""

from collections.abc import Mapping, Sequence
from typing import Any

from slm_lab.lib.errors import LabError
from slm_lab.spec.search import LISTS, Axis

EVALUATORS = {"PED-ANOVA": "PedAnovaImportanceEvaluator", "fANOVA": "FanovaImportanceEvaluator"}
"""Name -> class of Optuna."""
LEAST = 4
"""Trials below which a share says nothing."""


def importances(
    axes: Sequence[Axis], values: Sequence[Mapping[str, Any]], scores: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Shares of the variation of the score, by evaluator.

    Returns:
        Evaluator -> {key path: share}, which sum to 1; only keys that every trial has a value of.

    Raises:
        LabError: too few trials, or all have the same score.
    """
    import optuna

    if len(scores) < LEAST:
        raise LabError(f"{len(scores)} trials ran to their end, at least {LEAST} are needed")
    if max(scores) == min(scores):
        raise LabError("all trials have the same score")
    used = [
        axis for axis in axes if all(axis.path in v for v in values) and len({str(v[axis.path]) for v in values}) > 1
    ]
    if not used:
        raise LabError("no key has more than one value")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize")
        space = {axis.path: _distribution(axis, values) for axis in used}
        for row, score in zip(values, scores, strict=True):
            params = {axis.path: _told(axis, row[axis.path]) for axis in used}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=score))
        found = {}
        for name, make in EVALUATORS.items():
            try:
                evaluator = getattr(optuna.importance, make)()
                found[name] = dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
            except ImportError:
                continue  # fANOVA needs scikit-learn
    finally:
        optuna.logging.set_verbosity(before)
    return found


def _distribution(axis: Axis, values: Sequence[Mapping[str, Any]]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.dist in LISTS:
        return CategoricalDistribution(list(dict.fromkeys(_told(axis, v[axis.path]) for v in values)))
    seen = [float(v[axis.path]) for v in values]
    return FloatDistribution(min(seen), max(seen), log="log" in axis.dist and min(seen) > 0)


def _told(axis: Axis, value: Any) -> Any:
    return str(value) if axis.dist in LISTS else float(value)
