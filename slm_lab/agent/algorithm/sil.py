"""Self-Imitation Learning (SIL). Oh et al. 2018, arXiv:1806.05635.

The idea: what once went better than expected should be done again. Beside its on-policy updates the agent replays its
own past and imitates those actions whose return R was above what the critic says the state is worth, V.

    repeat:
        one update of ActorCritic (SIL) or PPO (PPOSIL) on a rollout
        store (s, a, R) of the episodes that ended in it
        training_iter times: draw a batch of (s, a, R), and training_batch_iter times:
            ascend c * mean(log pi(a|s) (R - V)+) - c_V / 2 * mean(((R - V)+)^2)      (R - V)+ = max(R - V, 0)

R is the discounted return from the step to its episode's end, computed once, when the episode has ended; where a time
limit ended it, R bootstraps from the V of that moment. In a prioritized replay the priority is (R - V)+, as in the
paper.

Known limitation: it is made for sparse rewards that are hard to find. Where rewards are dense or the env is stochastic,
R is above V by luck about half of the time; the policy then imitates luck, and V is drawn towards the best return ever
seen. Small coefficients (c_V = 0.01) limit that.

Differs from the paper: replay is uniform unless sil_replay_name says otherwise, and without importance weights.
"""

from typing import Any, ClassVar

from torch import Tensor

from slm_lab.agent.algorithm.actor_critic import ActorCritic, ActorCriticSpec
from slm_lab.agent.algorithm.base import Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.algorithm.ppo import PPO, PPOSpec
from slm_lab.agent.memory.returns import ReturnReplay, WithReturnReplaySpec
from slm_lab.functional.losses import self_imitation_losses
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import register
from slm_lab.spec.model import AlgorithmSpec, Count, NonNegative
from slm_lab.types import Rollout, Stats


class SelfImitationSpec(AlgorithmSpec):
    """Keys that SIL and PPOSIL add."""

    sil_policy_loss_coef: NonNegative
    """c, weight of the imitation."""
    sil_val_loss_coef: NonNegative
    """c_V, weight of the value loss that goes with it."""
    training_iter: Count = 1
    """Batches drawn after each on-policy update."""
    training_batch_iter: Count = 1
    """Gradient steps on each of them."""


class SILSpec(ActorCriticSpec, SelfImitationSpec):
    """Keys of SIL."""


@register("algorithm")
class SIL(ActorCritic):
    """ActorCritic that also imitates its own best."""

    Spec: ClassVar[Any] = SILSpec
    recurrent = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        memory = setting.spec.memory
        if not isinstance(memory, WithReturnReplaySpec):
            raise SpecError([f"agent.memory.name: '{memory.name}' keeps no returns, {self.spec.name} needs them"])
        self.replay = ReturnReplay(memory, self.spec.gamma, setting.generator)
        stage = Stage(tuple(self.nets), self.sil_loss, ("sil_gain",), outputs=("gain",), label="sil_loss")
        self.sil_learner = Learner(self.nets, self.optims, [stage], compile=setting.compile)
        self.learners["sil_steps"], self.parts["replay"] = self.sil_learner, self.replay
        self.stat_names = (*self.stat_names, "sil_loss", "sil_gain")

    def sil_loss(self, obs: Tensor, action: Tensor, ret: Tensor) -> tuple[Tensor, Stats]:
        """The negative of what is ascended above, over a batch [B, ...]."""
        policy, value = self.net.policy_value(obs)
        policy_loss, value_loss = self_imitation_losses(policy.log_prob(action), value, ret)
        gain = (ret - value).detach().clamp(min=0)
        loss = self.spec.sil_policy_loss_coef * policy_loss + self.spec.sil_val_loss_coef * value_loss
        return loss, {"sil_gain": gain.mean(), "gain": gain}

    def update(self, batch: Rollout) -> Stats:
        """Learn from a rollout, then from the past."""
        stats = super().update(batch)
        final_value = self.net.value(batch.final_obs) if len(batch.final_obs) else batch.reward.new_zeros(0)
        self.replay.add(batch, final_value)
        return stats | self.imitate(batch.reward.device)

    def imitate(self, device: Any) -> Stats:
        """Learn from the past; nothing while no episode has ended yet."""
        if not len(self.replay):
            return {}
        for _ in range(self.spec.training_iter):
            past = self.replay.sample()
            data = [x.to(device) for x in (past.obs, past.action, past.ret)]
            for _ in range(self.spec.training_batch_iter):
                (gain,) = self.sil_learner.step(data, None, ())
            self.replay.update_priority(past.place, gain)
        stats = self.sil_learner.take_stats()
        return {k: stats[k] for k in ("sil_loss", "sil_gain")}


class PPOSILSpec(PPOSpec, SelfImitationSpec):
    """Keys of PPOSIL."""


@register("algorithm")
class PPOSIL(SIL, PPO):
    """PPO that also imitates its own best."""

    Spec: ClassVar[Any] = PPOSILSpec
    stat_names = PPO.stat_names
