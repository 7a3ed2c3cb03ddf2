"""PQN: Q learning on rollouts, without a target net and without a memory. Gallici et al. 2024, arXiv:2407.04811.

The idea: DQN needs a replay memory and a target net because bootstrapping from its own latest estimates diverges. Many
envs at once make a batch as varied as one drawn from a memory, and LayerNorm keeps the net from diverging. What remains
is Q learning, as simple as PPO and with one net.

    repeat:
        play T steps in N envs, a = argmax_a Q(s, a), or with probability epsilon any action
        V(s) = max_a Q(s, a) for all observations, before the net changes
        y_t = r_t + gamma * ((1 - lambda) * V(s_{t+1}) + lambda * y_{t+1})
            y = r where the episode terminated; r + gamma * V(s') where it was truncated, and at the last step
        for K epochs, for each minibatch of M <= N * T: descend on the mean of loss(Q(s, a), y)

These are the targets of Peng's Q(lambda): exploratory actions do not cut them. lambda 0 is one-step Q learning. The net
should be normalized: `layer_norm` true.

Differs from the paper: any optimizer and loss (there RAdam); the observation is normalized only where the env's keys
say so.
"""

import torch
from torch import Tensor

from slm_lab.agent.algorithm.action_value import ActionValueSpec, RolloutQ
from slm_lab.agent.algorithm.base import Setting
from slm_lab.functional.returns import lambda_returns
from slm_lab.functional.targets import max_value
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count, Unit
from slm_lab.types import Rollout, Stats


class PQNSpec(ActionValueSpec):
    """Keys of PQN."""

    lam: Unit = 0.65
    """lambda of the targets: 0 is one step, 1 bootstraps only at the end of the rollout."""
    time_horizon: Count
    """T, steps per env of a rollout."""
    minibatch_size: Count
    """M, transitions of a gradient step; the last minibatch of an epoch may be smaller. A recurrent net takes whole
    sequences, as many as fit into M and at least one."""
    training_epoch: Count = 2
    """K, passes over a rollout."""


@register("algorithm")
class PQN(RolloutQ):
    """One Q net."""

    Spec = PQNSpec

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.limit_minibatch()

    def targets(self, rollout: Rollout) -> Tensor:
        """y, [T, N]: one pass of the net over all observations, before it changes."""
        t, n = rollout.reward.shape
        if self.recall is None:
            value = max_value(self.net(torch.cat([rollout.obs.flatten(0, 1), rollout.final_obs]))[0])
        else:
            value = max_value(self.recall.run(rollout)[0][0])
        final_value = value.new_zeros(t * n)
        final_value[rollout.final_index] = value[(t + 1) * n :]
        ends = (rollout.terminated, rollout.truncated)
        value, final_value = value[: (t + 1) * n].view(t + 1, n), final_value.view(t, n)
        return lambda_returns(rollout.reward, *ends, value, final_value, self.spec.gamma, self.spec.lam)

    def update(self, batch: Rollout) -> Stats:
        """K epochs over the rollout in random minibatches."""
        data = self.learner_data(batch, batch.action, self.targets(batch))
        orders = [self.shuffled(data) for _ in range(self.spec.training_epoch)]
        self.learner.step_through(data, orders, self.rows(self.spec.minibatch_size), ())
        return self.learner.take_stats()
