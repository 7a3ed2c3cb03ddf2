"""SARSA: learn the value of the actions that are really taken. Rummery and Niranjan 1994; Sutton and Barto 2018, 6.4.

The idea: Q(s, a) is the value of an action under the present policy, exploration included. It is learned from the five
things that give it its name: s, a, r, s', a'. It is on-policy: a' is what the present policy did next, so each
experience is used once and dropped.

    repeat:
        play T steps in N envs, a = argmax_a Q(s, a), or with probability epsilon any action
        y = r + gamma * Q(s', a')        a' the action taken next; y = r where the episode terminated
        descend on loss(Q(s, a), y)

At the last of the T steps a' has not been taken yet: it is chosen there as the policy would choose it. The same where a
time limit cut an episode off. Differs from the book: batches in place of single steps, a net in place of a table.
"""

import torch
from torch import Tensor

from slm_lab.agent.algorithm.action_value import ActionValueSpec, RolloutQ
from slm_lab.functional.targets import taken_value, td_target
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count
from slm_lab.types import Rollout, Stats


class SARSASpec(ActionValueSpec):
    """Keys of SARSA."""

    training_frequency: Count
    """T, steps per env between two updates (or episodes, with OnPolicyReplay)."""


@register("algorithm")
class SARSA(RolloutQ):
    """One Q net."""

    Spec = SARSASpec

    def targets(self, rollout: Rollout) -> Tensor:
        """y, [T, N]: one pass of the net over all observations, before it changes."""
        t, n = rollout.reward.shape
        if self.recall is None:
            q = self.net(torch.cat([rollout.obs[1:].flatten(0, 1), rollout.final_obs]))[0]
        else:
            q = self.recall.run(rollout)[0][0][n:]
        last, cut = q[(t - 1) * n : t * n], q[t * n :]
        next_action = torch.cat([rollout.action[1:].flatten(), self.explorer.choose(last)])
        next_value = taken_value(q[: t * n], next_action)
        if len(cut):
            next_value[rollout.final_index] = taken_value(cut, self.explorer.choose(cut))
        return td_target(rollout.reward, rollout.terminated, next_value.view(t, n), self.spec.gamma)

    def update(self, batch: Rollout) -> Stats:
        """One gradient step on the rollout."""
        self.learner.step(self.learner_data(batch, batch.action, self.targets(batch)), None, ())
        return self.learner.take_stats()
