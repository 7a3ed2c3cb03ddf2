"""Learning curves of a suite: the mean of each row's sessions with its interval, in one small CSV beside the scores."""

import csv
from pathlib import Path

import numpy as np
import suite_jobs
from suite_rows import Row, Suite

from slm_lab.experiment.curves import Curve, average, moving_average
from slm_lab.experiment.history import read_history
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
    """The curve of total_reward's moving average over the run folders of a row's present spec; None: there are none."""
    xs, ys = [], []
    for seed in suite.seeds_of(row):
        folder = suite_jobs.job(row, seed, out / suite.name, suite.episodes).folder
        for run in sorted(folder.glob("*/info"))[-1:]:
            train = read_history(Layout.open(run.parent)).judged[0].train
            if train["frame"][-1] >= row.frames:
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
