"""Policy and value function as one module: two nets, or one body with two heads."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from slm_lab.agent.net.base import Net
from slm_lab.agent.net.init import init_output
from slm_lab.functional.continuous_distributions import Normal
from slm_lab.functional.distributions import Distribution
from slm_lab.types import ActionSpace, Continuous, Sequences


class Policy(nn.Module):
    """obs -> distribution over actions; without a value function.

    Args:
        spec: as the actor's role sees it
        obs_shape: *O
        others: further heads, after `policy`
    """

    def __init__(
        self,
        net_class: Callable[..., Net],
        spec: Any,
        obs_shape: tuple[int, ...],
        dist: type[Distribution],
        action: ActionSpace,
        others: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        width = dist.head_size(action)
        # of other distributions the key is not read
        free = isinstance(action, Continuous) and issubclass(dist, Normal) and spec.log_std_init is not None
        if free:
            width //= 2
        self.dist: Any = dist
        self.net = net_class(spec, obs_shape, {"policy": width, **(others or {})})
        self.log_std = nn.Parameter(torch.full((width,), float(spec.log_std_init))) if free else None
        """Free, in place of the head's, and not bounded: a clamp would let no gradient bring it back."""

    def distribution(self, raw: Tensor) -> Distribution:
        """From the policy head's output [B, K], or [B, dim] where the log standard deviation is free."""
        if self.log_std is None:
            return cast(Distribution, self.dist.from_head(raw))
        return cast(Distribution, self.dist(raw, self.log_std.expand_as(raw)))

    def forward(self, obs: Tensor | Sequences) -> Distribution:
        """[B, *O] -> distribution over B actions"""
        return self.distribution(self.net(obs)[0])


class DeterministicPolicy(nn.Module):
    """obs -> one action in [-1, 1].

    Args:
        net: has a head `policy` of the action's width
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *O] -> [B, dim]"""
        return cast(Tensor, self.net(obs)[0].tanh())


class ActorCriticNet(nn.Module):
    """`actor`: the policy; `critic`: the value net, or None where the actor's body is shared.

    Args:
        net_class: class of both nets
        spec: NetSpec with its role keys
        obs_shape: *O
    """

    def __init__(
        self, net_class: type[Net], spec: Any, obs_shape: tuple[int, ...], dist: type[Distribution], action: ActionSpace
    ) -> None:
        super().__init__()
        actor_spec, critic_spec = spec.for_role("actor"), spec.for_role("critic")
        heads = {"value": 1} if spec.shared else {}
        self.actor = Policy(net_class, actor_spec, obs_shape, dist, action, heads)
        self.critic = None if spec.shared else net_class(critic_spec, obs_shape, {"value": 1})
        if spec.shared:
            init_output(self.actor.net.heads["value"], critic_spec.init_std)

    def policy(self, obs: Tensor) -> Distribution:
        """[B, *O] -> distribution over B actions"""
        return cast(Distribution, self.actor(obs))

    def value(self, obs: Tensor) -> Tensor:
        """[B, *O] -> V [B]"""
        out = self.actor.net(obs)[1] if self.critic is None else self.critic(obs)[0]
        return cast(Tensor, out.squeeze(-1))

    @property
    def bodies(self) -> list[Net]:
        """The net of the actor, and that of the critic where it has one of its own."""
        return [net for net in (self.actor.net, self.critic) if net is not None]

    def policy_value(self, obs: Tensor | Sequences) -> tuple[Distribution, Tensor]:
        """[B, *O] -> distribution, V [B]; one pass where the body is shared.

        The state of Sequences is the actor's and, where it has a net of its own, the critic's, side by side.
        """
        bodies = self.bodies
        if isinstance(obs, Tensor):
            return self.read([net(obs) for net in bodies])
        states = obs.state.split([net.state_size for net in bodies], -1)
        return self.read([net(obs._replace(state=state)) for net, state in zip(bodies, states, strict=True)])

    def read(self, outs: list[tuple[Tensor, ...]]) -> tuple[Distribution, Tensor]:
        """What the heads of `bodies` gave, [B, width] each -> distribution, V [B]"""
        raw, value = outs[0] if self.critic is None else (outs[0][0], outs[1][0])
        return self.actor.distribution(raw), value.squeeze(-1)
