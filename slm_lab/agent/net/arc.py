"""Bodies that a spec writes out layer by layer: the part of the TorchArc grammar that spec files of SLM-Lab use.

    "modules": {"body": {"Sequential": [{"LazyLinear": {"out_features": 64}}, "Tanh"]}},
    "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"}

A module is a layer of torch.nn with its arguments, as `{"Layer": {...}}`, `{"Layer": [...]}` or `"Layer"`; or a
`Sequential` of modules. The graph says what goes into each module. `Lazy...` layers find their input size themselves.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from slm_lab.agent.net.init import ACTIVATIONS
from slm_lab.agent.net.normalization import BatchNorm, BatchRenorm
from slm_lab.lib.errors import SpecError
from slm_lab.lib.suggest import did_you_mean

MAX_LAYERS = 200
Maker = Callable[..., nn.Module]
"""(example input [1, ...], arguments of the layer) -> layer"""


def _plain(cls: type[nn.Module]) -> Maker:
    return lambda x, *args, **kwargs: cls(*args, **kwargs)


def _lazy(cls: type[nn.Module], axis: int) -> Maker:
    """The input size, which is the first argument, is that of an axis of the example."""
    return lambda x, *args, **kwargs: cls(x.shape[axis], *args, **kwargs)


LAYERS: dict[str, Maker] = {
    **{cls.__name__: _plain(cls) for cls in ACTIVATIONS.values()},
    **{
        name: _plain(getattr(nn, name))
        for name in (
            "AdaptiveAvgPool2d",
            "AdaptiveMaxPool2d",
            "AvgPool2d",
            "Conv1d",
            "Conv2d",
            "Flatten",
            "GroupNorm",
            "Identity",
            "LayerNorm",
            "Linear",
            "MaxPool2d",
        )
    },
    "BatchNorm1d": _plain(BatchNorm),
    "BatchNorm2d": _plain(BatchNorm),
    "BatchRenorm1d": _plain(BatchRenorm),
    "LazyBatchNorm1d": _lazy(BatchNorm, 1),
    "LazyBatchNorm2d": _lazy(BatchNorm, 1),
    "LazyBatchRenorm1d": _lazy(BatchRenorm, 1),
    "LazyConv1d": _lazy(nn.Conv1d, 1),
    "LazyConv2d": _lazy(nn.Conv2d, 1),
    "LazyLinear": _lazy(nn.Linear, -1),
}
"""By their names in torch.nn; `BatchRenorm1d` is of the same kind, and ours."""


class ArcBody(nn.Module):
    """The modules of an arc, in the order in which the graph needs them.

    Args:
        arc: `{"modules": ..., "graph": ...}`
        shape: *O of the input
        key: of the arc, at the start of error messages

    Raises:
        SpecError: not of this grammar, a layer outside of it, or one that does not fit its input.
    """

    def __init__(self, arc: dict[str, Any], shape: tuple[int, ...], key: str = "agent.net.arc") -> None:
        super().__init__()
        modules, graph = _parts(arc, key)
        self.input, self.output = graph["input"], graph["output"]
        self.steps: list[tuple[str, str]] = _in_order(graph, modules, key)
        """Module and what goes into it."""
        made: dict[str, Tensor] = {self.input: torch.zeros((1, *shape))}
        self.parts = nn.ModuleDict()
        for name, source in self.steps:
            self.parts[name], made[name] = _make(modules[name], made[source], f"{key}.modules.{name}")

    def forward(self, x: Tensor) -> Tensor:
        """[B, *O] -> [B, F]; what has more axes is flattened."""
        made = {self.input: x}
        for name, source in self.steps:
            made[name] = self.parts[name](made[source])
        return made[self.output].flatten(1)


def _parts(arc: dict[str, Any], key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Modules and graph, their form checked."""
    faults = [f"{key}.{k}: unknown key (known: modules, graph)" for k in arc if k not in ("modules", "graph")]
    modules, graph = arc.get("modules"), arc.get("graph")
    if not isinstance(modules, dict) or not modules:
        faults.append(f"{key}.modules: must be an object: names and their modules")
        modules = {}
    faults += [f"{key}.modules.{name}: a name without a dot is wanted" for name in modules if "." in name or not name]
    wanted = {"input": str, "modules": dict, "output": str}
    if not isinstance(graph, dict) or not all(isinstance(graph.get(k), kind) for k, kind in wanted.items()):
        form = '{"input": "x", "modules": {"body": ["x"]}, "output": "body"}'
        faults.append(f"{key}.graph: must be of the form {form}")
        graph = {}
    for name, sources in graph.get("modules", {}).items():
        if name not in modules:
            faults.append(f"{key}.graph.modules.{name}: no such module{did_you_mean(name, modules)}")
        if not (isinstance(sources, list) and len(sources) == 1 and isinstance(sources[0], str)):
            faults.append(f"{key}.graph.modules.{name}: must be a list of one name (got {sources!r})")
    if faults:
        raise SpecError(faults)
    return modules, graph


def _in_order(graph: dict[str, Any], modules: dict[str, Any], key: str) -> list[tuple[str, str]]:
    """(module, its source), those first that others need; only what the output needs."""
    steps: list[tuple[str, str]] = []
    name = graph["output"]
    while name != graph["input"]:
        if name not in graph["modules"]:
            raise SpecError([f"{key}.graph: '{name}' is neither the input nor a module of the graph"])
        if any(name == done for done, _ in steps):
            raise SpecError([f"{key}.graph: '{name}' needs its own output"])
        [source] = graph["modules"][name]
        steps.insert(0, (name, source))
        name = source
    if not steps:
        raise SpecError([f"{key}.graph.output: must be a module"])
    return steps


def _make(written: Any, x: Tensor, key: str) -> tuple[nn.Module, Tensor]:
    """A module and what it makes of the example."""
    name, arguments = _layer(written, key)
    if name == "Sequential":
        if not isinstance(arguments, list) or not arguments:
            raise SpecError([f"{key}.Sequential: must be a list of layers"])
        if len(arguments) > MAX_LAYERS:
            raise SpecError([f"{key}.Sequential: more than {MAX_LAYERS} layers"])
        layers = []
        for i, inner in enumerate(arguments):
            layer, x = _make(inner, x, f"{key}.Sequential[{i}]")
            layers.append(layer)
        return nn.Sequential(*layers), x
    if name not in LAYERS:
        known = ", ".join(sorted(LAYERS))
        raise SpecError([f"{key}.{name}: no layer of this grammar{did_you_mean(name, LAYERS)} (known: {known})"])
    args: list[Any] = arguments if isinstance(arguments, list) else []
    kwargs: dict[str, Any] = arguments if isinstance(arguments, dict) else {}
    try:
        layer = LAYERS[name](x, *map(_tupled, args), **{k: _tupled(v) for k, v in kwargs.items()})
        with torch.no_grad():
            return layer, layer(x)
    except (TypeError, ValueError, RuntimeError, IndexError, OverflowError, NotImplementedError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise SpecError([f"{key}.{name}: does not fit an input of shape {list(x.shape[1:])}: {reason}"]) from None


def _layer(written: Any, key: str) -> tuple[str, Any]:
    """Name and arguments of a layer."""
    if isinstance(written, str):
        return written, None
    if isinstance(written, dict) and len(written) == 1:
        [(name, arguments)] = written.items()
        if arguments is None or isinstance(arguments, dict | list):
            return str(name), arguments
        raise SpecError([f"{key}.{name}: arguments must be an object, a list or null (got {arguments!r})"])
    raise SpecError([f'{key}: must be a layer, {{"Layer": {{arguments}}}} (got {written!r})'])


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
