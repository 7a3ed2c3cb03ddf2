"""Deep Q learning, from the plain net to the double one. Watkins 1989; Mnih et al. 2013; van Hasselt et al. 2016.

The idea: Q(s, a) says what an action is worth if one acts best from then on, whoever took it. So old experience is as
good as new: it is kept in a memory, and learned from many times.

    repeat:
        act, a = argmax_a Q(s, a) or, to explore, another; remember (s, a, r, s')
        once for each training_frequency frames, training_iter times:
            draw B transitions from the memory
            y = r + gamma * V(s')            y = r where the episode terminated
            training_batch_iter times: descend on the mean of w * loss(Q(s, a), y)

A step of N envs that passes several multiples of training_frequency frames is followed by as many trainings: the number
of gradient steps does not depend on num_envs.

They differ in what V(s') is:

    VanillaDQN   max_a Q(s', a)                              the net's own opinion: it runs after itself
    DQN          max_a Q_target(s', a)                       of a slow copy, the target net
    DoubleDQN    Q_target(s', argmax_a Q(s', a))             the net chooses, the copy judges: less optimism

The target net is equal to the net at the start. After the first training past each multiple of `update_frequency`
frames it is replaced, or moved by `polyak_coef`. The weights w are 1, unless a PrioritizedReplay has a `beta_spec`.

Papers: arXiv:1312.5602 (VanillaDQN), Mnih et al. 2015 in Nature (DQN), arXiv:1509.06461 (DoubleDQN), arXiv:1511.05952
(PrioritizedReplay), arXiv:1511.06581 (a net of type DuelingMLPNet makes a dueling one of each). Differs from them:
several envs, any optimizer and loss; rewards are not clipped.
"""

from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.action_value import ActionValueSpec, Explorer, q_net, sample_loss
from slm_lab.agent.algorithm.base import Algorithm, Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.memory.replay import Replay
from slm_lab.agent.net.optim import Optim
from slm_lab.agent.net.target import TargetNet
from slm_lab.functional.targets import double_value, max_value, taken_value, td_target
from slm_lab.lib.registry import lookup, register
from slm_lab.lib.stateful import State
from slm_lab.spec.model import Count, Natural
from slm_lab.types import Act, Stats


class DQNSpec(ActionValueSpec):
    """Keys of VanillaDQN, DQN and DoubleDQN."""

    training_frequency: Count
    """Frames between two trainings, whatever num_envs is."""
    training_iter: Count = 1
    """Batches drawn each time."""
    training_batch_iter: Count = 1
    """Gradient steps on each."""
    training_start_step: Natural | None = None
    """Frames to be passed before the first training. None: batch_size of the memory."""


@register("algorithm")
class VanillaDQN(Algorithm):
    """One Q net.

    Hooks for subclasses: `next_value`, and `has_target`.
    """

    Spec = DQNSpec
    on_policy = False
    stat_names = ("q_value",)
    roles = ("critic",)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        spec: Any = setting.spec.net.for_role("critic")
        self.explorer = Explorer(self.spec, setting)
        self.net = q_net(setting, self.explorer.n)
        self.target = TargetNet(self.net, spec) if self.has_target else None
        self.nets = {"net": self.net}
        self.optims = {"net": Optim(self.net, spec, self.spec.lr)}
        self.schedules = {"explore_var": self.explorer.var}
        self.sample_loss = sample_loss(spec.loss_spec)
        memory = setting.spec.memory
        self._errors = bool(getattr(lookup("memory", memory.name), "prioritized", False))
        stage = Stage(("net",), self.loss, self.stat_names, outputs=("error",) if self._errors else ())
        nets, frozen = dict(self.nets), {}
        if self.target is not None:
            nets["target"], frozen["target"] = self.target.net, self.target.params
        params = {"net": self.optims["net"].params}
        self.actor = Actor(self.nets, params, self.choose, compile=setting.compile)
        self.learner = Learner(nets, self.optims, [stage], frozen=frozen, compile=setting.compile)

    @property
    def training_start_step(self) -> int:
        """Frames to be passed before the first update."""
        stated = self.spec.training_start_step
        return int(getattr(self.setting.spec.memory, "batch_size", 0) if stated is None else stated)

    @property
    def opt_step(self) -> int:
        """Gradient steps taken."""
        return self.learner.steps

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N]"""
        if not explore:
            return Act(self.explorer.choose(self.net(obs)[0], explore=False))
        return self.actor(obs, self.explorer.draw(obs), self.explorer.var.tensor)

    def choose(self, obs: Tensor, noise: Tensor, var: Tensor) -> Act:
        """[N, *O], [N, ...], epsilon or tau -> actions [N]"""
        return Act(self.explorer.pick(self.net(obs)[0], noise, var))

    def next_value(self, next_obs: Tensor) -> Tensor:
        """V(s'), [B]: `max_a Q(s', a)`."""
        return max_value(self.net(next_obs)[0])

    def loss(
        self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor, weight: Tensor
    ) -> tuple[Tensor, Stats]:
        """What is descended on above, over a batch [B, ...]; `error` is y - Q(s, a), [B]."""
        q = taken_value(self.net(obs)[0], action)
        with torch.no_grad():
            target = td_target(reward, terminated, self.next_value(next_obs), self.spec.gamma)
        loss = (weight * self.sample_loss(q, target)).mean()
        return loss, {"q_value": q.mean(), "error": target - q}

    def update(self, batch: Replay, frame: int) -> Stats:
        """Draw batches from the memory and learn from them; then the target net follows."""
        for due in batch.due():
            for _ in range(self.spec.training_iter):
                self.learn(batch)
            if self.target is not None:
                self.target.follow_(self.optims["net"].params, due)
        return self.learner.take_stats()

    def learn(self, memory: Replay) -> None:
        """Gradient steps on one batch."""
        drawn = memory.sample()
        data = (drawn.obs, drawn.action, drawn.reward, drawn.next_obs, drawn.terminated, drawn.weight)
        for _ in range(self.spec.training_batch_iter):
            outputs = self.learner.step(data, None, ())
        if self._errors:
            memory.update_priority(drawn.index, outputs[0])

    def state_dict(self) -> State:
        """Nets, optimizer, noise."""
        own = {"noise": self.explorer.noise.state_dict(), "steps": self.learner.steps}
        return super().state_dict() | own | ({} if self.target is None else {"target": self.target.state_dict()})

    def load_state_dict(self, state: State) -> None:
        """Become what `state_dict` said."""
        super().load_state_dict(state)
        self.explorer.noise.load_state_dict(state["noise"])
        self.learner.steps = int(state["steps"])
        if self.target is not None:
            self.target.load_state_dict(state["target"])


@register("algorithm")
class DQN(VanillaDQN):
    """A target net chooses the next action and says what it is worth."""

    has_target = True

    def next_value(self, next_obs: Tensor) -> Tensor:
        """V(s'), [B]: `max_a Q_target(s', a)`."""
        assert self.target is not None
        return max_value(self.target.net(next_obs)[0])


@register("algorithm")
class DoubleDQN(VanillaDQN):
    """The net chooses the next action, the target net says what it is worth."""

    has_target = True

    def next_value(self, next_obs: Tensor) -> Tensor:
        """V(s'), [B]: `Q_target(s', argmax_a Q(s', a))`."""
        assert self.target is not None
        return double_value(self.net(next_obs)[0], self.target.net(next_obs)[0])
