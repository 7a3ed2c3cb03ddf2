"""How much a net computes for one observation: a small one is slower on several threads than on one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Work(NamedTuple):
    """Of one observation, by the net that has most to do."""

    width: int
    """Units of the widest layer of linear ones or cells; outputs of heads do not count."""
    convolutions: int
    """Multiply-adds of all convolutions."""


@contextmanager
def tried_out() -> Iterator[dict[nn.Module, int]]:
    """Multiply-adds of each convolution that is run meanwhile: nets try theirs on one image when they are built."""
    seen: dict[nn.Module, int] = {}

    def count(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(module, CONVOLUTIONS) and isinstance(output, Tensor):
            seen[module] = output[0].numel() * module.weight[0].numel()

    hook = register_module_forward_hook(count)
    try:
        yield seen
    finally:
        hook.remove()


def work_of(nets: Iterable[nn.Module], seen: dict[nn.Module, int]) -> Work:
    """The work of the nets of an algorithm.

    Args:
        nets: what it acts with and learns
        seen: what `tried_out` gave while they were built

    >>> import torch
    >>> with tried_out() as seen:
    ...     net = nn.Sequential(nn.Conv2d(3, 16, 2), nn.Flatten(), nn.LazyLinear(64))
    ...     _ = net(torch.zeros(1, 3, 7, 7))
    >>> work_of([net], seen)
    Work(width=64, convolutions=6912)
    """
    widths, convolutions = [0], [0]
    for net in nets:
        widths += [_width(name, module) for name, module in net.named_modules()]
        convolutions.append(sum(seen.get(module, 0) for module in net.modules()))
    return Work(max(widths), max(convolutions))


def _width(name: str, module: nn.Module) -> int:
    if isinstance(module, nn.Linear) and "heads" not in name.split("."):
        return module.out_features
    return module.hidden_size if isinstance(module, nn.RNNCellBase) else 0
