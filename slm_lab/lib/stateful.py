"""What can be saved and restored. Everything a checkpoint holds hangs on one tree of objects with two methods:

- `state_dict() -> State`: a snapshot that later steps of the object do not change.
- `load_state_dict(state)`: become what the snapshot says, bit for bit.
"""

from typing import Any, Protocol

State = dict[str, Any]
"""A tree of dicts and lists with tensors, numbers, strings, bools and None at the leaves: what `torch.load` reads with
`weights_only=True`. No numpy arrays, no classes."""


class Stateful(Protocol):
    """What has them."""

    def state_dict(self) -> State:
        """See above."""
        ...

    def load_state_dict(self, state: State) -> None:
        """See above."""
        ...
