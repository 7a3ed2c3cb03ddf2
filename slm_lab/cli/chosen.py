"""Which spec of a file, and whose runs, the words of `slm-lab run` mean."""

import re
from typing import TYPE_CHECKING, Any

from slm_lab.cli.modes import MODES, Request
from slm_lab.experiment.records.runs import LATEST
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.files import find_file
from slm_lab.spec.load import named, only_name, open_file, refuse_sweep
from slm_lab.spec.variables import apply_sets, short_env, variables

if TYPE_CHECKING:
    from slm_lab.cli.run import Command


def find_spec_file(file: str, command: "Command") -> None:
    """Fail early where there is no such file; a lone word may be a misspelt command or mode."""
    try:
        find_file(file)
    except SpecError as e:
        missing, lone = "no such spec file", len(command.words) == 1
        # words after it are a command's own, unless the first looks like a file
        hint = did_you_mean(file, [*command.commands, *(MODES if lone else ())])
        word = not re.search(r"[./]", file) and e.faults[0].startswith(missing)
        if word or (hint and lone):
            hint = hint or e.faults[0].removeprefix(missing)
            raise LabError(f"'{file}' is neither a command nor a spec file{hint}") from None
        raise e


def run_name(request: Request, command: "Command") -> str | None:
    """Name of the spec whose runs are meant; None: any."""
    chosen, env = chosen_spec(request, command), command.sets.get("env")
    if env is None:
        return None if chosen is None else chosen[1]
    if chosen is None:
        raise LabError(
            f"-s env: a run keeps its env (got '{env}'); name the spec, too, to find its latest run on that env: "
            f"SPEC_FILE SPEC_NAME {request.mode}@{LATEST}"
        )
    raw, name = chosen
    _, faults = apply_sets(raw, {"env": env})
    if faults:
        raise SpecError(faults, f"{request.file}: {name}")
    return f"{name}_{short_env(env)}" if "env" in variables(raw) else name


def chosen_spec(request: Request, command: "Command") -> tuple[dict[str, Any], str] | None:
    """The spec whose runs are meant, as in its file, and its name there; None: any."""
    if request.file is None:
        return None
    find_spec_file(request.file, command)
    file = open_file(request.file)
    found = named(file, request.name or only_name(file.specs, request.file), command.sets, request.file)
    refuse_sweep(found, request.file)
    [(name, raw)] = found.items()
    return raw, name
