"""What was measured: the CSV of a suite, one line per session, and what of it still holds for this spec and code."""

import ast
import csv
import hashlib
import inspect
import json
import subprocess
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from suite_rows import Row, Suite, installed

from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import lookup
from slm_lab.spec.model import Spec

PACKAGES = ("torch", "gymnasium", "mujoco", "ale-py")
"""Scores change between their releases."""


@dataclass(frozen=True)
class Result:
    """One session: a line of the CSV."""

    env: str
    algorithm: str
    spec_name: str
    seed: int
    frames: int
    score: float
    """total_reward_ma"""
    final_return: float
    evaluation: float
    """Mean return of greedy episodes after the training."""
    frames_to_target: int | None
    """First row whose mean return of the last 100 episodes reached the target; None: no row did, or no target."""
    seconds: float
    """Of the training."""
    torch: str
    gymnasium: str
    mujoco: str
    ale_py: str
    commit: str
    spec: str
    """Fingerprint of the settings."""
    code: str
    """Fingerprint of the algorithm's code."""
    packages: str = ""
    """Versions of the packages of the row's env."""
    success: float | None = None
    """Share of greedy episodes that succeeded, where the row's score is that."""

    def score_of(self, row: Row) -> float:
        """What its row counts as the score."""
        if row.score == "success":
            return self.success or 0.0
        return self.final_return if row.score == "final" else self.score

    @property
    def key(self) -> tuple[str, str]:
        """Of its row."""
        return self.env, self.algorithm


class Results:
    """The CSV of a suite. One line per session; a session measured again replaces its line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Result]:
        """All lines.

        Raises:
            SpecError: the file is damaged.
        """
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            try:
                return [_result(cells) for cells in csv.DictReader(file)]
            except (KeyError, ValueError, TypeError) as e:
                raise SpecError([f"damaged: {e}"], str(self.path)) from None

    def add(self, result: Result) -> None:
        """Write one, over that of the same row and seed."""
        kept = [r for r in self.read() if (*r.key, r.seed) != (*result.key, result.seed)]
        lines = sorted([*kept, result], key=lambda r: (r.env, r.algorithm, r.seed))
        draft = self.path.with_suffix(".tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            # columns that no line uses are left out
            used = [f.name for f in fields(Result) if any(getattr(r, f.name) != f.default for r in lines)]
            writer = csv.DictWriter(file, used, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: "" if v is None else v for k, v in asdict(r).items()} for r in lines)
        draft.replace(self.path)


def _result(cells: dict[str, str]) -> Result:
    kinds: dict[str, Any] = {"seed": int, "frames": int, "score": float, "final_return": float}
    kinds |= {"evaluation": float, "seconds": float, "frames_to_target": lambda x: int(x) if x else None}
    kinds |= {"success": lambda x: float(x) if x else None}
    names = [f.name for f in fields(Result) if f.name in cells or f.default is MISSING]
    return Result(**{name: kinds.get(name, str)(cells[name]) for name in names})


State = Literal["missing", "changed", "done"]


@dataclass(frozen=True)
class Session:
    """One session of a row, to be measured or measured."""

    row: Row
    seed: int
    spec: str
    """Fingerprint of the settings, as they are now."""
    code: str
    """Fingerprint of the algorithm's code, as it is now."""
    found: Result | None = None

    @property
    def state(self) -> State:
        """Whether there is a result, and of this spec and code."""
        if self.found is None:
            return "missing"
        return "done" if (self.found.spec, self.found.code) == (self.spec, self.code) else "changed"


def sessions(suite: Suite, rows: list[Row]) -> list[Session]:
    """All sessions of these rows: the first seed of every row, then the second ...

    Raises:
        SpecError: a row's spec is wrong.
    """
    found = {(*r.key, r.seed): r for r in Results(suite.csv).read()}
    todo = []
    for row in rows:
        if not row.skip:
            prints = fingerprints(row.load())
            todo += [Session(row, seed, *prints, found.get((*row.key, seed))) for seed in suite.seeds_of(row)]
    return sorted(todo, key=lambda s: s.seed)


def fingerprints(spec: Spec) -> tuple[str, str]:
    """Of the settings that decide the numbers, and of the algorithm's code."""
    return spec_hash(spec), code_hash(spec)


def spec_hash(spec: Spec) -> str:
    """Of what decides the numbers: agent and env, and of meta what reaches the training."""
    data = spec.to_dict()
    meta = {k: data["meta"].get(k) for k in ("log_frequency", "precision", "rigorous_eval", "plugins", "random_seed")}
    return _digest(json.dumps([data["agent"], data["env"], meta], sort_keys=True))


def code_hash(spec: Spec) -> str:
    """Of the modules that define the algorithm, its memory and its net; comments and docstrings do not count."""
    agent = spec.agent
    classes = [
        lookup("algorithm", agent.algorithm.name),
        lookup("memory", agent.memory.name),
        lookup("net", agent.net.type),
    ]
    files = {
        Path(inspect.getfile(base))
        for cls in classes
        for base in cls.__mro__
        if base.__module__.startswith("slm_lab.agent")
    }
    return _digest("\n".join(_stripped(path) for path in sorted(files)))


def _stripped(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [x for x in body if not (isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant))]
    return ast.dump(tree)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def versions() -> dict[str, str]:
    """Of the packages that decide scores; empty where one is not installed."""
    return {package.replace("-", "_"): installed(package) for package in PACKAGES}


def commit() -> str:
    """The commit checked out, with a plus where tracked files differ from it."""
    root = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
