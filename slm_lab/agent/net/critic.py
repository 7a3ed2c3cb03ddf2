"""Critics of state and action, made of any Net; and the pair of them that SAC learns."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from slm_lab.agent.net.base import Net, real
from slm_lab.agent.net.init import activation, init_weights
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
        net_class: class of the net
        spec: as the critic's role sees it
        obs_shape: *O
        dim: of the action
    """

    def __init__(self, net_class: type[Net], spec: Any, obs_shape: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.between: nn.Sequential | None = None
        packed = isinstance(obs_shape, PackedShape) and not (obs_shape.flat and not getattr(spec, "parts", None))
        if len(obs_shape) == 1 and not packed:
            self.net = net_class(spec, (obs_shape[0] + dim,), {"q": 1})
            return
        self.net = net_class(spec, obs_shape, {})
        width = feature_size(self.net)
        self.between = nn.Sequential(nn.Linear(width + dim, width), activation(spec.hid_layers_activation))
        self.head = nn.Linear(width, 1)
        if spec.init_fn:
            for layer in (self.between, self.head):
                init_weights(layer, spec.init_fn, spec.hid_layers_activation)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """[B, *O], [B, dim] -> Q [B]"""
        if self.between is None:
            q = self.net(torch.cat([real(obs), action], -1))[0]
        else:
            q = full_precision(self.head, self.between(torch.cat([self.net.features(obs), action], -1)))
        return cast(Tensor, q.squeeze(-1))


class TwinCritic(nn.Module):
    """Two critics of the same data; the lower opinion errs less on the high side. Fujimoto et al. 2018, 1802.09477.

    Args:
        net_class: class of both
        spec: as the critic's role sees it
        obs_shape: *O
        action: discrete actions are all valued at once, a continuous one is an input
    """

    def __init__(
        self, net_class: type[Net], spec: Any, obs_shape: tuple[int, ...], action: Discrete | Continuous
    ) -> None:
        super().__init__()
        self.discrete = isinstance(action, Discrete)

        def critic() -> nn.Module:
            if isinstance(action, Discrete):
                return net_class(spec, obs_shape, {"q": action.n})
            return StateActionNet(net_class, spec, obs_shape, action.dim)

        self.q1, self.q2 = critic(), critic()

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """[B, *O], [B, *A] -> Q1, Q2 [B] of the actions"""
        if not self.discrete:
            return self.q1(obs, action), self.q2(obs, action)
        q1, q2 = self.all_actions(obs)
        return taken_value(q1, action), taken_value(q2, action)

    def all_actions(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """[B, *O] -> Q1, Q2 [B, n] of each discrete action"""
        return self.q1(obs)[0], self.q2(obs)[0]
