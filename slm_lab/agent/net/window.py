"""A recurrent net for single steps of the past: it reads the last few observations, from a hidden state of zeros."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.net.base import HeadSize, Net
from slm_lab.agent.net.recurrent import RecurrentNet, RecurrentNetSpec
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import register
from slm_lab.types import PackedShape


@register("net")
class RecurrentWindowNet(Net):
    """[B, L, *O], the oldest first -> linear layers -> cells through the L steps -> one [B, width] per head.

    The env stacks L = `seq_len` observations: `frame_op` stack. It has no state beyond them, and so can learn
    from a replay memory; RecurrentNet carries its state through the whole episode, and needs the policy's own rollouts.
    """

    Spec = RecurrentNetSpec

    def __init__(self, spec: Any, obs_shape: tuple[int, ...], heads: Mapping[str, HeadSize]) -> None:
        super().__init__(spec, obs_shape, heads)
        if len(obs_shape) < 2 or obs_shape[0] != spec.seq_len:
            wanted = f'set env.frame_op "stack" and env.frame_op_len {spec.seq_len} (got {list(obs_shape)})'
            raise SpecError([f"agent.net.type: RecurrentWindowNet reads {spec.seq_len} observations at once: {wanted}"])
        inner = obs_shape[1:]
        if isinstance(obs_shape, PackedShape):
            inner = PackedShape(inner, obs_shape.parts)
        self.through_time = RecurrentNet(spec, inner, {})
        self.add_heads(spec.rnn_hidden_size, body_is_initialized=True)

    def features(self, obs: Tensor) -> Tensor:
        """[B, L, *O] -> [B, H], the hidden state after the newest observation"""
        start = torch.zeros((len(obs), self.through_time.state_size), device=obs.device)
        return self.through_time.run(obs.transpose(0, 1), None, start)[0][-1]
