"""Proximal Policy Optimization. Schulman et al. 2017, arXiv:1707.06347.

The idea: rollouts are expensive, so learn from each one several times. But its advantages hold only for the policy that
collected it, so the new policy must stay close to that one: clipping the ratio removes the reward for moving further.

    for each iteration:
        run pi_old in N envs for T steps; compute advantages by GAE
        for K epochs, for each minibatch of M <= N * T:
            rho = pi(a|s) / pi_old(a|s)
            ascend mean(min(rho A, clip(rho, 1 - eps, 1 + eps) A)) - c_V * loss(V, R) + c_H * mean(H)

Differs from the paper: advantages are standardized per minibatch; the change of the value can be clipped (clip_vloss);
an update can end early, once the policy has moved far enough (target_kl).
"""

from typing import Literal

import torch
from torch import Tensor

from slm_lab.agent.algorithm.actor_critic import ActorCritic, ActorCriticBaseSpec
from slm_lab.agent.algorithm.base import Schedule, Setting
from slm_lab.agent.algorithm.scales import AdvantageScale
from slm_lab.functional.losses import clipped_value_loss, ppo_clip_loss
from slm_lab.functional.normalize import standardize, symlog
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count, NonNegativeSchedule, Positive, Unit
from slm_lab.types import Sequences, Stats


class PPOSpec(ActorCriticBaseSpec):
    """Keys of PPO."""

    lam: Unit = 0.95
    """GAE lambda: 0 is one-step TD, 1 is Monte Carlo."""
    clip_eps_spec: NonNegativeSchedule
    """Trust region: the probability ratio is clipped to [1 - eps, 1 + eps]."""
    time_horizon: Count
    """T, steps per env of a rollout."""
    minibatch_size: Count = 64
    """M, transitions of a gradient step; the last minibatch of an epoch may be smaller. A recurrent net takes whole
    sequences, as many as fit into M and at least one."""
    training_epoch: Count
    """K, passes over a rollout."""
    target_kl: Positive | None = None
    """An update ends with the first epoch in which the mean of approx_kl, an estimate of KL(pi_old || pi), is above it:
    0.01 to 0.05 are usual. None: always K epochs."""
    clip_vloss: bool = False
    """Clip the change of the value by eps too, in the units in which values are compared: of the return, of its running
    scale (normalize_v_targets), or of its symlog."""
    symlog: bool = False
    """Values and their targets are compared by their symlog, `sign(x) ln(1 + |x|)`."""
    normalize_advantages: Literal["standardize", "percentile"] = "standardize"
    """standardize: by mean and standard deviation of each minibatch. percentile: divided by the running range between
    their 5 and 95 % quantiles, where that is more than 1."""


@register("algorithm")
class PPO(ActorCritic):
    """ActorCritic with the clipped surrogate, over minibatches."""

    Spec = PPOSpec
    stat_names = ("policy_loss", "value_loss", "entropy", "approx_kl")

    def __init__(self, setting: Setting) -> None:
        if setting.spec.algorithm.target_kl is not None:  # type: ignore[attr-defined]
            self.output_names = ("approx_kl",)
        super().__init__(setting)
        self.schedules["clip_eps"] = Schedule(self.spec.clip_eps_spec, setting.device)
        self.limit_minibatch()
        by_range = self.spec.normalize_advantages == "percentile"
        self.advantage_scale = self.parts["advantage_scale"] = AdvantageScale(setting.device) if by_range else None

    def loss(
        self,
        obs: Tensor | Sequences,
        action: Tensor,
        log_prob: Tensor,
        value: Tensor,
        advantage: Tensor,
        ret: Tensor,
        *coefs: Tensor,
    ) -> tuple[Tensor, Stats]:
        """The negative of what is ascended above, over a minibatch [M, ...]; coefs: as `coefs` gives them."""
        entropy_coef, clip_eps, *scale = coefs
        policy, new_value = self.net.policy_value(obs)
        log_ratio = policy.log_prob(action) - log_prob
        scaled = standardize(advantage) if self.advantage_scale is None else advantage
        policy_loss = ppo_clip_loss(log_ratio, scaled, clip_eps)
        entropy = policy.entropy().mean()
        values = (new_value, value, ret)
        if scale:
            values = (new_value / scale[0], value / scale[0], ret / scale[0])
        if self.spec.symlog:
            values = (symlog(values[0]), symlog(values[1]), symlog(values[2]))
        if self.spec.clip_vloss:
            value_loss = clipped_value_loss(*values, clip_eps)
        else:
            value_loss = self.value_loss(values[0], values[2])
        loss = policy_loss + self.spec.val_loss_coef * value_loss - entropy_coef * entropy
        with torch.no_grad():  # the k3 estimator of KL(pi_old || pi), Schulman 2020
            approx_kl = (log_ratio.exp() - 1 - log_ratio).mean()
        stats = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "approx_kl": approx_kl}
        return loss, stats

    def scaled(self, advantage: Tensor) -> Tensor:
        """Advantages in units of their range, where that is asked for."""
        if self.advantage_scale is None:
            return advantage
        steps = self.spec.training_epoch * -(-advantage.numel() // self.spec.minibatch_size)
        return self.advantage_scale.scale(advantage, steps)

    def learn(self, data: tuple[Tensor, ...]) -> None:
        """K epochs over the rollout in random minibatches, or fewer where target_kl says so."""
        size, epochs = self.rows(self.spec.minibatch_size), range(self.spec.training_epoch)
        if not self.output_names:
            self.learner.step_through(data, [self.shuffled(data) for _ in epochs], size, self.coefs())
            return
        for _ in epochs:
            (kl,) = self.learner.step_through(data, [self.shuffled(data)], size, self.coefs())
            if kl.mean() > self.spec.target_kl:
                break
