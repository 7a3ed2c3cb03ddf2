"""Learning curves of a suite: the mean of each row's sessions with its interval, in one small CSV beside the scores."""

import csv
from pathlib import Path

import numpy as np
from suite_results import Results
from suite_rows import Row, Suite

from slm_lab.experiment.records.curves import Curve, average, moving_average
from slm_lab.experiment.records.history import read_history
from slm_lab.lib.layout import Layout

POINTS = 40
"""Of a curve."""
COLUMNS = ("env", "algorithm", "sessions", "frame", "mean", "low", "high")

Curves = dict[tuple[str, str], tuple[int, Curve]]
"""By env and algorithm: how many sessions, and their curve."""


def path_of(suite: Suite) -> Path:
    """Where the curves of a suite are."""
    return suite.csv.with_name(f"{suite.name}_curves.csv")


def row_curve(row: Row, suite: Suite, out: Path) -> tuple[int, Curve] | None:
    """The curve of total_reward's moving average over the sessions that the row's score is made of.

    None: there is no score, or not every one of these sessions has its run folder here.
    """
    xs, ys = [], []
    for result in Results(suite.csv).read():
        if result.key == row.key:
            folders = sorted((out / suite.name).glob(f"{row.slug}_{result.seed}_{result.spec}/*/info"))
            if not folders:
                return None
            train = read_history(Layout.open(folders[-1].parent)).judged[0].train
            xs.append(train["frame"])
            ys.append(moving_average(train["total_reward"]))
    return (len(xs), average(xs, ys, points=POINTS)) if xs else None


def read(path: Path) -> Curves:
    """The curves of a file; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: Curves = {}
    for key in dict.fromkeys((r["env"], r["algorithm"]) for r in rows):
        own = [r for r in rows if (r["env"], r["algorithm"]) == key]
        columns = (np.array([float(r[name]) for r in own]) for name in ("frame", "mean", "low", "high"))
        found[key] = int(own[0]["sessions"]), Curve(*columns)
    return found


def write(path: Path, curves: Curves) -> None:
    """Write a file, sorted; numbers are rounded to four digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key, (count, curve) in sorted(curves.items()):
            for frame, *values in zip(*curve, strict=True):
                writer.writerow([*key, count, round(frame), *(f"{v:.4g}" for v in values)])
