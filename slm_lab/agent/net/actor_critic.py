"""Policy and value function as one module: two nets, or one body with two heads."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from slm_lab.agent.net.base import Net
from slm_lab.functional.continuous_distributions import Normal, TanhNormal
from slm_lab.functional.distributions import Distribution
from slm_lab.types import ActionSpace, Continuous, Sequences


def free_log_std(spec: Any, dist: type[Distribution], action: ActionSpace) -> float | None:
    """Where a free log standard deviation starts; None where the distribution has none: then the key is not read."""
    fits = isinstance(action, Continuous) and issubclass(dist, Normal | TanhNormal)
    return cast("float | None", spec.log_std_init) if fits else None


class Policy(nn.Module):
    """obs -> distribution over actions; without a value function.

    Args:
        net: has a head `policy` first
        dist: distribution class
        action: action space
        log_std_init: start of a free log standard deviation in place of the head's, see `free_log_std`
    """

    def __init__(self, net: Net, dist: type[Distribution], action: ActionSpace, log_std_init: float | None) -> None:
        super().__init__()
        self.net = net
        self.dist = dist
        self.log_std = None
        if log_std_init is not None:
            assert isinstance(action, Continuous)
            self.log_std = nn.Parameter(torch.full((action.dim,), float(log_std_init)))

    def distribution(self, raw: Tensor) -> Distribution:
        """From the policy head's output [B, K], or [B, dim] where the log standard deviation is free."""
        if self.log_std is not None:
            raw = torch.cat([raw, self.log_std.expand_as(raw)], -1)
        return self.dist.from_head(raw)

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


def policy_head_size(dist: type[Distribution], action: ActionSpace, log_std_init: float | None) -> int:
    """Width of the policy head; the free log standard deviation is no part of it."""
    if log_std_init is not None:
        assert isinstance(action, Continuous)
        return action.dim
    return dist.head_size(action)


class ActorCriticNet(nn.Module):
    """`actor`: the policy; `critic`: the value net, or None where the actor's body is shared.

    Args:
        net_class: class of both nets
        spec: NetSpec with its role keys
        obs_shape: *O
        dist: distribution class of the policy
        action: action space
    """

    def __init__(
        self, net_class: type[Net], spec: Any, obs_shape: tuple[int, ...], dist: type[Distribution], action: ActionSpace
    ) -> None:
        super().__init__()
        actor_spec, critic_spec = spec.for_role("actor"), spec.for_role("critic")
        log_std_init = free_log_std(actor_spec, dist, action)
        width = policy_head_size(dist, action, log_std_init)
        heads = {"policy": width, "value": 1} if spec.shared else {"policy": width}
        self.actor = Policy(net_class(actor_spec, obs_shape, heads), dist, action, log_std_init)
        self.critic = None if spec.shared else net_class(critic_spec, obs_shape, {"value": 1})
        if spec.shared and critic_spec.init_std is not None:
            value_head = cast(nn.Linear, self.actor.net.heads["value"])
            nn.init.orthogonal_(value_head.weight, gain=critic_spec.init_std)

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
