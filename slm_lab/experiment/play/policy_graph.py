"""A policy as a function of tensors, for `export`: raw observations of the env in, actions of the env out.

What a policy remembers (hidden states, stacked frames) goes in and comes out: the graph itself has no state.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.recall import Recall
from slm_lab.agent.net.base import Net
from slm_lab.agent.net.masked import HeadMask
from slm_lab.agent.net.parts import PartsBody
from slm_lab.env.actions import ActionMap, MixedMap
from slm_lab.env.moments import EPSILON
from slm_lab.env.ops import ClipObs, Frames, NormalizeObs
from slm_lab.env.parts import PartMap
from slm_lab.env.translate import Translator
from slm_lab.lib.errors import LabError
from slm_lab.types import Array, ObsPart, PackedShape


class _Memory:
    """Stands in the place of `Recall`: the state comes from outside, and is kept to be given back."""

    def __init__(self, recall: Recall) -> None:
        self.net = recall.nets[0]
        self.state = recall.state

    def step(self, obs: Tensor) -> tuple[Tensor, ...]:
        outs, self.state = self.net.step(obs, self.state)
        return outs


class PolicyGraph(nn.Module):
    """The policy as a function of tensors.

    Observations of several parts are a row of reals here even if some parts are bytes: a graph can't view bytes as
    reals. The bytes keep their values, and become bytes again where a net reads them.

    Raises:
        LabError: the policy can't be written as a graph.
    """

    def __init__(self, translator: Translator, agent: Agent) -> None:
        super().__init__()
        algorithm: Any = agent.algorithm
        if not algorithm.nets:
            raise LabError(f"{type(algorithm).__name__} has no net to export")
        for op in translator.ops:
            if not isinstance(op, Frames | NormalizeObs | ClipObs):
                raise LabError(f"{type(op).__name__}: can't be exported")
        self.nets = nn.ModuleDict(algorithm.nets)
        self.nets.eval().requires_grad_(False)
        for p in self.nets.parameters():
            p.data = p.data.clone()  # they were views of one vector
        self.algorithm, self.parts = algorithm, translator.observations.parts
        self.ops, self.actions = translator.ops, translator.actions
        shape = translator.observations.shape
        self.row = numbered(shape) if isinstance(shape, PackedShape) else None
        if isinstance(shape, PackedShape) and shape.dtype == "uint8":
            _read_reals(self.nets)
        self.memory = None if algorithm.recall is None else _Memory(algorithm.recall)
        if self.memory is not None:
            algorithm.recall = self.memory
        self.states: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        """What it remembers: name -> shape of one env's, dtype."""
        for op in self.ops:
            if isinstance(op, Frames):
                inner = tuple(self.row or op._frames.shape[2:])
                name = f"frames{len(self.states) or ''}"
                self.states[name] = (op.length, *inner), np.dtype(np.float32) if self.row else op.dtype
        if self.memory is not None:
            self.states["hidden"] = (self.memory.state.shape[-1],), np.dtype(np.float32)

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        named = [f"obs.{part.name}" if part.name else "obs" for part in self.parts]
        return [*named, *(["begins", *self.states] if self.states else [])]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs; each part of a tuple or dict of actions is one."""
        actions = [".".join(["action", *map(str, path)]) for path in self.actions.paths]
        return [*actions, *(f"next_{name}" for name in self.states)]

    def example(self, raw: Sequence[Array]) -> list[Array]:
        """Inputs for observations part by part, [N, *raw] each, of which every one begins an episode."""
        n = len(raw[0])
        states = [np.zeros((n, *shape), kind) for shape, kind in self.states.values()]
        return [*raw, *([np.ones(n, np.bool_), *states] if states else [])]

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """In the order of `inputs`; gives what `outputs` names."""
        count = len(self.parts)
        rows = [_part(part, x) for part, x in zip(self.parts, args[:count], strict=True)]
        obs = rows[0] if self.row is None else torch.cat([row.flatten(1).float() for row in rows], 1)
        begins, *states = args[count:] if self.states else (None,)
        after: list[Tensor] = []
        for op in self.ops:
            if isinstance(op, Frames):
                assert begins is not None
                obs, kept = _stack(op, self.row, obs, states[len(after)], begins)
                after.append(kept)
            elif isinstance(op, NormalizeObs):
                obs = _on_reals(op, obs, partial(_normalized, op=op))
            elif isinstance(op, ClipObs):
                obs = _on_reals(op, obs, partial(torch.clamp, min=float(op.low), max=float(op.high)))
        if self.memory is not None:
            assert begins is not None
            self.memory.state = states[-1] * (~begins).to(states[-1].dtype).unsqueeze(-1)
        actions = _decode_all(self.actions, self.algorithm.act(obs, False).action)
        return (*actions, *after, *([] if self.memory is None else [self.memory.state]))


def numbered(shape: PackedShape) -> PackedShape:
    """Where the parts lie in a row that has one place for each number, whatever their dtype.

    >>> vector, image = ObsPart("a", (2,), "float32", 0, 8, False), ObsPart("b", (1, 1, 1), "uint8", 8, 9, True)
    >>> [(part.begin, part.end) for part in numbered(PackedShape((12,), (vector, image))).parts]
    [(0, 2), (2, 3)]
    """
    parts: list[ObsPart] = []
    end = 0
    for part in shape.parts:
        begin, end = end, end + prod(part.shape)
        parts.append(replace(part, begin=begin, end=end))
    return PackedShape((*shape[:-1], end), tuple(parts))


def _read_reals(nets: nn.Module) -> None:
    """Let nets read rows of reals, see `numbered`, in the place of rows of bytes."""
    for module in nets.modules():
        if isinstance(module, PartsBody):
            module.forward = partial(_read_parts, module, numbered(module.shape))  # type: ignore[method-assign]
        if isinstance(module, Net) and module._mask is not None and isinstance(module.obs_shape, PackedShape):
            mask = numbered(module.obs_shape).mask
            assert mask is not None
            module._mask = HeadMask(mask, bytewise=False, sizes=module.head_sizes)


def _read_parts(body: PartsBody, shape: PackedShape, obs: Tensor) -> Tensor:
    """See `PartsBody.forward`."""
    parts = [obs[:, p.begin : p.end].unflatten(1, p.shape).to(getattr(torch, p.dtype)) for p in shape.parts]
    return body.read(parts)


def _part(part: PartMap, x: Tensor) -> Tensor:
    """See `PartMap.write`."""
    if part.first is not None:
        places = x.reshape(x.shape[0], -1).long() + torch.from_numpy(np.asarray(part.first - part.start))
        return (places.unsqueeze(-1) == torch.arange(part.shape[-1])).any(1).float()
    if part.low is not None:
        x = (x.float() - _float(part.low)) / _float(part.width)
    if part.axes is not None:
        x = x.permute(0, *(1 + axis for axis in part.axes))
    return x.reshape(x.shape[0], *part.shape).to(_kind(part.dtype))


def _stack(op: Frames, row: PackedShape | None, obs: Tensor, frames: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    """See `Frames`; row: of observations of several parts."""
    moved = torch.cat([frames[:, 1:], obs.unsqueeze(1)], 1)
    first = obs.unsqueeze(1).expand(-1, op.length, *obs.shape[1:])
    kept = torch.where(begins.reshape(-1, *[1] * obs.dim()), first, moved)
    if op.op == "stack":
        return kept, kept
    if row is None:
        return kept.flatten(1, 2), kept
    return torch.cat([kept[:, :, part.begin : part.end].flatten(1) for part in row.parts], 1), kept


def _on_reals(op: NormalizeObs | ClipObs, obs: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the vectors alone, where images or a mask lie behind them."""
    end = op.reals.shape[-1]
    return change(obs) if end == obs.shape[-1] else torch.cat([change(obs[..., :end]), obs[..., end:]], -1)


def _normalized(x: Tensor, op: NormalizeObs) -> Tensor:
    """See `moments.normalize`, which computes in float64."""
    mean, var = (torch.from_numpy(np.array(m, np.float64)) for m in (op.moments.mean, op.moments.var))
    return ((x.double() - mean) / (var + EPSILON).sqrt()).float()


def _decode_all(actions: ActionMap, action: Tensor) -> list[Tensor]:
    """The env's action part by part; see `MixedMap.decode`."""
    if not isinstance(actions, MixedMap):
        return [_decode(actions, action)]
    made, end = [], 0
    for part in actions.parts:
        begin, end = end, end + prod(part.shape)
        own = action[:, begin:end].to(_kind(part.dtype))
        made.append(_decode(part, own[:, 0] if part.shape == () else own))
    return made


def _decode(actions: ActionMap, action: Tensor) -> Tensor:
    """See `ActionMap.decode`."""
    if actions.low is not None:
        if actions.scale is not None:
            action = action * torch.from_numpy(actions.scale) + torch.from_numpy(np.asarray(actions.middle))
        low, high = torch.from_numpy(actions.low), torch.from_numpy(np.asarray(actions.high))
        action = torch.minimum(torch.maximum(action, low), high)
        if actions.env_dtype.kind in "iu":
            action = action.round()
    else:
        action = action + torch.from_numpy(np.asarray(actions.start))
    return action.to(_kind(actions.env_dtype)).reshape(action.shape[0], *actions.env_shape)


def _float(values: Array | None) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def _kind(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.zeros(1, dtype)).dtype
