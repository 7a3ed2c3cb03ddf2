"""Proximal Policy Optimization. Schulman et al. 2017, arXiv:1707.06347.

The idea: a rollout is dear, so learn from it several times; but only as long as the policy stays near the one that
played it, for its advantages are true of that one alone. The clipped ratio takes the gain out of going further.

    for each iteration:
        run pi_old in N envs for T steps; compute advantages by GAE
        for K epochs, for each minibatch of M <= N * T:
            rho = pi(a|s) / pi_old(a|s)
            ascend mean(min(rho A, clip(rho, 1 - eps, 1 + eps) A)) - c_V * loss(V, R) + c_H * mean(H)

Differs from the paper: advantages are standardized per minibatch; the change of the value can be clipped (clip_vloss).
"""

import torch
from torch import Tensor

from slm_lab.agent.algorithm.actor_critic import ActorCritic, ActorCriticBaseSpec
from slm_lab.agent.algorithm.base import Schedule, Setting
from slm_lab.functional.losses import clipped_value_loss, ppo_clip_loss
from slm_lab.functional.normalize import standardize
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count, NonNegativeSchedule, Unit
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
    """M, transitions of a gradient step; the rest of an epoch that does not fill one is a smaller step. A recurrent net
    takes whole sequences, as many as fit into M and at least one."""
    training_epoch: Count
    """K, passes over a rollout."""
    clip_vloss: bool = False
    """Clip the change of the value by eps too, in units of the return."""

    @property
    def frequency(self) -> int:
        """T, steps per env of a rollout."""
        return int(self.time_horizon)


@register("algorithm")
class PPO(ActorCritic):
    """ActorCritic with the clipped surrogate, over minibatches."""

    Spec = PPOSpec
    stat_names = ("policy_loss", "value_loss", "entropy", "approx_kl")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.schedules["clip_eps"] = Schedule(self.spec.clip_eps_spec, setting.device)

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
        """The negative of what is ascended above, over a minibatch [M, ...]; coefs: (entropy_coef, clip_eps)."""
        entropy_coef, clip_eps = coefs
        policy, new_value = self.net.policy_value(obs)
        log_ratio = policy.log_prob(action) - log_prob
        policy_loss = ppo_clip_loss(log_ratio, standardize(advantage), clip_eps)
        entropy = policy.entropy().mean()
        if self.spec.clip_vloss:
            value_loss = clipped_value_loss(new_value, value, ret, clip_eps)
        else:
            value_loss = self.value_loss(new_value, ret)
        loss = policy_loss + self.spec.val_loss_coef * value_loss - entropy_coef * entropy
        with torch.no_grad():  # the k3 estimator of KL(pi_old || pi), Schulman 2020
            approx_kl = (log_ratio.exp() - 1 - log_ratio).mean()
        stats = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "approx_kl": approx_kl}
        return loss, stats

    def learn(self, data: tuple[Tensor, ...]) -> None:
        """K epochs over the rollout in random minibatches."""
        coefs = (self.schedules["entropy_coef"].tensor, self.schedules["clip_eps"].tensor)
        rows = self.spec.minibatch_size
        if self.recall is not None:
            rows = max(1, rows // self.recall.seq_len)
        for _ in range(self.spec.training_epoch):
            order = torch.randperm(len(data[0]), generator=self.setting.generator).to(data[0].device)
            for index in order.split(rows):
                self.learner.step(data, index, coefs)
