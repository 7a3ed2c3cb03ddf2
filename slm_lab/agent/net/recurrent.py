"""The recurrent net: its outputs depend on all observations since the episode began.

Its memory is real. While the agent acts, each env has a hidden state, carried from step to step and zero again where an
episode ends. Training runs the net over the same observations in the same order, from the state that stood at their
beginning. `agent.algorithm.recall` does the carrying; this file is the net alone.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn.functional import linear

from slm_lab.agent.net.base import HeadSize, Net, real
from slm_lab.agent.net.parts import PartSpec, front, linear_layers
from slm_lab.agent.net.precision import full_precision
from slm_lab.functional.recurrent import CELLS, through_time
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count, NetSpec, with_role_keys
from slm_lab.types import Sequences

MODULES: dict[str, Callable[[int, int], nn.RNNCellBase]] = {"GRU": nn.GRUCell, "LSTM": nn.LSTMCell, "RNN": nn.RNNCell}
"""What holds the weights of a layer of cells, by cell_type."""


@with_role_keys
class RecurrentNetSpec(NetSpec):
    """Keys of RecurrentNet."""

    fc_hid_layers: tuple[Count, ...] = ()
    """Widths of the linear layers before the cells; none by default."""
    layer_norm: bool = False
    """LayerNorm after each of them, before its activation."""
    cell_type: Literal["GRU", "LSTM", "RNN"] = "GRU"
    """Kind of cell."""
    parts: dict[str, PartSpec] = Field(default_factory=dict)
    """Of observations made of parts: what single ones go through before the linear layers, by name."""
    rnn_hidden_size: Count
    """H, width of the hidden state of a layer."""
    rnn_num_layers: Count = 1
    """Layers of cells, one reading the other."""
    bidirectional: bool = False
    """Refused where true: who acts can't read the observations that are still to come."""
    seq_len: Count
    """L, steps in time that a gradient goes back. Rollouts are cut into sequences of this length, each of which starts
    from the hidden state stored at its first step. It must divide the rollout (not needed with whole episodes)."""

    @field_validator("bidirectional")
    @classmethod
    def _forward_only(cls, value: bool) -> bool:
        if value:
            raise PydanticCustomError("bidirectional", "must be false: who acts can't read what is still to come")
        return value


@register("net")
class RecurrentNet(Net):
    """Linear layers (uint8 is divided by 255), then cells through time, then one head per name.

    `forward` takes Sequences and gives the heads' outputs of all their steps, time-major, [L * S, width].
    """

    Spec = RecurrentNetSpec
    recurrent: ClassVar[bool] = True

    def __init__(self, spec: RecurrentNetSpec, obs_shape: tuple[int, ...], heads: Mapping[str, HeadSize]) -> None:
        super().__init__(spec, obs_shape, heads)
        self.front = front(obs_shape, "RecurrentNet", spec.hid_layers_activation, spec.parts)
        width = math.prod(obs_shape) if self.front is None else self.front.width
        layers: list[nn.Module] = [nn.Flatten()] if len(obs_shape) > 1 else []
        norm = nn.LayerNorm if spec.layer_norm else None
        layers += linear_layers(width, spec.fc_hid_layers, spec.hid_layers_activation, norm=norm)
        width = [width, *spec.fc_hid_layers][-1]
        self.body = nn.Sequential(*layers)
        self._cell = CELLS[spec.cell_type]
        inputs = [width] + [spec.rnn_hidden_size] * (spec.rnn_num_layers - 1)
        self.cells = nn.ModuleList(MODULES[spec.cell_type](size, spec.rnn_hidden_size) for size in inputs)
        self._layer_size = self._cell.STATES * spec.rnn_hidden_size
        # of all layers, h and for LSTM c
        self.state_size = self._layer_size * spec.rnn_num_layers
        self.add_heads(spec.rnn_hidden_size)

    def run(self, obs: Tensor, reset: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Go through time.

        Args:
            obs: [L, S, *O]
            reset: [L, S] bool, the observation is the first of an episode; None: none of them is
            state: [S, state_size] before the first step

        Returns:
            features [L, S, H], and the states after each step [L, S, state_size]
        """
        rows = obs.flatten(0, 1)
        x: Tensor = self.body(real(rows) if self.front is None else self.front(rows)).unflatten(0, obs.shape[:2])

        # a cell's small errors would add up over time: float32, whatever the layers before are taken in
        return full_precision(lambda x: self._through_layers(x, reset, state), x)

    def _through_layers(self, x: Tensor, reset: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        keep = None if reset is None else (~reset).to(x.dtype).unsqueeze(-1)
        after = []
        for cell, start in zip(cast(Any, self.cells), state.split(self._layer_size, -1), strict=True):
            x = linear(x, cell.weight_ih, cell.bias_ih)
            after.append(through_time(self._cell, x, keep, start, cell.weight_hh, cell.bias_hh))
            x = after[-1][..., : self.spec.rnn_hidden_size]
        return x, torch.cat(after, -1) if len(after) > 1 else after[0]

    def answer(self, features: Tensor) -> tuple[Tensor, ...]:
        """[B, H] -> one [B, width] per head"""
        return full_precision(self._outputs, features)

    def step(self, obs: Tensor, state: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """One step: [N, *O] and the state [N, state_size] -> one [N, width] per head, and the state after it."""
        features, after = self.run(obs[None], None, state)
        return self.masked(self.answer(features[0]), obs), after[0]

    def features(self, obs: Tensor | Sequences) -> Tensor:
        """Sequences of B = L * S steps -> [B, H]; steps that are only filling are left out."""
        if isinstance(obs, Tensor):
            raise TypeError("RecurrentNet reads Sequences: of an observation alone it can't know what came before")
        x = self.run(obs.obs, obs.reset, obs.state)[0].flatten(0, 1)
        return x if obs.valid is None else x[obs.valid.flatten()]

    def forward(self, obs: Tensor | Sequences) -> tuple[Tensor, ...]:
        """Sequences of B = L * S steps -> one [B, width] per head"""
        outs = self.answer(self.features(obs))
        if self._mask is None or isinstance(obs, Tensor):
            return outs
        seen = obs.obs.flatten(0, 1)
        return self.masked(outs, seen if obs.valid is None else seen[obs.valid.flatten()])
