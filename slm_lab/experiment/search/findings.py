"""What a search found: the table of trials, the best spec, the graphs; and which models are kept."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from slm_lab.agent.sinks import read_rows
from slm_lab.env.names import find
from slm_lab.experiment.records.analysis import Metrics, save_session, save_trial
from slm_lab.experiment.records.history import session_tables
from slm_lab.experiment.search.journal import Journal, Record, TrialStatus
from slm_lab.lib.files import write_atomic, write_json
from slm_lab.lib.layout import Layout
from slm_lab.spec.model import Spec
from slm_lab.spec.search import apply

Found = dict[int, Metrics]
"""Metrics of the trials that have any, by trial."""
MAX_GRAPHED = 8
"""Trials drawn in the multi-trial graph, the best ones."""
_SEARCH_KEYS = ("max_trial", "search_resources", "search_scheduler", "search_max_session")


def analyse(layout: Layout, record: Record, spec: Spec) -> Metrics | None:
    """Metrics of a trial that ended, over the rows that count; written as those of a trained trial are.

    A trial that was stopped early counts up to the row that it was stopped at. None where it has no row.
    """
    env_name = find(spec.env.name).id
    sessions = []
    for (_, session), table in session_tables(layout, record.trial).items():
        rows = [row for row in read_rows(table) if (row["frame"] or 0) <= record.frame]
        crashed = layout.crash(record.trial, session).exists()
        if rows and not crashed:
            sessions.append(save_session(layout, record.trial, session, rows, env_name))
    return save_trial(layout, record.trial, sessions) if sessions else None


def ranking(journal: Journal, found: Found) -> list[Record]:
    """Trials from the best to the worst: those that ran to their end first, each by strength."""
    known = [record for record in journal.records.values() if record.trial in found]
    return sorted(known, key=lambda r: (r.status is not TrialStatus.COMPLETED, -_strength(found[r.trial]), r.trial))


def prune(layout: Layout, journal: Journal, found: Found, keep: int) -> None:
    """Delete the models of the trials that ended, but for the best ones."""
    if keep < 0:
        return
    kept = {record.trial for record in ranking(journal, found)[:keep]}
    for record in journal.records.values():
        if record.ended and record.trial not in kept:
            for path in layout.trial_files(record.trial):
                if path.parent.name == "model":
                    path.unlink(missing_ok=True)


def table(journal: Journal, found: Found, paths: Sequence[str]) -> list[dict[str, Any]]:
    """One row per trial that ended: trial, searched keys, metrics, status; the strongest first, crashed ones last."""
    scalars = {trial: metrics["scalar"] for trial, metrics in found.items()}
    names = list(next(iter(scalars.values()), {}))
    rows = [
        {
            "trial": record.trial,
            **{path: record.values.get(path) for path in paths},
            **{name: scalars.get(record.trial, {}).get(name) for name in names},
            "status": record.status.value,
        }
        for record in journal.records.values()
        if record.ended
    ]
    return sorted(rows, key=lambda row: (-_known(row.get("strength")), row["trial"]))


def save_table(layout: Layout, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write experiment_df.csv, its copy in the run folder, and the same as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
        writer.writerows([[_cell(value) for value in row.values()] for row in rows])
    for top in (False, True):
        write_atomic(layout.experiment_df(top=top), text.getvalue())
    write_json(layout.trial_data(), {row["trial"]: row for row in rows})


def save_best(layout: Layout, spec: Spec, record: Record, metrics: Metrics) -> None:
    """Write the best trial's spec as a spec file that can be trained as it is, and its metrics."""
    write_json(layout.best_scalar(), metrics["scalar"])
    data = apply(spec, record.values).to_dict()
    for key in _SEARCH_KEYS:
        data["meta"].pop(key, None)
    write_json(layout.best_spec(), {data.pop("name"): data})


def draw(layout: Layout, journal: Journal, found: Found, paths: Sequence[str], env_name: str) -> None:
    """Draw the experiment graph and the multi-trial graph."""
    from slm_lab.experiment.graphs.plot import Graphs  # not before something is drawn

    ranked = ranking(journal, found)
    points = {path: [record.values.get(path) for record in ranked] for path in paths}
    scores = [found[record.trial]["scalar"] for record in ranked]
    early = [record.status is TrialStatus.STOPPED for record in ranked]
    graphs = Graphs(layout, env_name)
    graphs.experiment(points, scores, early)
    best = ranked[:MAX_GRAPHED]
    labels = [f"trial {r.trial}" + (", stopped early" if r.status is TrialStatus.STOPPED else "") for r in best]
    graphs.trials([found[r.trial]["local"] for r in best], labels)


def has_score(metrics: Metrics) -> bool:
    """Whether a trial has a strength that can be compared: whether any of its episodes ended."""
    return math.isfinite(_strength(metrics))


def _strength(metrics: Metrics) -> float:
    return _known(metrics["scalar"]["strength"])


def _known(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str | int | float) else json.dumps(value)
