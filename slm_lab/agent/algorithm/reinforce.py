"""REINFORCE: Monte Carlo policy gradient. Williams 1992; Sutton and Barto 2018, section 13.3.

The idea: play, and make every action more likely in proportion to the return that followed it.

    repeat:
        gather steps with the policy pi
        G_t = r_t + gamma * G_{t+1}, within each episode
        A_t = G_t, standardized over the batch (a baseline and a scale in one)
        ascend mean( log pi(a_t | s_t) * A_t ) + c_H * mean( H(pi(. | s_t)) )

Differs from the paper: batches of steps in place of single episodes, so an episode may be cut off by a batch's end.
There is no value function to bootstrap from, so the rest counts as 0, as after a time limit: batches should be long
compared with episodes. Returns are standardized.
"""

from typing import Any, Literal

from torch import Tensor

from slm_lab.agent.algorithm.base import Algorithm, Schedule, Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.algorithm.noise import NoiseStream
from slm_lab.agent.net.actor_critic import Policy
from slm_lab.agent.net.optim import Optim
from slm_lab.functional.distributions import distribution_for
from slm_lab.functional.losses import policy_gradient_loss
from slm_lab.functional.normalize import standardize
from slm_lab.functional.returns import discounted_returns
from slm_lab.lib.registry import lookup, register
from slm_lab.spec.model import AlgorithmSpec, Count, NonNegative, NonNegativeSchedule
from slm_lab.types import Act, Rollout, Sequences, Stats


class ReinforceSpec(AlgorithmSpec):
    """Keys of Reinforce."""

    action_policy: Literal["default"] = "default"
    """Actions are drawn from the distribution."""
    training_frequency: Count
    """Steps per env between two updates (OnPolicyBatchReplay)."""
    center_return: bool = True
    """Subtract the batch's mean from the returns, before they are divided by its standard deviation."""
    policy_loss_coef: NonNegative = 1.0
    """Weight of the policy gradient."""
    entropy_coef_spec: NonNegativeSchedule | None = None
    """c_H, weight of the entropy bonus; none by default."""


@register("algorithm")
class Reinforce(Algorithm):
    """A policy net alone."""

    Spec = ReinforceSpec
    on_policy = True
    recurrent = True
    masks = True
    roles = ("actor",)
    stat_names = ("entropy",)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        spec, info = setting.spec, setting.info
        dist = distribution_for(self.spec.action_pdtype, info.action)
        net_spec: Any = spec.net.for_role("actor")
        net_class = lookup("net", spec.net.type)
        self.policy = Policy(net_class, net_spec, info.obs_shape, dist, info.action).to(setting.device)
        self.noise = NoiseStream(dist, info.action, info.num_envs, setting.generator)
        self.nets = {"net": self.policy}
        self.optims = {"net": Optim(self.policy, net_spec, self.spec.lr)}
        self.schedules = {"entropy_coef": Schedule(self.spec.entropy_coef_spec, setting.device)}
        self.recall = self.make_recall([self.policy.net])
        loss = self.loss if self.recall is None else self.recall.over(self.loss)
        stage = Stage(("net",), loss, self.stat_names)
        self.learner = Learner(self.nets, self.optims, [stage], compile=setting.compile)
        self.learners, self.parts = {"steps": self.learner}, {"noise": self.noise}

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N, *A]"""
        recall = self.recall
        dist = self.policy(obs) if recall is None else self.policy.distribution(recall.step(obs)[0])
        return Act(dist.sample(self.noise.next(len(obs)).to(obs.device)) if explore else dist.mode())

    def loss(
        self, obs: Tensor | Sequences, action: Tensor, advantage: Tensor, entropy_coef: Tensor
    ) -> tuple[Tensor, Stats]:
        """`-c_pi * mean(log pi * A) - c_H * mean H` over a batch [B, ...]."""
        dist = self.policy(obs)
        entropy = dist.entropy().mean()
        policy_loss = policy_gradient_loss(dist.log_prob(action), advantage)
        return self.spec.policy_loss_coef * policy_loss - entropy_coef * entropy, {"entropy": entropy}

    def update(self, batch: Rollout) -> Stats:
        """One gradient step on the rollout."""
        zero = batch.reward.new_zeros(())
        ret = discounted_returns(
            batch.reward, batch.terminated, batch.truncated, zero, zero.expand_as(batch.reward), self.spec.gamma
        )
        advantage = standardize(ret, center=self.spec.center_return)
        if self.recall is not None:
            self.recall.run(batch)
        data = self.learner_data(batch, batch.action, advantage)
        self.learner.step(data, None, (self.schedules["entropy_coef"].tensor,))
        return self.learner.take_stats()
