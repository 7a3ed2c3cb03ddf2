"""`slm-lab push`, `slm-lab list`, `slm-lab pull`: runs and the Hugging Face Hub."""

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from slm_lab.cli.report import make_table, print_json, print_table
from slm_lab.cli.runs import find_folder
from slm_lab.lib.layout import Layout
from slm_lab.lib.log import setup
from slm_lab.remote import catalog
from slm_lab.remote.account import Account
from slm_lab.remote.card import number
from slm_lab.remote.hub import Hub
from slm_lab.remote.pull import pull
from slm_lab.remote.push import push


def push_run(word: str, out: Path) -> None:
    """Upload a run and print its address."""
    setup()
    layout = Layout.open(find_folder(word, out))
    hub = Hub(Account.read())
    hub.ensure()
    with Console(stderr=True).status(f"uploading {layout.root.name}"):
        address = push(hub, layout)
    print(address)


def list_hub(pattern: str, *, as_json: bool) -> None:
    """Print the runs of the repository, the newest last."""
    setup()
    hub = Hub(Account.read())
    known = catalog.read(hub, hub.head())
    entries = [known[name] for name in catalog.select(known, pattern)]
    if as_json:
        print_json([{**asdict(e), "date": e.date} for e in entries])
        return
    if not entries:
        print(f"no run in {hub.account.repo} yet")
        return
    table = make_table(("name", "spec", "env", "algorithm"), ("score", "frames"))
    table.add_column("status")
    table.add_column("date")
    for e in entries:
        words = [e.name, e.spec, e.env or "?", e.algorithm or "?", number(e.total_reward_ma), number(e.frames)]
        table.add_row(*map(Text, [*words, e.status or "?", e.date]))
    print_table(table)


def pull_runs(pattern: str, out: Path, *, force: bool) -> None:
    """Download the runs that fit and print their folders."""
    setup()
    hub = Hub(Account.read())
    for name in catalog.select(catalog.read(hub, hub.head()), pattern):
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
        console = Console(stderr=True)
        with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console) as progress:
            root = pull(hub, name, out, progress, force=force)
        print(root)
