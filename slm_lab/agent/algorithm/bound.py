"""Functions that read nets, as functions of the nets' parameters too: only such a function can be compiled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from slm_lab.agent.net.optim import FlatParams


class Bound(nn.Module):
    """A function with the nets it reads as submodules, so that other parameters can be put in their place.

    Args:
        nets: every module that it reads, by name
        params: flat parameters of each, under its name
        function: of tensors
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], params: Mapping[str, FlatParams], function: Callable[..., Any]
    ) -> None:
        super().__init__()
        missing = nets.keys() - params.keys()
        if missing:
            raise ValueError(f"nets without parameters: {sorted(missing)}")
        self.nets = nn.ModuleDict(nets)
        self.params = {name: params[name] for name in nets}
        # torch's batch normalization updates its statistics in place, invisibly to a tracer; they are left out here, so
        # that compiling such a net fails instead of using stale ones
        found = {
            f"{path}.{name}": buffer
            for path, layer in self.named_modules()
            if not isinstance(layer, _BatchNorm)
            for name, buffer in layer.named_buffers(recurse=False)
        }
        self.statistics = list(found.values())
        """Running statistics and the like, of all nets: what the function reads, and may change in place."""
        self._statistic_names = list(found)
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        """As the function."""
        return self.function(*args)

    def under(self, flats: Mapping[str, Tensor], statistics: Sequence[Tensor], args: Sequence[Tensor]) -> Any:
        """What the function gives with these parameters, [P] for each net, and statistics, like those it has."""
        named = {
            f"nets.{net}.{name}": view
            for net, params in self.params.items()
            for name, view in zip(params.names, params.views(flats[net]), strict=True)
        }
        named |= dict(zip(self._statistic_names, statistics, strict=True))
        return functional_call(self, named, tuple(args))
