"""A policy as one file that runs without the lab: raw observations of the env in, actions of the env out.

Everything between is in the graph: how observations become numbers, stacked frames, the normalizer as it stands, the
net, the likeliest action, its scaling to the env's bounds. The file is an ONNX model, or an exported program of torch
(`.pt2`). What a policy remembers (hidden states, stacked frames) goes in and comes out: the file itself has no state.
"""

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import slm_lab
from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.recall import Recall
from slm_lab.env.actions import ActionMap
from slm_lab.env.moments import EPSILON
from slm_lab.env.observations import PartMap
from slm_lab.env.ops import ClipObs, Frames, NormalizeObs
from slm_lab.env.translate import Translator
from slm_lab.experiment.enjoy import SavedPolicy
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_atomic
from slm_lab.lib.suggest import did_you_mean

SUFFIXES = (".onnx", ".pt2")
ENVS, STEPS = 16, 16
"""Of the check: 256 observations."""
TOLERANCE = 1e-5
"""Of real actions, relative to their size where that is above 1."""

Array = NDArray[Any]
Runner = Callable[[Sequence[Array]], list[Array]]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    inputs: list[str]
    """Names with shapes, `N` the number of envs."""
    outputs: list[str]
    error: float
    """Greatest difference to the policy over the observations of the check."""


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

    Args:
        translator: between env and agent.
        agent: acts greedily; it is taken over.

    Raises:
        LabError: something of it can't be written as a graph.
    """

    def __init__(self, translator: Translator, agent: Agent) -> None:
        super().__init__()
        algorithm: Any = agent.algorithm
        if not algorithm.nets:
            raise LabError(f"{type(algorithm).__name__} has no net to export")
        if translator.observations.dtype == np.uint8 and len(translator.observations.parts) > 1:
            raise LabError(f"{translator.name}: observations that mix vectors and images of bytes can't be exported")
        self.nets = nn.ModuleDict(algorithm.nets)
        self.nets.eval().requires_grad_(False)
        for p in self.nets.parameters():
            p.data = p.data.clone()  # they were views of one vector
        self.algorithm, self.parts = algorithm, translator.observations.parts
        self.ops, self.actions = translator.ops, translator.actions
        self.memory = None if algorithm.recall is None else _Memory(algorithm.recall)
        if self.memory is not None:
            algorithm.recall = self.memory
        self.frames = [op for op in self.ops if isinstance(op, Frames)]
        self.states = {f"frames{i or ''}": op._frames.shape[1:] for i, op in enumerate(self.frames)}
        self.state_dtypes = [op.dtype for op in self.frames]
        if self.memory is not None:
            self.states["hidden"] = (self.memory.state.shape[-1],)
            self.state_dtypes.append(np.dtype(np.float32))

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        named = [f"obs.{part.name}" if part.name else "obs" for part in self.parts]
        return [*named, *(["begins", *self.states] if self.states else [])]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return ["action", *(f"next_{name}" for name in self.states)]

    def example(self, raw: Sequence[Array]) -> list[Array]:
        """Inputs for observations part by part, [N, *raw] each, of which every one begins an episode."""
        n = len(raw[0])
        states = [
            np.zeros((n, *shape), kind) for shape, kind in zip(self.states.values(), self.state_dtypes, strict=True)
        ]
        return [*raw, *([np.ones(n, np.bool_), *states] if states else [])]

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """In the order of `inputs`; gives what `outputs` names."""
        count = len(self.parts)
        rows = [_part(part, x) for part, x in zip(self.parts, args[:count], strict=True)]
        obs = rows[0] if count == 1 else torch.cat([row.flatten(1) for row in rows], 1)
        begins, *states = args[count:] if self.states else (None,)
        after: list[Tensor] = []
        for op in self.ops:
            if isinstance(op, Frames):
                obs, kept = _stack(op, obs, states[len(after)], begins)  # type: ignore[arg-type]  # it has states
                after.append(kept)
            elif isinstance(op, NormalizeObs):
                obs = _on_reals(op.reals._end, obs, partial(_normalized, op=op))
            elif isinstance(op, ClipObs):
                obs = _on_reals(op.reals._end, obs, partial(torch.clamp, min=float(op.low), max=float(op.high)))
            else:
                raise LabError(f"{type(op).__name__}: can't be exported")
        if self.memory is not None:
            assert begins is not None
            self.memory.state = states[-1] * (~begins).to(states[-1].dtype).unsqueeze(-1)
        action = _decode(self.actions, self.algorithm.act(obs, False).action)
        return (action, *after, *([] if self.memory is None else [self.memory.state]))


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


def _stack(op: Frames, obs: Tensor, frames: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    """See `Frames`."""
    moved = torch.cat([frames[:, 1:], obs.unsqueeze(1)], 1)
    first = obs.unsqueeze(1).expand(-1, op.length, *obs.shape[1:])
    kept = torch.where(begins.reshape(-1, *[1] * obs.dim()), first, moved)
    if not op._parts:
        return kept.reshape(kept.shape[0], *op.shape), kept
    return torch.cat([kept[:, :, part].flatten(1) for part in op._parts], 1), kept


def _on_reals(end: int | None, obs: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the vectors alone, where images lie behind them."""
    return change(obs) if end is None else torch.cat([change(obs[..., :end]), obs[..., end:]], -1)


def _normalized(x: Tensor, op: NormalizeObs) -> Tensor:
    """See `moments.normalize`, which computes in float64."""
    mean, var = (torch.from_numpy(np.array(m, np.float64)) for m in (op.moments.mean, op.moments.var))
    return ((x.double() - mean) / (var + EPSILON).sqrt()).float()


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


def export(saved: SavedPolicy, path: Path) -> Exported:
    """Write a policy to a file, and check the file against the policy.

    Args:
        saved: the policy.
        path: `.onnx` or `.pt2`.

    Raises:
        LabError: another kind of file; what can't be exported; the file does not do what the policy does.
    """
    if path.suffix not in SUFFIXES:
        raise LabError(
            f"{path}: unknown kind of file{did_you_mean(path.suffix, SUFFIXES)} (known: {', '.join(SUFFIXES)})"
        )
    if not path.parent.is_dir():
        raise LabError(f"{path}: there is no folder {path.parent}")
    env = saved.env()
    try:
        translator, agents = env.translator(), [saved.agent(env) for _ in range(2)]
    finally:
        env.close()
    graph = PolicyGraph(translator, agents[0])
    raw = draw_observations(translator, ENVS * STEPS)
    example = graph.example([part[:ENVS] for part in raw])
    make, runner = (_onnx, _run_onnx) if path.suffix == ".onnx" else (_program, _run_program)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        data = make(graph, tuple(map(torch.from_numpy, example)), saved)
        error = check(runner(data), graph, translator, agents[1], raw)
    write_atomic(path, data)
    shapes = [
        f"{name} [{', '.join(['N', *map(str, x.shape[1:])])}] {x.dtype}"
        for name, x in zip(graph.inputs, example, strict=True)
    ]
    return Exported(path, shapes, graph.outputs, error)


def check(run: Runner, graph: PolicyGraph, translator: Translator, agent: Agent, raw: Sequence[Array]) -> float:
    """The greatest difference between the file and the policy, over STEPS steps of ENVS envs.

    Raises:
        LabError: it is above TOLERANCE; actions that are numbers must be equal.
    """
    worst = 0.0
    rng = np.random.default_rng(0)
    states: list[Array] | None = None
    begins = np.ones(ENVS, np.bool_)
    for step in range(STEPS):
        parts = [part[step * ENVS : (step + 1) * ENVS] for part in raw]
        inputs = graph.example(parts)
        if states is not None and graph.states:
            inputs[len(parts) :] = [begins, *states]
            translator.forget(begins)
            agent.forget(begins)
        action, *states = run(inputs)
        shown: Any = parts[0]
        if graph.parts[0].path:
            shown = _nested(graph.parts, parts)
        seen, alone = translator.observe(shown)
        wanted = translator.act(agent.act(seen, False), alone=alone)
        if action.shape != wanted.shape or action.dtype != wanted.dtype:
            raise LabError(
                f"the exported policy gives {action.dtype} {action.shape}, not {wanted.dtype} {wanted.shape}"
            )
        gap = np.abs(action.astype(np.float64) - wanted) / np.maximum(1, np.abs(wanted.astype(np.float64)))
        worst = max(worst, float(gap.max()))
        begins = rng.random(ENVS) < 0.2
    if worst > TOLERANCE:
        raise LabError(f"the exported policy differs from the policy by up to {worst:.3g}; nothing was written")
    return worst


def _nested(parts: Sequence[PartMap], values: Sequence[Array]) -> Any:
    """Dicts and tuples as the env has them, each part [N, ...]."""
    made: dict[Any, Any] = {}
    for part, value in zip(parts, values, strict=True):
        place = made
        for key in part.path[:-1]:
            place = place.setdefault(key, {})
        place[part.path[-1]] = value
    return made


def draw_observations(translator: Translator, count: int) -> list[Array]:
    """Observations of the env's kind part by part, [count, *raw] each.

    Integers and bytes are drawn from their range, reals around the running statistics, where there are any.
    """
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, *translator.observations.shape))
    first = translator.ops[0] if translator.ops else None
    if isinstance(first, NormalizeObs) and np.shape(first.moments.mean) == rows.shape[1:]:
        rows = first.moments.mean + rows * np.sqrt(first.moments.var)
    drawn: list[Array] = []
    views = (
        translator.observations.views(rows.astype(np.float32)) if translator.observations.dtype != np.uint8 else None
    )
    for i, part in enumerate(translator.observations.parts):
        if part.nvec is not None:
            start = np.asarray(part.start)
            flat = rng.integers(start, start + part.nvec, size=(count, len(part.nvec)))
            drawn.append(flat.reshape(count, *part.raw_shape))
        elif part.dtype == np.uint8 or part.low is not None:
            low = np.broadcast_to(0 if part.low is None else part.low, part.raw_shape)
            width = np.broadcast_to(255 if part.width is None else part.width, part.raw_shape)
            drawn.append(
                (low + np.floor(rng.random((count, *part.raw_shape)) * (width + 1))).clip(0, 255).astype(np.uint8)
            )
        elif views is not None and part.axes is None:
            drawn.append(np.ascontiguousarray(views[i]).reshape(count, *part.raw_shape))
        else:
            drawn.append(rng.normal(size=(count, *part.raw_shape)).astype(np.float32))
    return drawn


def _dynamic(graph: PolicyGraph, example: tuple[Tensor, ...]) -> dict[str, Any]:
    batch = torch.export.Dim("N", min=1, max=1 << 20)
    return {"args": tuple({0: batch} for _ in example)}


def _onnx(graph: PolicyGraph, example: tuple[Tensor, ...], saved: SavedPolicy) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401  what torch writes with
    except ImportError as e:
        raise LabError(f"{e.name} is not installed: pip install 'slm-lab[export]'") from None
    # it says of every package that is not there that it is not there
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    program = torch.onnx.export(
        graph,
        example,
        dynamo=True,
        input_names=graph.inputs,
        output_names=graph.outputs,
        dynamic_shapes=_dynamic(graph, example),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, _about(saved))
    data: bytes = model.SerializeToString()
    return data


def _program(graph: PolicyGraph, example: tuple[Tensor, ...], saved: SavedPolicy) -> bytes:
    program = torch.export.export(graph, example, dynamic_shapes=_dynamic(graph, example))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{name}.txt": text for name, text in _about(saved).items()})
    return buffer.getvalue()


def _about(saved: SavedPolicy) -> dict[str, str]:
    return {
        "spec": saved.spec.name,
        "env": saved.spec.env.name,
        "session": str(saved.session),
        "frame": str(saved.frame),
        "slm_lab": slm_lab.__version__,
    }


def _run_onnx(data: bytes) -> Runner:
    try:
        import onnxruntime
    except ImportError as e:
        raise LabError(f"{e.name} is not installed: pip install 'slm-lab[export]'") from None
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]

    def run(inputs: Sequence[Array]) -> list[Array]:
        return list(session.run(None, dict(zip(names, inputs, strict=True))))

    return run


def _run_program(data: bytes) -> Runner:
    module = torch.export.load(io.BytesIO(data)).module()

    def run(inputs: Sequence[Array]) -> list[Array]:
        with torch.no_grad():
            return [x.numpy() for x in module(*map(torch.from_numpy, inputs))]

    return run
