"""How user errors look."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slm_lab.lib.errors import LabError


def report_user_error(error: Exception) -> bool:
    """Print the message of a user error on standard error; False, and nothing printed, for any other exception."""
    if not isinstance(error, LabError):
        return False
    show("error", str(error), "bold red")
    return True


def print_table(table: Table) -> None:
    """Print on standard output: fitted to a terminal; as wide as it needs to be where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)


def show(label: str, message: str, style: str) -> None:
    """Print `label: message` on standard error, the label styled; the message is taken literally and not wrapped."""
    text = Text.assemble((f"{label}:", style), " ", message)
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)
