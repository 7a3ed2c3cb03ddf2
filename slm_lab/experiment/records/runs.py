"""Run folders: what each one's run file says, which is the latest, and that no two processes work on one."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import slm_lab
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.lib.cores import available_cores
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import hold, read_json, write_json
from slm_lab.lib.layout import FOLDER_NAME, TIMESTAMP, Layout
from slm_lab.lib.suggest import did_you_mean

LATEST = "latest"


class Status(StrEnum):
    """What became of a run. `running` in the file of a run that no process holds: it was killed."""

    RUNNING = "running"
    STOPPED = "stopped"
    COMPLETED = "completed"
    CRASHED = "crashed"


@dataclass(frozen=True)
class RunFile:
    """The run file, `info/<name>_run.json`."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def create(cls, layout: Layout, mode: Mode, options: Options) -> "RunFile":
        """Write the file of a run that begins."""
        content = {
            "mode": mode.value,
            "options": {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items()},
            "versions": versions(),
            "machine": machine(),
            "git_commit": git_commit(Path.cwd()),
            "command": sys.argv,
            "started": _now(),
            "status": Status.RUNNING.value,
            "ended": None,
            "resumed": [],
        }
        file = cls(layout.run_file(), content)
        write_json(file.path, content)
        return file

    @classmethod
    def open(cls, layout: Layout) -> "RunFile":
        """Read it."""
        path = layout.run_file()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            Mode(content["mode"]), Status(content["status"]), Options(**content["options"])
        except FileNotFoundError:
            raise LabError(f"{layout.root}: can't be resumed, it has no {path.relative_to(layout.root)}") from None
        except (ValueError, KeyError, TypeError) as e:
            raise LabError(f"{path}: not a run file of this slm_lab ({e})") from None
        return cls(path, content)

    @property
    def mode(self) -> Mode:
        """dev, train or search."""
        return Mode(self.content["mode"])

    @property
    def status(self) -> Status:
        """As last written."""
        return Status(self.content["status"])

    @property
    def options(self) -> Options:
        """What the command line said."""
        options = self.content["options"]
        return Options(**{**options, "out": Path(options["out"])})

    def resumed(self, changes: dict[str, tuple[Any, Any]] | None = None) -> "RunFile":
        """Record that the run is resumed; changes: keys of the spec, each with its old and its new value."""
        again: dict[str, Any] = {"started": _now(), "versions": versions(), "command": sys.argv}
        if changes:
            again["changes"] = {key: list(values) for key, values in changes.items()}
        return self._with(status=Status.RUNNING.value, ended=None, resumed=[*self.content["resumed"], again])

    def ended(self, status: Status) -> "RunFile":
        """Note how the run ended."""
        return self._with(status=status.value, ended=_now())

    def _with(self, **changes: Any) -> "RunFile":
        content = {**self.content, **changes}
        write_json(self.path, content)
        return RunFile(self.path, content)


def versions() -> dict[str, str]:
    """Of what decides the numbers; releases of mujoco and ale-py change the envs themselves."""
    import torch  # what only lists or moves runs goes without

    found = {"slm_lab": slm_lab.__version__, "torch": str(torch.__version__), "python": platform.python_version()}
    for name in ("numpy", "gymnasium", "mujoco", "ale-py", "jax", "mujoco-mjx", "playground"):
        with suppress(PackageNotFoundError):
            found[name.replace("-", "_")] = version(name)
    return found


def machine() -> dict[str, str | int]:
    """Processor, cores and GPUs, as far as the system shows them without a library."""
    found: dict[str, str | int] = {"system": f"{platform.system()} {platform.machine()}"}
    for name in _values("/proc/cpuinfo", "model name")[:1]:
        found["processor"] = name
    found["cores"] = available_cores()
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    if gpus := [name for file in files for name in _values(file, "Model")]:
        found["gpu"] = ", ".join(gpus)
        for driver in _values("/proc/driver/nvidia/version", "NVRM version"):
            found["driver"] = " ".join(driver.split())
    return found


def _values(file: str | Path, key: str) -> list[str]:
    """What the lines `key: value` of a file of the system say."""
    with suppress(OSError):
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
        return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]
    return []


def git_commit(folder: Path) -> str | None:
    """The commit checked out where the run is started; None outside a repository or without git.

    SLM_LAB_COMMIT tells it where the code came without its repository.
    """
    if told := os.environ.get("SLM_LAB_COMMIT"):
        return told
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def list_layouts(out: Path) -> list[Layout]:
    """All run folders in a folder by the time they began, oldest first; names of specs do not matter."""
    found = []
    for folder in Path(out).iterdir() if Path(out).is_dir() else ():
        with suppress(FileNotFoundError):
            layout = Layout.open(folder)
            found.append((*_begun(layout), folder.name, layout))
    return [layout for *_, layout in sorted(found, key=lambda entry: entry[:3])]


def _begun(layout: Layout) -> tuple[str, int]:
    """When a run began, as its name says, and its number within that second; of a renamed one, as its run file says."""
    if match := FOLDER_NAME.fullmatch(layout.root.name):
        return match["time"], int(match["number"] or 1)
    with suppress(LabError, ValueError, KeyError, TypeError):
        return datetime.fromisoformat(read_json(layout.run_file())["started"]).strftime(TIMESTAMP), 1
    return "", 1


def find_run(
    target: str | Path,
    out: Path,
    spec_name: str | None = None,
    *,
    fits: Callable[[Layout], bool] = lambda layout: True,
    kind: str = "run",
) -> Layout:
    """The run folder that is meant.

    Args:
        target: `latest`, a run folder, or a file in one (a spec, a checkpoint).
        out: where `latest` looks.
        spec_name: takes only runs of that spec.
        fits: takes only runs for which it is true, for `latest`.
        kind: what such a run is called.
    """
    if str(target) == LATEST:
        runs = list_layouts(out)
        layouts = [layout for layout in runs if fits(layout)]
        mine = [layout for layout in layouts if spec_name in (None, layout.name)]
        if mine:
            return mine[-1]
        if not layouts:
            among = f"{kind} among the {len(runs)} run{'s' * (len(runs) > 1)}" if runs else "run"
            raise LabError(f"{LATEST}: no {among} in {Path(out).resolve()}")
        names = sorted({layout.name for layout in layouts})
        hint = did_you_mean(spec_name or "", names)
        known = f"runs of: {', '.join(names)}"
        raise LabError(f"{LATEST}: no run of '{spec_name}' in {Path(out).resolve()}{hint} ({known})")
    path = Path(target).expanduser().resolve()
    if not path.exists():
        raise LabError(f"{target}: no such run folder")
    folder = path if path.is_dir() else path.parent
    if path.is_file() and folder.name == "model":
        folder = folder.parent
    try:
        layout = Layout.open(folder)
    except FileNotFoundError as e:
        raise LabError(f"{target}: neither a run folder nor a checkpoint" if path.is_file() else str(e)) from None
    if spec_name not in (None, layout.name):
        raise LabError(f"{target}: is a run of '{layout.name}' (got '{spec_name}')")
    return layout


def mode_of(layout: Layout) -> Mode:
    """The mode that a run was started in; train where its run file can't be read."""
    try:
        return RunFile.open(layout).mode
    except LabError:
        return Mode.TRAIN


def read_best_trial(layout: Layout) -> int | None:
    """The best trial of a search that has ended trials, as its table of trials has it."""
    with suppress(LabError):
        return best_trial(read_json(layout.trial_data()))
    return None


def best_trial(trials: Any) -> int | None:
    """The best of the trials of `Layout.trial_data`: of those that ran to their end the strongest, if there is one."""
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        ended = [row for row in trials.values() if isinstance(row, dict) and row.get("strength") is not None]
        ended.sort(key=lambda row: (row.get("status") != "completed", -row["strength"], row["trial"]))
        return int(ended[0]["trial"]) if ended else None
    return None


@contextmanager
def locked(
    layout: Layout, patience: float = 0.0, *, workers: bool = False, shared: bool = False
) -> Iterator[list[int]]:
    """Hold a run folder, so that no other process works on it; see `files.hold`.

    Args:
        layout: of the run.
        patience: seconds to wait: the workers of a run that was killed need a moment to save and stop.
        workers: hold what the processes that work on a search's trials hold, not the run itself.
        shared: together with others that hold it so.

    Yields:
        File descriptors to hand on to the processes that work on the run.
    """
    path = layout.workers_lock() if workers else layout.run_file().with_suffix(".lock")
    refusal = LabError(f"{layout.root}: another process is working on this run")
    with hold(path, patience, refusal, shared=shared) as descriptor:
        yield [descriptor]


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
