"""Target nets: slow copies of a net, that its own targets are computed with."""

import copy

import torch
from torch import Tensor, nn

from slm_lab.agent.net.optim import FlatParams
from slm_lab.functional.targets import polyak_
from slm_lab.lib.stateful import State
from slm_lab.spec.model import NetSpec


class TargetNet:
    """A net of the same shape, equal to the online net at the start, that then follows it.

    Make it before or after the online net's Optim; give `params` to the Learner as frozen.

    Args:
        online: the net that learns
        spec: its `update_type`, `update_frequency`, `polyak_coef`
    """

    def __init__(self, online: nn.Module, spec: NetSpec) -> None:
        self._online = online
        self.net = copy.deepcopy(online).requires_grad_(False)
        """Call it with observations."""
        self.params = FlatParams(self.net)
        self.coef = 1.0 if spec.update_type == "replace" else spec.polyak_coef
        self.frequency = spec.update_frequency
        self._frame = 0
        self._buffers = list(zip(self.net.buffers(), online.buffers(), strict=True))

    def follow_(self, online: FlatParams, frame: int) -> None:
        """Move towards the online net, if since the last call a multiple of `update_frequency` frames was passed.

        Args:
            online: parameters of the online net
            frame: the frame counter
        """
        if self.due(frame):
            self.move_(online)

    def due(self, frame: int) -> bool:
        """Whether since the last call a multiple of `update_frequency` frames was passed."""
        passed = frame // self.frequency > self._frame // self.frequency
        self._frame = frame
        return passed

    @torch.no_grad()
    def move_(self, online: FlatParams) -> None:
        """Move towards the online net, now."""
        polyak_(self.params.flat, online.flat, self.coef)
        for mine, theirs in self._buffers:
            mine.copy_(theirs)

    @torch.no_grad()
    def equal_(self) -> None:
        """Become equal to the online net, as at the start."""
        self.net.load_state_dict(self._online.state_dict())

    def state_dict(self) -> State:
        """Parameters, buffers and frame."""
        buffers: dict[str, Tensor] = {k: v.detach().clone() for k, v in self.net.named_buffers()}
        return {"flat": self.params.flat.clone(), "buffers": buffers, "frame": self._frame}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self.params.flat.copy_(state["flat"])
        for key, value in self.net.named_buffers():
            value.copy_(state["buffers"][key])
        self._frame = int(state["frame"])
