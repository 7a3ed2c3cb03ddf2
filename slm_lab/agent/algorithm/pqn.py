"""PQN: Q learning on rollouts, without a target net and without a memory. Gallici et al. 2024, arXiv:2407.04811.

The idea: DQN needs a replay memory and a target net because learning from its own last guesses runs away. Many envs at
once make a batch as varied as one drawn from a memory, and LayerNorm keeps the net from running away. What remains is
Q learning, as simple as PPO and with one net.

    repeat:
        play T steps in N envs, a = argmax_a Q(s, a), or with probability epsilon any action
        V(s) = max_a Q(s, a) for all observations, before the net changes
        y_t = r_t + gamma * ((1 - lambda) * V(s_{t+1}) + lambda * y_{t+1})
            y = r where the episode terminated; r + gamma * V(s') where it was truncated, and at the last step
        for K epochs, for each minibatch of M <= N * T: descend on the mean of loss(Q(s, a), y)

These are the targets of Peng's Q(lambda): they run on through actions that were explored. lambda 0 is one-step Q
learning. The net should be normalized: `layer_norm` true.

Differs from the paper: any optimizer and loss (there RAdam); the observation is normalized only where the env's keys
say so.
"""

from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.action_value import ActionValueSpec, Explorer, q_net, sample_loss
from slm_lab.agent.algorithm.base import Algorithm, Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.net.optim import Optim
from slm_lab.functional.returns import lambda_returns
from slm_lab.functional.targets import max_value, taken_value
from slm_lab.lib.registry import register
from slm_lab.lib.stateful import State
from slm_lab.spec.model import Count, Unit
from slm_lab.types import Act, Rollout, Sequences, Stats


class PQNSpec(ActionValueSpec):
    """Keys of PQN."""

    lam: Unit = 0.65
    """lambda of the targets: 0 is one step, 1 bootstraps at the end of the rollout alone."""
    time_horizon: Count
    """T, steps per env of a rollout."""
    minibatch_size: Count
    """M, transitions of a gradient step; the rest of an epoch that does not fill one is a smaller step. A recurrent net
    takes whole sequences, as many as fit into M and at least one."""
    training_epoch: Count = 2
    """K, passes over a rollout."""

    @property
    def frequency(self) -> int:
        """T, steps per env of a rollout."""
        return int(self.time_horizon)


@register("algorithm")
class PQN(Algorithm):
    """One Q net."""

    Spec = PQNSpec
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
        params = {"net": self.optims["net"].params}
        self.actor = Actor(self.nets, params, self.choose, compile=setting.compile and self.recall is None)
        self.learner = Learner(
            self.nets, self.optims, [Stage(("net",), loss, self.stat_names)], compile=setting.compile
        )

    @property
    def opt_step(self) -> int:
        """Gradient steps taken."""
        return self.learner.steps

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N]"""
        if explore and self.recall is None:
            return self.actor(obs, self.explorer.draw(obs), self.explorer.var.tensor)
        q = self.net(obs)[0] if self.recall is None else self.recall.step(obs)[0]
        return Act(self.explorer.choose(q, explore))

    def choose(self, obs: Tensor, noise: Tensor, var: Tensor) -> Act:
        """[N, *O], [N, ...], epsilon or tau -> actions [N]"""
        return Act(self.explorer.pick(self.net(obs)[0], noise, var))

    def loss(self, obs: Tensor | Sequences, action: Tensor, target: Tensor) -> tuple[Tensor, Stats]:
        """What is descended on above, the mean over a minibatch [M, ...]."""
        q = taken_value(self.net(obs)[0], action)
        return self.sample_loss(q, target).mean(), {"q_value": q.mean()}

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

    def update(self, batch: Rollout, frame: int) -> Stats:
        """K epochs over the rollout in random minibatches."""
        data = self.learner_data(batch, batch.action, self.targets(batch))
        orders = [self.shuffled(data) for _ in range(self.spec.training_epoch)]
        self.learner.step_through(data, orders, self.rows(self.spec.minibatch_size), ())
        return self.learner.take_stats()

    def state_dict(self) -> State:
        """Net, optimizer, noise."""
        return super().state_dict() | {"noise": self.explorer.noise.state_dict(), "steps": self.learner.steps}

    def load_state_dict(self, state: State) -> None:
        """Become what `state_dict` said."""
        super().load_state_dict(state)
        self.explorer.noise.load_state_dict(state["noise"])
        self.learner.steps = int(state["steps"])
