"""How much a net computes for one observation: a small one is slower on several threads than on one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
UNTRIED = 10**9
"""Multiply-adds of a convolution that was not run yet: it counts as large."""


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
    >>> work_of([nn.GRU(4, 1024)], {}), work_of([nn.Bilinear(4, 4, 500)], {}), work_of([nn.LayerNorm(900)], {})
    (Work(width=1024, convolutions=0), Work(width=500, convolutions=0), Work(width=0, convolutions=0))
    """
    widths, convolutions = [0], [0]
    for net in nets:
        widths += [_width(name, module) for name, module in net.named_modules()]
        modules = [module for module in net.modules() if isinstance(module, CONVOLUTIONS)]
        convolutions.append(sum(seen.get(module, UNTRIED) for module in modules))
    return Work(max(widths), max(convolutions))


def _width(name: str, module: nn.Module) -> int:
    """Units of a layer; of a module that is none of torch's, the longest side of its matrices."""
    if "heads" in name.split(".") or isinstance(module, CONVOLUTIONS):
        return 0
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.RNNCellBase | nn.RNNBase):
        return module.hidden_size
    return max((max(p.shape) for p in module.parameters(recurse=False) if p.dim() > 1), default=0)
