"""Critics of state and action, made of any Net; and the ensemble of them that SAC and its relatives learn."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from slm_lab.agent.net.base import Net, real
from slm_lab.agent.net.init import activation, init_output, init_weights
from slm_lab.agent.net.precision import full_precision
from slm_lab.functional.targets import taken_value
from slm_lab.types import Continuous, Discrete, PackedShape


def feature_size(net: Net) -> int:
    """F, width of `net.features`; found by a pass of zeros."""
    packed = isinstance(net.obs_shape, PackedShape) and net.obs_shape.dtype == "uint8"
    with torch.no_grad():
        kind = torch.uint8 if packed else None
        return int(net.features(torch.zeros((1, *net.obs_shape), dtype=kind)).shape[-1])


class StateActionNet(nn.Module):
    """Q(s, a) of a continuous action.

    A vector observation and the action enter the net together. Of any other observation the net makes features first;
    these and the action go through one more hidden layer, as wide as the features: without it the best action could not
    depend on the state.

    Args:
        spec: as the critic's role sees it
        obs_shape: *O
        dim: of the action
        outputs: K, numbers for each action, which tell a distribution; None: one value
    """

    def __init__(
        self, net_class: type[Net], spec: Any, obs_shape: tuple[int, ...], dim: int, outputs: int | None = None
    ) -> None:
        super().__init__()
        self._single, width = outputs is None, outputs or 1
        self._normalize = getattr(spec, "normalize", True)
        self.between: nn.Sequential | None = None
        packed = isinstance(obs_shape, PackedShape) and not (obs_shape.flat and not getattr(spec, "parts", None))
        if len(obs_shape) == 1 and not packed:
            self.net = net_class(spec, (obs_shape[0] + dim,), {"q": width})
            return
        self.net = net_class(spec, obs_shape, {})
        size = feature_size(self.net)
        self.between = nn.Sequential(nn.Linear(size + dim, size), activation(spec.hid_layers_activation))
        self.head = nn.Linear(size, width)
        if spec.init_fn:
            for layer in (self.between, self.head):
                init_weights(layer, spec.init_fn, spec.hid_layers_activation)
        init_output(self.head, spec.init_std)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """[B, *O], [B, dim] -> Q [B], or [B, K]"""
        if self.between is None:
            q = self.net(torch.cat([real(obs, self._normalize), action], -1))[0]
        else:
            q = full_precision(self._output, self.between(torch.cat([self.net.features(obs), action], -1)))
        return cast(Tensor, q.squeeze(-1) if self._single else q)

    def _output(self, features: Tensor) -> Tensor:
        q: Tensor = self.head(features)
        return q if self.net.out is None else self.net.out(q)


class Critics(nn.Module):
    """Critics of the same data, `q1`, `q2`, ...; the lowest prediction overestimates less.

    Fujimoto et al. 2018, arXiv:1802.09477.

    Args:
        spec: as the critic's role sees it
        obs_shape: *O
        action: discrete actions are all valued at once, a continuous one is an input
        number: of critics
        outputs: K, numbers for each continuous action; None: one value
    """

    def __init__(
        self,
        net_class: type[Net],
        spec: Any,
        obs_shape: tuple[int, ...],
        action: Discrete | Continuous,
        number: int = 2,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.discrete = isinstance(action, Discrete)
        self._names = [f"q{i + 1}" for i in range(number)]
        for name in self._names:
            if isinstance(action, Discrete):
                self.add_module(name, net_class(spec, obs_shape, {"q": action.n}))
            else:
                self.add_module(name, StateActionNet(net_class, spec, obs_shape, action.dim, outputs))

    @property
    def members(self) -> list[nn.Module]:
        """The critics."""
        return [cast(nn.Module, getattr(self, name)) for name in self._names]

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        """[B, *O], [B, *A] -> Q [B] of the actions, by each critic; or [B, K]"""
        if not self.discrete:
            return tuple(q(obs, action) for q in self.members)
        return tuple(taken_value(q, action) for q in self.all_actions(obs))

    def all_actions(self, obs: Tensor) -> tuple[Tensor, ...]:
        """[B, *O] -> Q [B, n] of each discrete action, by each critic"""
        return tuple(q(obs)[0] for q in self.members)


def joint_pass(
    critics: Any, obs: Tensor, next_obs: Tensor, action: Tensor | None = None, next_action: Tensor | None = None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Present and next state in one pass, in train mode: batch normalization takes both as one batch.

    Args:
        critics: Critics, in eval mode otherwise
        obs: [B, *O]
        next_obs: [B, *O]
        action: [B, dim]; None: discrete actions, all of them are valued
        next_action: [B, dim]

    Returns:
        what each critic says of the present, and of the next state
    """
    both = torch.cat([obs, next_obs])
    critics.train()
    try:
        if action is None or next_action is None:
            outs = critics.all_actions(both)
        else:
            outs = critics(both, torch.cat([action, next_action]))
    finally:
        critics.eval()
    pairs = [out.chunk(2) for out in outs]
    return tuple(now for now, _ in pairs), tuple(after for _, after in pairs)
