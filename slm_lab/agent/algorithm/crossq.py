"""CrossQ. Bhatt et al. 2024, arXiv:1902.05605.

The idea: critics that bootstrap from themselves diverge; but target nets slow learning, since new information reaches
the targets only through a lagging copy. Batch normalization keeps critics stable without the copy, if it is done right.
The actions in the memory and those of the policy are distributed differently: statistics of one are wrong for the
other. So both go through the critics as one batch, normalized by the statistics of both.

    SAC (see `sac`), with this update of the critics:
        draw a batch (s, a, r, s', d), and a' ~ pi(s')
        [Q_i(s, a); Q_i(s', a')] = Q_i([s; s'], [a; a'])      one pass in train mode: statistics of both
        descend on loss(Q_i(s, a), r + gamma (1 - d) (min(Q1, Q2)(s', a') - alpha log pi(a'|s')))

The target is a constant to the gradient. For discrete actions [s; s'] is the batch, and the expectation over a' is
summed up exactly. The policy learns from critics in eval mode, normalized by running statistics.

The normalization layers are part of the critics' net spec: `LazyBatchRenorm1d` after each linear layer (`critic_arc` of
TorchArcNet). Renormalization (`net.normalization`) keeps the outputs of train and eval mode close. Without any
normalization there is no error, but little is learned.

Differs from the paper: the policy's net is normalized only where its own spec says so.
"""

from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.algorithm.base import Setting
from slm_lab.agent.algorithm.delayed import Batch
from slm_lab.agent.algorithm.sac import Rest, SoftActorCritic
from slm_lab.agent.net.critic import joint_pass
from slm_lab.functional.soft import expected_soft_value, soft_value
from slm_lab.functional.targets import lowest, taken_value
from slm_lab.lib.registry import register


@register("algorithm")
class CrossQ(SoftActorCritic):
    """A policy, two critics that need no targets, and a temperature."""

    has_target = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.critics.eval()

    def critic_values(self, batch: Batch, extras: Rest, alpha: Tensor) -> tuple[Tensor, ...]:
        """Q_i(s, a) [B] and V(s') [B] of one pass of all critics, in train mode."""
        if extras.next_noise is None:
            with torch.no_grad():
                policy: Any = self.policy(batch.next_obs)
            now, after = joint_pass(self.critics, batch.obs, batch.next_obs)
            next_value = expected_soft_value(lowest(after, extras.subset), policy.log_p, alpha)
            return *(taken_value(q, batch.action) for q in now), next_value.detach()
        next_action, log_prob = self.next_action(batch.next_obs, extras.next_noise)
        now, after = joint_pass(self.critics, batch.obs, batch.next_obs, batch.action, next_action)
        return *now, soft_value(lowest(after, extras.subset), log_prob, alpha).detach()
