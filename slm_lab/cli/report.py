"""How tables, notes and user errors look."""

import json
from collections.abc import Iterable
from typing import Any, TypeGuard

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from slm_lab.lib.errors import LabError
from slm_lab.lib.files import plain

TRAIN_PACKAGES = frozenset(
    {"ale_py", "cloudpickle", "gymnasium", "imageio", "mujoco", "ray", "optuna", "safetensors", "tensorboard", "torch"}
)
"""What the extra `train` installs, by the names that are imported."""


def report_user_error(error: Exception) -> bool:
    """Print the message of a user error on standard error; False, and nothing printed, for any other exception.

    What the system refuses (no space, no permission), and what is not installed, is for the user to mend too.
    """
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    elif isinstance(error, LabError):
        text = str(error).lstrip()
    elif is_core_only(error):
        text = (
            f"{error.name} is not installed: this is the core without what trains and plays. To add it: `uv sync` in a "
            "clone, `pip install 'slm-lab[train]'` elsewhere"
        )
    else:
        return False
    show("error", text, "bold red")
    return True


def reword_usage_error(error: Exception) -> None:
    """Say of an argument what was got, as a spec's faults do, and of an option that is none where keys are set."""
    if isinstance(error, typer.BadParameter) and isinstance(error.__cause__, ValidationError):
        from slm_lab.spec.explain import explain

        cause = error.__cause__
        if any(one["type"] == "value_error" for one in cause.errors()):  # typer's own words, which say what was got
            error.message = error.message.replace("Value error, ", "")
        else:
            error.message = "; ".join(fault.text for fault in explain(cause))
    # typer exports no NoSuchOption
    command = getattr(getattr(error, "ctx", None), "command", None)
    if hasattr(error, "possibilities") and any(p.name == "sets" for p in getattr(command, "params", ())):
        error.message += "; a key of the spec is set with -s, such as -s agent.algorithm.gamma=0.98"  # type: ignore[attr-defined]


def is_core_only(error: Exception) -> TypeGuard[ModuleNotFoundError]:
    """Whether what trains is missing."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in TRAIN_PACKAGES


def make_table(texts: Iterable[str], numbers: Iterable[str] = (), **look: Any) -> Table:
    """A table without lines: columns of text, which fold where they do not fit, then columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", **look)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def print_json(data: Any) -> None:
    """Print data as JSON; NaN is null."""
    print(json.dumps(plain(data), indent=2, ensure_ascii=False))


def print_table(table: Table) -> None:
    """Print on standard output: fitted to a terminal; as wide as it needs to be where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)


def fits(table: Table) -> bool:
    """Whether no cell needs to be broken; where there is no terminal any width fits."""
    console = Console()
    wanted = Measurement.get(console, console.options.update(width=10_000), table).maximum
    return not console.is_terminal or wanted <= console.width


def show(label: str, message: str, style: str) -> None:
    """Print `label: message` on standard error, the label styled; the message is taken literally and not wrapped."""
    text = Text.assemble((f"{label}:", style), " ", message)
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def show_notes(notes: Iterable[str]) -> None:
    """Print notes on standard error."""
    for note in notes:
        show("note", note, "bold cyan")
