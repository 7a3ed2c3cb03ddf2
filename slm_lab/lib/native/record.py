"""Writes down what a function of tensors does, as ATen operations, forward and backward."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

TensorFunction = Callable[..., tuple[Tensor, ...]]
"""Positional tensors in, a tuple of tensors out; may change its arguments in place."""

_LIFTED = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)


class Unrecordable(Exception):
    """The function depends on something that is not an argument, or on a number read out of a tensor."""


@dataclass(frozen=True)
class Place:
    """Where the elements of a tensor are."""

    buffer: int
    """Number of the storage: arguments come first, in order."""
    offset: int
    """Of the first element, in elements."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """Elements to the next index, for each dimension."""
    dtype: torch.dtype

    @property
    def end(self) -> int:
        """Offset after the last element."""
        return self.offset + 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))


@dataclass
class Operation:
    """One ATen operation with its arguments; tensors among them are places."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: list[Place]


@dataclass
class Recording:
    """What was recorded."""

    graph: torch.fx.GraphModule
    inputs: list[Place]
    operations: list[Operation]
    constants: dict[int, Tensor]
    """Tensors that the function made of numbers, by buffer."""
    outputs: list[Place]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes every ATen operation that runs under it into a graph, those of the backward pass too.

    What `make_fx` does, without the seconds and the memory of importing the compiler into every session.
    """

    def __init__(self, example: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = torch.fx.Graph()
        self.constants = nn.Module()
        self.operations: list[Operation] = []
        self.constant_buffers: dict[int, Tensor] = {}
        # tensors are known by identity: none may be freed, and its id used again, before the end
        self._alive: list[Tensor] = []
        self._nodes: dict[int, torch.fx.Node] = {}
        self._buffers: dict[int, int] = {}
        for i, tensor in enumerate(example):
            self._know(tensor, self.graph.placeholder(f"arg_{i}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # to have it skip this class, torch would import it
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise Unrecordable("the function reads a number out of a tensor")
        kwargs = kwargs or {}
        if func in _LIFTED:
            # a tensor that the function itself makes of a number
            name = f"constant_{len(self._nodes)}"
            self.constants.register_buffer(name, args[0].clone())
            self._know(args[0], self.graph.get_attr(name))
            self.constant_buffers[self.place(args[0]).buffer] = args[0].clone()
        seen = tree_map_only(Tensor, self.node, (args, kwargs))
        placed_args, placed_kwargs = tree_map_only(Tensor, self.place, (args, kwargs))
        out = func(*args, **kwargs)
        node = self.graph.call_function(func, *seen)
        if isinstance(out, Tensor):
            self._know(out, node)
        else:
            for i, tensor in enumerate(out or ()):
                if isinstance(tensor, Tensor):
                    self._know(tensor, self.graph.call_function(operator.getitem, (node, i)))
        made = [out] if isinstance(out, Tensor) else [t for t in out or () if isinstance(t, Tensor)]
        self.operations.append(Operation(func, tuple(placed_args), placed_kwargs, [self.place(t) for t in made]))
        return out

    def node(self, tensor: Tensor) -> torch.fx.Node:
        """What made a tensor.

        Raises:
            Unrecordable: it came from outside and may change
        """
        if id(tensor) not in self._nodes:
            raise Unrecordable(f"the function reads a tensor that is not an argument (shape {list(tensor.shape)})")
        return self._nodes[id(tensor)]

    def place(self, tensor: Tensor) -> Place:
        """Where a tensor is; whatever shares memory with it has the same buffer."""
        storage = tensor.untyped_storage().data_ptr() or -id(tensor)
        buffer = self._buffers.setdefault(storage, len(self._buffers))
        return Place(buffer, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def _know(self, tensor: Tensor, node: torch.fx.Node) -> None:
        self._alive.append(tensor)
        self._nodes[id(tensor)] = node
        self.place(tensor)


def copied(tensor: Tensor) -> Tensor:
    """A copy with the same strides, also where there is something else between its elements."""
    if 0 in tensor.stride():
        return tensor.clone()
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def record(fn: TensorFunction, example: Sequence[Tensor]) -> Recording:
    """Run `fn` once on copies of `example`, writing down what it does.

    Raises:
        Unrecordable: it reads what is no argument
    """
    args = [copied(t) for t in example]
    recorder = _Recorder(args)
    inputs = [recorder.place(t) for t in args]
    with recorder:
        out = fn(*args)
    recorder.graph.output(tuple(recorder.node(t) for t in out))
    return Recording(
        torch.fx.GraphModule(recorder.constants, recorder.graph),
        inputs,
        recorder.operations,
        recorder.constant_buffers,
        [recorder.place(t) for t in out],
    )
