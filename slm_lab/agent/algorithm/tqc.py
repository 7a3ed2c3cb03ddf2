"""Truncated Quantile Critics (TQC). Kuznetsov et al. 2020, arXiv:2005.04269.

The idea: critics overestimate, most of all where returns vary. The lower of two means is a coarse remedy: it can't be
set to the right strength. TQC's critics predict quantiles of the return instead. All of them are pooled and sorted, and
the highest are left out of the target; how many decides how pessimistic it is.

    SAC (see `sac`), with N critics of M quantiles each, and this update of them:
        draw a batch (s, a, r, s', d), and a' ~ pi(s')
        z_1 <= ... <= z_NM    the quantiles of all target critics at (s', a'), sorted
        y_i = r + gamma (1 - d) (z_i - alpha log pi(a'|s'))      for all but the drop_quantiles * N highest
        descend on the quantile Huber loss of each critic against all y_i
    and the policy ascends the mean of all quantiles of all critics, none left out.

Continuous actions only. The loss is the mean over a critic's quantiles and the sum over critics.
"""

from typing import Any, ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor

from slm_lab.agent.algorithm.delayed import Batch
from slm_lab.agent.algorithm.sac import Rest, SoftActorCritic
from slm_lab.agent.algorithm.soft_spec import SoftActorCriticSpec, refuse_scalar_keys
from slm_lab.functional.distributional import quantile_fractions, quantile_huber_loss, truncated_quantiles
from slm_lab.functional.soft import soft_value
from slm_lab.functional.targets import td_target
from slm_lab.lib.registry import register
from slm_lab.spec.basics import wrong
from slm_lab.spec.model import Count, Natural
from slm_lab.types import Continuous


class TQCSpec(SoftActorCriticSpec):
    """Keys of TQC; those of SoftActorCritic for single values (`critic_subset`, `policy_q`, `symlog`) are refused."""

    num_critics: Count = 5
    """N, critics trained on the same targets from different initializations."""
    quantiles: Count = 25
    """M, quantiles of each critic."""
    drop_quantiles: Natural = 2
    """Quantiles left out of the target for each critic: of all N * M the drop_quantiles * N highest."""

    @model_validator(mode="after")
    def _something_is_kept(self) -> Self:
        refuse_scalar_keys(self)
        if self.drop_quantiles >= self.quantiles:
            raise wrong("drop_quantiles", self.drop_quantiles, "must be less than quantiles")
        return self


@register("algorithm")
class TQC(SoftActorCritic):
    """A policy, critics of quantiles with their targets, and a temperature."""

    Spec = TQCSpec
    masks = False
    spaces: ClassVar[tuple[type, ...]] = (Continuous,)

    @property
    def critic_outputs(self) -> int:
        """M"""
        return int(self.spec.quantiles)

    def q_value(self, critics: Any, obs: Tensor, action: Tensor, subset: Tensor | None) -> Tensor:
        """The mean of all quantiles, [B]."""
        return torch.stack(critics(obs, action), 1).mean((1, 2))

    def compare(self, batch: Batch, extras: Rest, alpha: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """See SoftActorCritic; the target is truncated."""
        assert self.target is not None
        next_action, log_prob = self.next_action(batch.next_obs, extras.next_noise)
        with torch.no_grad():
            pooled = torch.stack(self.target.net(batch.next_obs, next_action), 1)
        kept = truncated_quantiles(pooled, self.spec.drop_quantiles * self.spec.num_critics)
        value = soft_value(kept, log_prob.unsqueeze(-1), alpha)
        target = td_target(batch.reward.unsqueeze(-1), batch.terminated.unsqueeze(-1), value, self.spec.gamma)
        critics = self.critics(batch.obs, batch.action)
        fraction = quantile_fractions(self.spec.quantiles, batch.obs.device)
        losses = [quantile_huber_loss(z, target, fraction) / self.spec.quantiles for z in critics]
        q = torch.stack(critics, 1).mean((1, 2)).detach()
        return losses, q, q - target.mean(-1)
