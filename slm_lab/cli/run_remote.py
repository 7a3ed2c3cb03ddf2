"""`slm-lab run-remote`: a run on a machine that dstack finds."""

import tempfile
from pathlib import Path
from typing import Any

from slm_lab.cli.modes import parse_mode
from slm_lab.cli.report import is_core_only, show
from slm_lab.cli.runs import check_folder, find_local_plugins, new_folder
from slm_lab.experiment.records.runs import git_commit
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.log import setup
from slm_lab.remote.account import HUB, Account
from slm_lab.remote.dstack import Dstack, DstackError
from slm_lab.remote.ship import ARCHIVE, archive, pack, size
from slm_lab.remote.task import SECRET, Task, check_name, render, run_name
from slm_lab.spec.files import find_file
from slm_lab.spec.load import named, open_file, refuse_sweep
from slm_lab.spec.variables import apply_sets, short_env


def main(
    file: str,
    spec: str,
    mode_word: str,
    sets: dict[str, str],
    *,
    name: str | None,
    folder: str | None,
    gpu: bool,
    dry_run: bool,
    upload: bool,
) -> None:
    """Submit a run, or print what would be submitted. `name` is that at dstack, `folder` the run folder to resume."""
    setup()
    find_local_plugins()
    mode, target = parse_mode(mode_word, ("dev", "train", "search"))
    if mode == "enjoy" or target is not None:
        raise LabError(f"mode '{mode_word}': run-remote knows train, search and dev; to resume a run: --folder")
    path = find_file(file)
    raw = _checked(path, spec, sets, mode)
    spec_name = f"{spec}_{short_env(sets['env'])}" if "env" in sets else spec
    folder = folder or new_folder(spec_name)
    check_folder(folder, spec_name)
    name = check_name(name) if name is not None else run_name(folder)
    account = Account.read() if upload else None
    if account is None:
        show("note", "--no-upload: what the job leaves is lost with its machine, but for its log", "yellow")
    repo, endpoint = (None, None) if account is None else (account.repo, account.endpoint)
    commit = git_commit(Path(__file__).parent)
    task = Task(path.name, spec, mode, folder, sets, repo, None if endpoint == HUB else endpoint, commit)
    code = archive(pack(path, raw, Path.cwd()))
    with tempfile.TemporaryDirectory(prefix="slm-lab-") as temp:
        packed = Path(temp, ARCHIVE)
        packed.write_bytes(code)
        text = render(task, name, gpu=gpu, here=Path.cwd(), archive=packed)
        show("code", f"{size(len(code))} packed", "bold")
        if dry_run:
            print(text, end="")
            return
        _submit(Path(temp), text, name, needs_secret=account is not None)
    print(name)
    show("run", f"{name} is submitted; its log: dstack logs {name}; to end it: dstack stop {name}", "bold green")
    if account is not None:
        show("results", f"slm-lab pull {folder}    # from {account.url}, as far as uploaded", "bold")


def _submit(temp: Path, text: str, name: str, *, needs_secret: bool) -> None:
    dstack = Dstack()
    dstack.free(name)
    if needs_secret and not dstack.has_secret(SECRET):
        raise DstackError(
            f"dstack: the project has no secret '{SECRET}', with which the job uploads. Set it to an access token of "
            f"the hub with write permission: dstack secret set {SECRET} TOKEN. Or run without upload: --no-upload"
        )
    file = temp / f"{name}.dstack.yml"
    file.write_text(text, encoding="utf-8")
    dstack.check(file)
    dstack.submit(file, name)


def _checked(path: Path, name: str, sets: dict[str, str], mode: str) -> dict[str, Any]:
    """The spec with variables filled in, checked as far as can be here: in full where what trains is installed."""
    found = named(open_file(path), name, sets, str(path))
    refuse_sweep(found, f"{path}: {name}")
    [raw] = found.values()
    filled, faults = apply_sets(raw, sets)
    if faults:
        raise SpecError(faults, f"{path}: {name}")
    try:
        from slm_lab.experiment.trial.check import load_specs, require_search

        [spec] = load_specs(path, name, sets=sets)
        if mode == "search":
            require_search(spec, "auto", cluster=True)
    except ModuleNotFoundError as e:
        if not is_core_only(e):
            raise
        show("note", "the spec is checked by the job only: what trains is not installed here", "yellow")
    return filled
