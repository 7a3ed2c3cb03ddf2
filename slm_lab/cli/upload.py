"""`slm-lab run --upload-hf`: what a run leaves goes to the Hugging Face Hub, now and then and at its end."""

from contextlib import AbstractContextManager
from pathlib import Path

from loguru import logger
from rich.progress import Progress

from slm_lab.cli.report import show
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.remote.account import Account
from slm_lab.remote.hub import Hub
from slm_lab.remote.names import FOLDER
from slm_lab.remote.pull import pull
from slm_lab.remote.push import push, uploads


class Upload:
    """The hub as a run needs it, with `every` minutes between two uploads.

    Made before the run, so that faults of the account are reported before the training.
    """

    def __init__(self, every: float) -> None:
        self._hub = Hub(Account.read())
        self._hub.ensure()
        self._every = 60 * every

    def beside(self, layout: Layout) -> AbstractContextManager[object]:
        """Uploads now and then, as long as it is entered."""
        return uploads(lambda: push(self._hub, layout), self._every)

    def fetch(self, name: str, out: Path) -> None:
        """Bring a run folder here, if it is on the hub."""
        if name in self._hub.folders(FOLDER, self._hub.head()):
            pull(self._hub, name, out, Progress(disable=True))
            logger.info("{} comes from {}", name, self._hub.account.repo)

    def finish(self, root: Path) -> bool:
        """Upload what there is at the end; whether that went well."""
        try:
            logger.info("uploaded: {}", push(self._hub, Layout.open(root)))
        except (LabError, OSError) as e:
            hint = f"The run is whole in {root}; to upload it: slm-lab push {root}"
            show("error", f"not uploaded: {e}\n{hint}", "bold red")
            return False
        return True
