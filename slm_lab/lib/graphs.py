"""CUDA graphs: work on a GPU that is recorded once, and launched as a whole from then on.

A graph repeats kernels on fixed addresses. `Replayed` is for a function that works in place on tensors that stay where
they are; `Graphed` puts static buffers in front of one that takes arguments. On a CPU both only call.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from slm_lab.lib.errors import first_line

WARM_UP = 2
"""Calls before the recording: libraries allocate what they need in their first ones."""

Recorder = Callable[[Callable[[], Any]], Callable[[], Any]]
"""Records what a function does without doing it; gives what does it, and returns the tensors that it writes."""


def record_cuda(fn: Callable[[], Any]) -> Callable[[], Any]:
    """See Recorder."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fn()

    def replay() -> Any:
        graph.replay()
        return out

    return replay


def default_recorder(device: torch.device) -> Recorder | None:
    """CUDA's, on its devices."""
    return record_cuda if device.type == "cuda" else None


def _call_apart(fn: Callable[[], Any]) -> Any:
    """On a stream of its own, as warming up demands."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        out = fn()
    torch.cuda.current_stream().wait_stream(stream)
    return out


class Replayed:
    """A function without arguments, recorded at its third call.

    Args:
        fn: reads and writes the same tensors in each call, reads no number out of them
        device: where they are
        recorder: see Recorder; None: CUDA's on a GPU, elsewhere nothing is recorded
    """

    def __init__(self, fn: Callable[[], Any], device: torch.device, recorder: Recorder | None = None) -> None:
        self._fn = fn
        self._cuda = device.type == "cuda"
        self._recorder = recorder or default_recorder(device)
        self._calls = 0
        self._replay: Callable[[], Any] | None = None

    def __call__(self) -> Any:
        """What the function gives; recorded, in the tensors of its recording, which the next call overwrites."""
        if self._replay is not None:
            return self._replay()
        if self._recorder is None:
            return self._fn()
        self._calls += 1
        if self._calls <= WARM_UP:
            return _call_apart(self._fn) if self._cuda else self._fn()
        try:
            self._replay = self._recorder(self._fn)
        except RuntimeError as e:
            logger.info("no CUDA graph, continuing without: {}", first_line(e))
            self._replay = self._fn
        return self._replay()


class Graphed:
    """A function of tensors, some of which it may change, behind static buffers.

    An argument that comes from the same place in each call is used where it is. One that came from another place than
    before is copied into a buffer from then on; where the function changes it, everything is recorded again instead.

    Args:
        fn: gives a sequence of tensors
        device: where they are
        held: positions of the arguments that the function changes
    """

    def __init__(self, fn: Callable[..., Sequence[Tensor]], device: torch.device, held: Collection[int] = ()) -> None:
        self._fn, self._device, self._held = fn, device, held
        self._args: list[Tensor] = []
        self._copied: set[int] = set()
        self._replayed: Replayed | None = None

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """As the function; what it gives is the caller's own."""
        moved = {i for i, (t, old) in enumerate(zip(args, self._args, strict=False)) if t.data_ptr() != old.data_ptr()}
        if self._replayed is None or moved - self._copied:
            self._copied |= moved.difference(self._held)
            self._args = [t.clone() if i in self._copied else t for i, t in enumerate(args)]
            self._replayed = Replayed(lambda: self._fn(*self._args), self._device)
        for i in self._copied:
            self._args[i].copy_(args[i])
        return tuple(out.clone() for out in self._replayed())
