"""Checkpoints: the whole state of a session in one file, which is always either whole or not there.

A save goes to a temp name, is forced to the disk and renamed; the checkpoint before it stays beside it as `.prev` until
then, so that at no moment, not after a kill nor a loss of power, both are gone. Loading never runs code from the file.
"""

import os
import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from loguru import logger
from safetensors.torch import save as to_safetensors
from torch import Tensor

from slm_lab.lib.errors import LabError
from slm_lab.lib.files import sync_folder, write_atomic
from slm_lab.lib.stateful import State

VERSION = 1
"""Goes up when the tree changes so that older files can't be read."""
_MARK = "slm_lab checkpoint"


def previous(path: Path) -> Path:
    """Path of the checkpoint before the one at `path`."""
    return path.with_name(path.name + ".prev")


def exists(path: Path) -> bool:
    """Whether there is a checkpoint, or the one before it."""
    return path.exists() or previous(path).exists()


def save(path: Path, tree: State, *, keep: bool = True) -> None:
    """Write a tree (see `State`) in the place of what was at `path`, which with `keep` stays beside it.

    Its folder must exist.
    """
    temp = path.with_name(f".{path.name}.tmp")
    try:
        with temp.open("wb") as file:
            torch.save({"format": _MARK, "version": VERSION, **tree}, file)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            path.replace(previous(path))
        temp.replace(path)
    except BaseException as e:
        temp.unlink(missing_ok=True)
        if isinstance(e, RuntimeError) and isinstance(e.__context__, OSError):
            # torch only reports unexpected positions in the file
            raise OSError(e.__context__.errno, e.__context__.strerror, str(path)) from e
        raise
    sync_folder(path.parent)


def load(path: Path) -> State:
    """Read a tree, the previous one (with a warning) where the newest can't be read. Tensors come on the CPU.

    Raises:
        LabError: neither can be read.
    """
    faults = []
    for candidate in (path, previous(path)):
        try:
            tree = _read(candidate)
        except _Unreadable as e:
            faults.append(f"{candidate.name}: {e}")
            continue
        if faults:
            logger.warning("{}; resuming from the checkpoint before it, {}", faults[0], candidate.name)
        return tree
    raise LabError(f"{path.parent}: no readable checkpoint\n" + "\n".join(f"  {fault}" for fault in faults))


class _Unreadable(Exception):
    pass


def _read(path: Path) -> State:
    try:
        # torch.load does not look at the checksums that torch.save writes
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise _Unreadable(f"damaged (checksum of {damaged})")
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise _Unreadable("missing") from None
    except pickle.UnpicklingError:
        # what PyTorch says of it is advice to run the code in the file
        raise _Unreadable(
            "damaged, or not a checkpoint of slm_lab: holds other things than tensors and numbers"
        ) from None
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, KeyError) as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise _Unreadable(f"truncated or damaged ({reason})") from None
    if not isinstance(tree, dict) or tree.get("format") != _MARK:
        raise _Unreadable("not a checkpoint of slm_lab")
    if tree["version"] != VERSION:
        raise _Unreadable(f"format version {tree['version']}, this slm_lab reads {VERSION}")
    return tree


def save_weights(path: Path, weights: Mapping[str, Tensor], **metadata: object) -> None:
    """Write named tensors as safetensors for use elsewhere; metadata goes into the header, as text.

    They may be views of one buffer, and on any device. The folder of `path` must exist.
    """
    # the format needs each tensor in its own memory
    tensors = {name: w.detach().to("cpu", copy=True).contiguous() for name, w in weights.items()}
    write_atomic(path, to_safetensors(tensors, {k: str(v) for k, v in metadata.items()}))


def compare_setting(before: State | None, now: State) -> None:
    """Warn of what differs between the setting of a checkpoint (None: there is none) and that of its resume."""
    for name, value in now.items():
        if (then := (before or {}).get(name, value)) != value:
            logger.warning("the checkpoint was made with {} {}, this is {}: not the same bits", name, then, value)


def get_rng() -> State:
    """The global random streams of python, numpy and torch (GPUs included)."""
    words: State = dict(np.random.get_state(legacy=False))
    words["state"] = {"key": torch.from_numpy(words["state"]["key"].astype(np.int64)), "pos": words["state"]["pos"]}
    return {
        "python": random.getstate(),
        "numpy": words,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_rng(state: State) -> None:
    """Put back what `get_rng` gave."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    words = state["numpy"]
    key = words["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**words, "state": {"key": key, "pos": words["state"]["pos"]}})
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
