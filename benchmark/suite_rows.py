"""What a suite is: rows to be measured, read from YAML; and its results, a CSV with one line per session.

Seeds of tuning are 0 to 999, seeds of scoring are 1000 and above: no score can come from a seed that chose a setting.
"""

import ast
import csv
import hashlib
import inspect
import json
import subprocess
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import lookup
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

FOLDER = Path(__file__).parent / "suites"
FIRST_SCORING_SEED = 1000
PACKAGES = ("torch", "gymnasium", "mujoco", "ale-py")
"""Scores change between their releases."""


class Row(BaseModel):
    """One environment, one algorithm, one spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: str
    """As the table shows it."""
    algorithm: str
    """As the table shows it."""
    spec_file: str
    spec_name: str
    set: dict[str, Any] = {}
    """Further settings, as `-s KEY=VALUE` of the command line."""
    frames: int = Field(gt=0)
    target: float | None = None
    """Return that counts as solved."""
    reference: float | None = None
    """Score of the original."""
    reference_frames: int | None = None
    """Frames that the original took for it; None: as many."""
    seeds: int | None = Field(default=None, gt=0, le=1000)
    """Over the suite's number."""
    tried: str = ""
    """What was tried to find the settings, in a line."""
    skip: str = ""
    """Why it is not run."""
    packages: list[str] = []
    """What its env needs beyond the lab, with versions: `minigrid==3.2.0`."""
    score: Literal["average", "final", "success"] = "average"
    """average: total_reward_ma. final: the mean return of the last 100 episodes. success: the share of greedy episodes
    whose last `info["is_success"]` is true."""

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the row."""
        return self.env, self.algorithm

    @property
    def slug(self) -> str:
        """Name of its folder."""
        words = f"{self.env} {self.algorithm}".lower()
        return "".join(c if c.isalnum() else "_" for c in words)

    @property
    def sets(self) -> dict[str, str]:
        """All settings of its run."""
        given = {k: v if isinstance(v, str) else json.dumps(v) for k, v in self.set.items()}
        return {**given, "env.max_frame": str(self.frames), "meta.max_session": "1", "meta.search_max_session": "1"}

    def load(self, extra: dict[str, str] | None = None) -> Spec:
        """The spec that each of its sessions runs; `max_frame` and `env.max_frame` of `extra` mean the same."""
        extra = dict(extra or {})
        if (frames := extra.get("env.max_frame", extra.get("max_frame"))) is not None:
            extra["env.max_frame"] = frames
            extra |= {"max_frame": frames} if "max_frame" in self.set else {}
        return load_spec(self.spec_file, self.spec_name, sets={**self.sets, **extra})

    def command(self, seed: int) -> str:
        """What repeats one session."""
        sets = "".join(f" -s {k}={v}" for k, v in self.sets.items() if not k.startswith("meta.search"))
        uv = " ".join(["uv run", *(f"--with {p}" for p in self.packages)])
        return f"{uv} slm-lab run {self.spec_file} {self.spec_name} train --seed {seed}{sets}"

    def check_packages(self) -> None:
        """Refuse to measure beside other versions than the row states.

        Raises:
            SpecError: a package is missing or of another version.
        """
        faults = []
        for wanted in self.packages:
            name, _, number = wanted.partition("==")
            if (found := installed(name)) != number:
                faults.append(f"packages: {self.env} is measured with {wanted} (installed: {found or 'none'})")
        if faults:
            needed = " ".join(f"--with {p}" for p in self.packages)
            raise SpecError([*faults, f"run it as: uv run {needed} benchmark/suite.py ..."])


class Suite(BaseModel):
    """A file of `benchmark/suites`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    source: str
    """Where the reference scores come from."""
    seeds: int = Field(gt=0, le=1000)
    """Sessions of each row."""
    episodes: int = Field(default=100, gt=0)
    """Greedy episodes played with the policy that training ended with."""
    rows: list[Row]
    folder: Path = FOLDER

    @model_validator(mode="after")
    def _distinct(self) -> "Suite":
        keys = [row.key for row in self.rows]
        if doubled := sorted({k for k in keys if keys.count(k) > 1}):
            raise ValueError(f"rows stand twice: {doubled}")
        return self

    @classmethod
    def names(cls) -> list[str]:
        """Of all suites."""
        return sorted(p.stem for p in FOLDER.glob("*.yaml"))

    @classmethod
    def read(cls, name: str) -> "Suite":
        """By its name or file.

        Raises:
            SpecError: there is none, or it is wrong.
        """
        path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
        if not path.is_file():
            known = cls.names()
            raise SpecError([f"suite: no '{name}'{did_you_mean(name, known)} (known: {', '.join(known)})"])
        try:
            place = {"name": path.stem, "folder": path.parent}
            return cls.model_validate({**place, **yaml.safe_load(path.read_text(encoding="utf-8"))})
        except (ValidationError, yaml.YAMLError, TypeError) as e:
            faults = (
                [f"{'.'.join(map(str, f['loc']))}: {f['msg']} (got {f['input']!r:.80})" for f in e.errors()]
                if isinstance(e, ValidationError)
                else [str(e)]
            )
            raise SpecError(faults, str(path)) from None

    def only(self, words: str | None) -> list[Row]:
        """Rows whose env or algorithm is named; `CartPole-v1,PPO` names those that are both.

        Raises:
            SpecError: no row has that env or algorithm.
        """
        wanted = [w.strip().lower() for w in (words or "").split(",") if w.strip()]
        known = sorted({w for row in self.rows for w in row.key})
        lower = {w.lower() for w in known}
        faults = [f"--only: no row is of '{w}'{did_you_mean(w, known)}" for w in wanted if w not in lower]
        if faults:
            raise SpecError(faults, self.name)
        envs = [w for w in wanted if w in {row.env.lower() for row in self.rows}]
        algorithms = [w for w in wanted if w not in envs]
        return [
            row
            for row in self.rows
            if (not envs or row.env.lower() in envs) and (not algorithms or row.algorithm.lower() in algorithms)
        ]

    def seeds_of(self, row: Row) -> range:
        """Seeds of scoring."""
        return range(FIRST_SCORING_SEED, FIRST_SCORING_SEED + (row.seeds or self.seeds))

    @property
    def csv(self) -> Path:
        """Where its results lie: beside the suite."""
        return self.folder / f"{self.name}.csv"


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


def installed(package: str) -> str:
    """Its version; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def commit() -> str:
    """The commit checked out, with a plus where tracked files differ from it."""
    root = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
