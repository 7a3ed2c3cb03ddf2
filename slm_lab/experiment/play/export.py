"""A policy as one file that runs without the lab: raw observations of the env in, actions of the env out.

Everything between is in the graph: how observations become numbers, stacked frames, the normalizer as it stands, the
net, the likeliest action, its scaling to the env's bounds. The file is an ONNX model, or an exported program of torch
(`.pt2`). What a policy remembers (hidden states, stacked frames) goes in and comes out: the file itself has no state.
"""

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import slm_lab
from slm_lab.agent.agent import Agent
from slm_lab.env.ops import NormalizeObs
from slm_lab.env.parts import PartMap
from slm_lab.env.translate import Translator
from slm_lab.experiment.play.enjoy import SavedPolicy
from slm_lab.experiment.play.policy_graph import PolicyGraph
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_atomic
from slm_lab.lib.suggest import did_you_mean
from slm_lab.types import Array

SUFFIXES = (".onnx", ".pt2")
ENVS, STEPS = 16, 16
"""Of the check: 256 observations."""
TOLERANCE = 1e-5
"""Of real actions, relative to their size where that is above 1."""

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


def export(saved: SavedPolicy, path: Path) -> Exported:
    """Write a policy to a file, and check the file against the policy.

    Raises:
        LabError: another kind of file; what can't be exported; the file does not do what the policy does.
    """
    if path.suffix not in SUFFIXES:
        raise LabError(
            f"{path}: unknown kind of file{did_you_mean(path.suffix, SUFFIXES)} (known: {', '.join(SUFFIXES)})"
        )
    if not path.parent.is_dir():
        raise LabError(f"{path}: there is no folder {path.parent}")
    with closing(saved.env()) as env:
        translator, agents = env.translator(), [saved.agent(env) for _ in range(2)]
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
        outputs = run(inputs)
        states = outputs[len(graph.actions.paths) :]
        seen, alone = translator.observe(nested(graph.parts, parts))
        wanted = translator.act(agent.act(seen, False), alone=alone)
        for action, path in zip(outputs, graph.actions.paths, strict=False):
            worst = max(worst, _gap(action, part_of(wanted, path)))
        begins = rng.random(ENVS) < 0.2
    if worst > TOLERANCE:
        raise LabError(f"the exported policy differs from the policy by up to {worst:.3g}; nothing was written")
    return worst


def _gap(action: Array, wanted: Array) -> float:
    """The greatest difference, relative to sizes above 1."""
    if action.shape != wanted.shape or action.dtype != wanted.dtype:
        raise LabError(f"the exported policy gives {action.dtype} {action.shape}, not {wanted.dtype} {wanted.shape}")
    gap = np.abs(action.astype(np.float64) - wanted) / np.maximum(1, np.abs(wanted.astype(np.float64)))
    return float(gap.max())


def part_of(actions: Any, path: tuple[str | int, ...]) -> Array:
    """The actions [N, ...] of one part, of N actions of an env.

    >>> part_of([{"a": 1, "b": (2, 3)}, {"a": 4, "b": (5, 6)}], ("b", 1)).tolist()
    [3, 6]
    """
    return np.stack([reduce(getitem, path, one) for one in actions])


def nested(parts: Sequence[PartMap], values: Sequence[Array]) -> Any:
    """Dicts and tuples as the env has them, each part [N, ...]; the only part of an observation that has none."""
    if not parts[0].path:
        return values[0]
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
    first = translator.ops[0] if translator.ops else None
    mean, std = np.zeros(0), np.ones(0)
    if isinstance(first, NormalizeObs):
        mean, std = np.ravel(first.moments.mean), np.sqrt(np.ravel(first.moments.var))
    drawn: list[Array] = []
    end = 0
    for part in translator.observations.parts:
        begin, end = end, end + prod(part.shape)
        if part.nvec is not None:
            start = np.asarray(part.start)
            flat: Array = rng.integers(start, start + part.nvec, size=(count, len(part.nvec)))
        elif part.dtype == np.uint8 or part.low is not None:
            low = np.broadcast_to(0 if part.low is None else part.low, part.raw_shape)
            width = np.broadcast_to(255 if part.width is None else part.width, part.raw_shape)
            # noise alone looks the same to convolutions everywhere: some pictures are brighter than others
            bright = rng.random((count, *[1] * len(part.raw_shape)))
            flat = low + np.floor(bright * rng.random((count, *part.raw_shape)) * (width + 1))
            flat = flat.clip(0, 255).astype(np.uint8)
        else:
            flat = rng.normal(size=(count, prod(part.raw_shape)))
            if end <= mean.size and part.axes is None:
                flat = mean[begin:end] + flat * std[begin:end]
            flat = flat.astype(np.float32)
        drawn.append(flat.reshape(count, *part.raw_shape))
    return drawn


def _dynamic(example: tuple[Tensor, ...]) -> dict[str, Any]:
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
        dynamic_shapes=_dynamic(example),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, _about(saved))
    return model.SerializeToString()


def _program(graph: PolicyGraph, example: tuple[Tensor, ...], saved: SavedPolicy) -> bytes:
    program = torch.export.export(graph, example, dynamic_shapes=_dynamic(example))
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
