"""XQC: well-conditioned critics. Palenicek et al. 2025, arXiv:2509.25174; also 2502.07523.

The idea: an optimizer needs few steps where the loss is well conditioned: its curvature is similar in all directions.
Three parts of a critic achieve that. Batch normalization after its linear layers, by statistics of (s, a) and (s', a')
together, as in CrossQ. Weights of fixed size: the output of a normalized layer does not depend on the length of its
weights' rows, but long rows learn slowly; so each row is scaled back to length 1 after each step, which keeps the
effective learning rate. And a categorical critic, whose cross entropy has gradients of bounded size whatever the scale
of the returns.

    SAC (see `sac`), with this update of the critics, which give K probabilities for returns z_1 ... z_K:
        draw a batch (s, a, r, s', d), and a' ~ pi(s')
        [p_i; .] = critic_i([s; s'], [a; a']),  [.; p'_i] = target_i([s; s'], [a; a'])     one pass each, in train mode
        m = projection of r + gamma (1 - d) (z - alpha log pi(a'|s')), by the p'_i of the target with the lower mean
        descend on the cross entropy of each p_i with m
        rows of each normalized linear layer: w = w / |w|
    and the policy, every policy_delay-th time, ascends the lower mean of the critics, by their running statistics.

Returns must fit between v_min and v_max: with `env.normalize_reward` most do. The normalization layers are part of the
critics' net spec, `LazyBatchRenorm1d` of TorchArcNet: with r_max 1 and d_max 0 it is plain batch normalization.
Normalized rewards are small: alpha, which begins at 1, would outweigh them for long, so the specs keep it low
(`log_alpha_max`).

Differs from the paper: rewards are divided by the running deviation of the return alone; the last layer, which nothing
normalizes, keeps its size. Continuous actions only.
"""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from slm_lab.agent.algorithm.base import Setting
from slm_lab.agent.algorithm.delayed import Batch
from slm_lab.agent.algorithm.learner import Learner
from slm_lab.agent.algorithm.sac import Rest, SoftActorCritic
from slm_lab.agent.algorithm.soft_spec import SoftActorCriticSpec, refuse_scalar_keys
from slm_lab.agent.net.critic import joint_pass
from slm_lab.agent.net.normalization import normalized_layers
from slm_lab.functional.distributional import categorical_loss, categorical_mean, categorical_projection, make_support
from slm_lab.functional.normalize import unit_rows_
from slm_lab.functional.soft import soft_value
from slm_lab.functional.targets import lowest, td_target
from slm_lab.lib.registry import register
from slm_lab.spec.basics import NUMBER, wrong
from slm_lab.spec.model import Count, Real
from slm_lab.types import Continuous


class XQCSpec(SoftActorCriticSpec):
    """Keys of XQC; those of SoftActorCritic for single values (`critic_subset`, `policy_q`, `symlog`) are refused."""

    policy_delay: Count = 3
    """Updates of the critics for one of policy and temperature."""
    target_delay: Count | None = 1
    """Updates of the critics for one move of their targets; None: policy_delay."""
    v_min: Real = -5.0
    """z_1, lowest return."""
    v_max: Real = 5.0
    """z_K, highest return."""
    atoms: Annotated[int, Field(ge=2), NUMBER] = 101
    """K, returns that have a probability."""
    weight_norm: bool = True
    """Whether the rows of weights that a normalization follows are kept at length 1."""

    @model_validator(mode="after")
    def _support_has_a_width(self) -> Self:
        refuse_scalar_keys(self)
        if self.v_min >= self.v_max:
            raise wrong("v_max", self.v_max, "must be greater than v_min")
        return self


@register("algorithm")
class XQC(SoftActorCritic):
    """A policy, normalized categorical critics with their targets, and a temperature."""

    Spec = XQCSpec
    masks = False
    spaces: ClassVar[tuple[type, ...]] = (Continuous,)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert self.target is not None
        self._rows = [layer.weight for layer in normalized_layers(self.critics)] if self.spec.weight_norm else []
        self._project_()
        self.target.params.flat.copy_(self.optims["critic_net"].params.flat)
        for net in (self.critics, self.target.net):
            net.eval()

    @property
    def critic_outputs(self) -> int:
        """K"""
        return int(self.spec.atoms)

    def support(self, device: torch.device) -> Tensor:
        """[K], made where it is used: what is compiled reads no tensor but its arguments"""
        return make_support(self.spec.v_min, self.spec.v_max, self.spec.atoms, device)

    def q_value(self, critics: Any, obs: Tensor, action: Tensor, subset: Tensor | None) -> Tensor:
        """The lowest mean, [B]."""
        support = self.support(obs.device)
        return lowest([categorical_mean(logits, support) for logits in critics(obs, action)])

    def compare(self, batch: Batch, extras: Rest, alpha: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """See SoftActorCritic; the target is projected onto the support."""
        assert self.target is not None
        support = self.support(batch.obs.device)
        next_action, log_prob = self.next_action(batch.next_obs, extras.next_noise)
        both = batch.obs, batch.next_obs, batch.action, next_action
        now, _ = joint_pass(self.critics, *both)
        _, after = joint_pass(self.target.net, *both)
        logits = torch.stack([x.detach() for x in after], 1)
        lower = (-categorical_mean(logits, support)).argmax(1)
        logits = logits.gather(1, lower.view(-1, 1, 1).expand(-1, 1, logits.shape[-1])).squeeze(1)
        value = soft_value(support, log_prob.unsqueeze(-1), alpha)
        value = td_target(batch.reward.unsqueeze(-1), batch.terminated.unsqueeze(-1), value, self.spec.gamma)
        target = categorical_projection(value, logits.softmax(-1), support)
        q = lowest([categorical_mean(x, support) for x in now]).detach()
        return [categorical_loss(x, target) for x in now], q, q - (target * support).sum(-1)

    def after_step(self, learner: Learner) -> None:
        """Clamp the temperature and normalize the rows."""
        super().after_step(learner)
        self._project_()

    @torch.no_grad()
    def _project_(self) -> None:
        for weight in self._rows:
            unit_rows_(weight)
