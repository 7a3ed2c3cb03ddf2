"""What can be saved and restored. Everything a checkpoint holds hangs on one tree of these."""

from typing import Any, Protocol, runtime_checkable

State = dict[str, Any]
"""A tree of dicts and lists with tensors, numbers, strings, bools and None at the leaves: what `torch.load` reads with
`weights_only=True`. No numpy arrays, no classes."""


@runtime_checkable
class Stateful(Protocol):
    """An object that can be saved and brought back exactly."""

    def state_dict(self) -> State:
        """A snapshot that later steps of the object do not change."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Become what the snapshot says, bit for bit."""
        ...
