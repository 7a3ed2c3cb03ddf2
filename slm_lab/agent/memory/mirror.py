"""A replay's observations on the agent's device, beside those on the host: batches are gathered where they are used.

The host stays the owner: it checks, saves and restores. The device gets each row when it is stored, and for a batch the
places to gather, which are a few numbers where observations are images.
"""

from typing import Any

import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.lib.log import note

SHARE = 0.5
"""Of a GPU's free memory that observations may take under `auto`."""


class Mirror:
    """Rows of a ring on a device.

    Args:
        rows: [R, N, *S] on the host, as they stand
        device: where to
    """

    def __init__(self, rows: NDArray[Any], device: torch.device) -> None:
        self._rows = torch.from_numpy(rows.copy()).to(device)
        self._flat = self._rows.flatten(0, 1)

    def put(self, row: int | NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write a row [N, *S]; or K rows [K, N, *S]."""
        place = row if isinstance(row, int) else self.moved(row)
        self._rows[place] = torch.from_numpy(values).to(self._rows.device)

    def take(self, index: NDArray[np.int64]) -> Tensor:
        """[...] places `row * N + env` -> [..., *S] on the device"""
        places = self.moved(index)
        return self._flat.index_select(0, places.flatten()).unflatten(0, index.shape)

    def moved(self, array: NDArray[Any]) -> Tensor:
        """An array on the device."""
        return to_device(torch.from_numpy(np.ascontiguousarray(array)), self._flat.device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, if it is not there yet; nobody waits for a copy to a GPU."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def mirrors(asked: str, device: torch.device, nbytes: int, *, normalized: bool) -> bool:
    """Whether observations are kept on the device too.

    Args:
        asked: `memory.device`: auto, cpu or cuda
        device: of the agent
        nbytes: of the observations
        normalized: whether each batch is normalized on the host when it is drawn
    """
    if asked == "cuda" and device.type != "cuda":
        note(f"agent.memory.device: cpu in place of cuda: the agent is on the device '{device}'", "WARNING")
    if asked == "cuda" and normalized:
        note("agent.memory.device: cpu in place of cuda: batches are normalized on the host", "WARNING")
    if asked == "cpu" or device.type != "cuda" or normalized:
        return False
    if asked == "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    if nbytes <= SHARE * free:
        return True
    logger.info(
        "replay: observations stay on the host: {:.1f} GiB, the GPU has {:.1f} free", nbytes / 2**30, free / 2**30
    )
    return False
