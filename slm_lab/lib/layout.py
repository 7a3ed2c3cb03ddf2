"""Where a run's files are. Names and places are those of SLM-Lab: people's scripts and notebooks read them.

data/<name>_<timestamp>/
    <name>_spec.json, <name>_t0_spec.json, <name>_t0_trial_metrics_scalar.json, graphs worth a first look
    info/   session tables (CSV), metrics (JSON)
    graph/  PNG
    log/    text logs, crash tracebacks, TensorBoard events
    model/  checkpoints and weights
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

TIMESTAMP = "%Y_%m_%d_%H%M%S"
FOLDER_NAME = re.compile(r"(?P<spec>.+)_(?P<time>\d{4}_\d\d_\d\d_\d{6})(?:_(?P<number>\d+))?", re.ASCII)
"""Of a run folder: the spec's name, when the run started, and a number where others started in the same second."""


def fitting(names: Iterable[str], pattern: str) -> list[str]:
    """The names that are meant: this very one; those that fit `*`, `?` and `[]`; else those that contain the pattern.

    >>> fitting(["ppo_1", "ppo_12", "dqn_1"], "ppo_1"), fitting(["ppo_1", "dqn_1"], "*_1"), fitting(["dqn_1"], "qn")
    (['ppo_1'], ['ppo_1', 'dqn_1'], ['dqn_1'])
    """
    names = list(names)
    if pattern in names:
        return [pattern]
    if any(sign in pattern for sign in "*?["):
        return [name for name in names if fnmatchcase(name, pattern)]
    return [name for name in names if pattern in name]


@dataclass(frozen=True)
class Layout:
    """Paths of one run folder. `trial` and `session` count from 0."""

    root: Path
    name: str
    """Name of the spec."""

    @classmethod
    def new(cls, out: Path, name: str, now: datetime | None = None) -> "Layout":
        """A folder that does not exist yet, `<out>/<name>_<timestamp>`; made at once, so that no other run takes it."""
        stamp = (now or datetime.now()).strftime(TIMESTAMP)
        for suffix in ["", *(f"_{i}" for i in range(2, 1000))]:
            root = Path(out).resolve() / f"{name}_{stamp}{suffix}"
            try:
                root.mkdir(parents=True)
            except FileExistsError:
                continue
            return cls(root, name)
        raise FileExistsError(f"{out}: a thousand runs of '{name}' within one second")

    @classmethod
    def named(cls, out: Path, name: str, folder: str) -> "Layout":
        """A folder of a given name, `<name>_<timestamp>`; made where there is none."""
        root = Path(out).resolve() / folder
        root.mkdir(parents=True, exist_ok=True)
        return cls(root, name)

    @classmethod
    def open(cls, root: Path) -> "Layout":
        """The layout of an existing run folder, renamed or not; the name is taken from its spec file.

        Raises:
            FileNotFoundError: the folder holds no spec file of a run.
        """
        root = Path(root).resolve()
        match = FOLDER_NAME.fullmatch(root.name)
        if match is not None and (root / f"{match['spec']}_spec.json").exists():
            return cls(root, match["spec"])
        renamed = [cls(root, path.name.removesuffix("_spec.json")) for path in root.glob("*_spec.json")]
        # those of trials have no run file
        if len(found := [layout for layout in renamed if layout.run_file().exists()]) == 1:
            return found[0]
        raise FileNotFoundError(f"{root}: not a run folder (no <name>_spec.json, or no info/<name>_run.json)")

    def t(self, trial: int) -> str:
        """Stem of a trial's files."""
        return f"{self.name}_t{trial}"

    def s(self, trial: int, session: int) -> str:
        """Stem of a session's files."""
        return f"{self.name}_t{trial}_s{session}"

    def spec(self) -> Path:
        """The spec as the user wrote it, variables filled in."""
        return self.root / f"{self.name}_spec.json"

    def run_file(self) -> Path:
        """Mode, options, versions, git commit and status of the run."""
        return self.root / "info" / f"{self.name}_run.json"

    def trial_spec(self, trial: int) -> Path:
        """The spec that the trial ran."""
        return self.root / f"{self.t(trial)}_spec.json"

    def session_df(self, trial: int, session: int, kind: str = "train") -> Path:
        """CSV, one row per log checkpoint. kind: train or eval."""
        return self.root / "info" / f"{self.s(trial, session)}_session_df_{kind}.csv"

    def session_metrics(self, trial: int, session: int, kind: str = "train") -> Path:
        """JSON {scalar, local}."""
        return self.root / "info" / f"{self.s(trial, session)}_session_metrics_{kind}.json"

    def session_scalar(self, trial: int, session: int, kind: str = "train") -> Path:
        """JSON, the scalar metrics alone."""
        return self.root / "info" / f"{self.s(trial, session)}_session_metrics_scalar_{kind}.json"

    def trial_metrics(self, trial: int) -> Path:
        """JSON {scalar, local}."""
        return self.root / "info" / f"{self.t(trial)}_trial_metrics.json"

    def trial_scalar(self, trial: int, *, top: bool = False) -> Path:
        """JSON, the scalar metrics alone; top: the copy in the run folder itself."""
        folder = self.root if top else self.root / "info"
        return folder / f"{self.t(trial)}_trial_metrics_scalar.json"

    def graph(self, stem: str, y: str, x: str = "frames", *, top: bool = False) -> Path:
        """PNG of y over x; stem: `s(..) + "_session_graph_train"`, `t(..) + "_trial_graph"`; top: in the run folder."""
        folder = self.root if top else self.root / "graph"
        return folder / f"{stem}_{y}_vs_{x}.png"

    def checkpoint(self, trial: int, session: int) -> Path:
        """The whole state of a session; the one before it is kept beside it as `.prev`."""
        return self.root / "model" / f"{self.s(trial, session)}_ckpt.pt"

    def best(self, trial: int, session: int) -> Path:
        """Agent and normalizers at the best total_reward_ma of the session."""
        return self.root / "model" / f"{self.s(trial, session)}_ckpt-best.pt"

    def origin(self) -> Path:
        """The policy that all sessions of the run start from, if one was given."""
        return self.root / "model" / f"{self.name}_origin.pt"

    def kept(self, trial: int, session: int, frame: int) -> Path:
        """Agent and normalizers at a frame of the session (`meta.keep_checkpoints`)."""
        return self.root / "model" / f"{self.s(trial, session)}_ckpt-{frame}.pt"

    def weights(self, trial: int, session: int, *, best: bool = False) -> Path:
        """The nets' weights alone, for use elsewhere."""
        tag = "_ckpt-best" if best else ""
        return self.root / "model" / f"{self.s(trial, session)}{tag}_model.safetensors"

    def log(self, stem: str) -> Path:
        """Text log of a run, trial or session."""
        return self.root / "log" / f"{stem}.log"

    def crash(self, trial: int, session: int) -> Path:
        """Traceback of a crashed session."""
        return self.root / "log" / f"{self.s(trial, session)}_crash.txt"

    def search_file(self) -> Path:
        """Journal of a search: its trials, and the state of sampler and scheduler."""
        return self.root / "info" / f"{self.name}_search.json"

    def workers_lock(self) -> Path:
        """Held by the processes that work on the trials of a search."""
        return self.root / "info" / f"{self.name}_workers.lock"

    def experiment_df(self, *, top: bool = False) -> Path:
        """CSV, one row per trial: searched keys and metrics; top: the copy in the run folder itself."""
        return (self.root if top else self.root / "info") / f"{self.name}_experiment_df.csv"

    def trial_data(self) -> Path:
        """JSON {trial: searched keys and metrics}."""
        return self.root / "info" / f"{self.name}_trial_data_dict.json"

    def experiment_graph(self, stem: str, *, top: bool = False) -> Path:
        """PNG; stem: `experiment_graph` or `multi_trial_graph_...`; top: in the run folder."""
        return (self.root if top else self.root / "graph") / f"{self.name}_{stem}.png"

    def best_spec(self) -> Path:
        """Spec file of the best trial of a search, ready to be trained."""
        return self.root / "best_spec.json"

    def best_scalar(self) -> Path:
        """JSON, the scalar metrics of the best trial of a search."""
        return self.root / "info" / f"{self.name}_best_metrics_scalar.json"

    def trial_files(self, trial: int) -> list[Path]:
        """All files of a trial that there are; those of another run folder inside this one are not meant."""
        own = re.compile(rf"{re.escape(self.t(trial))}[_.]")
        paths = [path for folder in (".", "info", "graph", "log", "model") for path in (self.root / folder).glob("*")]
        return [p for p in sorted(paths) if own.match(p.name) and p.is_file()]

    def make_folders(self) -> None:
        """Create info, graph, log and model."""
        for folder in ("info", "graph", "log", "model"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
