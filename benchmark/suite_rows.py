"""What a suite is: rows to be measured, read from YAML.

Seeds of tuning are 0 to 999, seeds of scoring are 1000 and above: no score can come from a seed that chose a setting.
"""

import json
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from slm_lab.lib.errors import SpecError
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

FOLDER = Path(__file__).parent / "suites"
FIRST_SCORING_SEED = 1000


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
        sets = [f"-s {shlex.quote(f'{k}={v}')}" for k, v in self.sets.items() if not k.startswith("meta.search")]
        packages = [f"--with {package}" for package in self.packages]
        words = ["uv run", *packages, "slm-lab run", self.spec_file, self.spec_name, f"train --seed {seed}", *sets]
        return " ".join(words)

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
    listed: bool = True
    """Whether specs/README.md shows its scores; an ablation's are of other settings than the spec's."""
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


def installed(package: str) -> str:
    """Its version; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
