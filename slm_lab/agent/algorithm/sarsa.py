"""SARSA: learn the value of the actions one really takes. Rummery and Niranjan 1994; Sutton and Barto 2018, 6.4.

The idea: Q(s, a) says what an action is worth if one goes on as one does now, exploration included. It is learned from
five things, which give it its name: s, a, r, s', a'. It is on-policy: a' is what the policy of the moment did next, so
experience is used once and forgotten.

    repeat:
        play T steps in N envs, a = argmax_a Q(s, a), or with probability epsilon any action
        y = r + gamma * Q(s', a')        a' the action taken next; y = r where the episode terminated
        descend on loss(Q(s, a), y)

At the last of the T steps a' has not been taken yet: it is chosen there as the policy would choose it. The same where a
time limit cut an episode off. Differs from the book: batches in place of single steps, a net in place of a table.
"""

from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.algorithm.action_value import ActionValueSpec, Explorer, q_net, sample_loss
from slm_lab.agent.algorithm.base import Algorithm, Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.net.optim import Optim
from slm_lab.functional.targets import taken_value, td_target
from slm_lab.lib.registry import register
from slm_lab.lib.stateful import State
from slm_lab.spec.model import Count
from slm_lab.types import Act, Rollout, Sequences, Stats


class SARSASpec(ActionValueSpec):
    """Keys of SARSA."""

    training_frequency: Count
    """T, steps per env between two updates (or episodes, with OnPolicyReplay)."""


@register("algorithm")
class SARSA(Algorithm):
    """One Q net."""

    Spec = SARSASpec
    on_policy = True
    recurrent = True
    masks = True
    roles = ("critic",)
    moves_each_step = True
    stat_names = ("q_value",)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        spec: Any = setting.spec.net.for_role("critic")
        self.explorer = Explorer(self.spec, setting)
        self.net = q_net(setting, spec, self.explorer.n)
        self.nets = {"net": self.net}
        self.optims = {"net": Optim(self.net, spec, self.spec.lr)}
        self.schedules = {"explore_var": self.explorer.var}
        self.sample_loss = sample_loss(spec.loss_spec)
        self.recall = self.make_recall([self.net])
        loss = self.loss if self.recall is None else self.recall.over(self.loss)
        self.learner = Learner(
            self.nets, self.optims, [Stage(("net",), loss, self.stat_names)], compile=setting.compile
        )

    @property
    def opt_step(self) -> int:
        """Gradient steps taken."""
        return self.learner.steps

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N]"""
        q = self.net(obs)[0] if self.recall is None else self.recall.step(obs)[0]
        return Act(self.explorer.choose(q, explore))

    def loss(self, obs: Tensor | Sequences, action: Tensor, target: Tensor) -> tuple[Tensor, Stats]:
        """What is descended on above, the mean over a batch [B, ...]."""
        q = taken_value(self.net(obs)[0], action)
        return self.sample_loss(q, target).mean(), {"q_value": q.mean()}

    def targets(self, batch: Rollout) -> Tensor:
        """y, [T, N]: one pass of the net over all observations, before it changes."""
        t, n = batch.reward.shape
        if self.recall is None:
            q = self.net(torch.cat([batch.obs[1:].flatten(0, 1), batch.final_obs]))[0]
        else:
            q = self.recall.run(batch)[0][0][n:]
        last, cut = q[(t - 1) * n : t * n], q[t * n :]
        next_action = torch.cat([batch.action[1:].flatten(), self.explorer.choose(last)])
        next_value = taken_value(q[: t * n], next_action)
        if len(cut):
            next_value[batch.final_index] = taken_value(cut, self.explorer.choose(cut))
        return td_target(batch.reward, batch.terminated, next_value.view(t, n), self.spec.gamma)

    def update(self, batch: Rollout, frame: int) -> Stats:
        """One gradient step on the rollout."""
        self.learner.step(self.learner_data(batch, batch.action, self.targets(batch)), None, ())
        return self.learner.take_stats()

    def state_dict(self) -> State:
        """Net, optimizer, noise."""
        return super().state_dict() | {"noise": self.explorer.noise.state_dict(), "steps": self.learner.steps}

    def load_state_dict(self, state: State) -> None:
        """Become what `state_dict` said."""
        super().load_state_dict(state)
        self.explorer.noise.load_state_dict(state["noise"])
        self.learner.steps = int(state["steps"])
