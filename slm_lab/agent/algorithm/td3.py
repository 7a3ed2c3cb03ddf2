"""Twin Delayed DDPG (TD3). Fujimoto et al. 2018, arXiv:1802.09477; DDPG: Lillicrap et al. 2016, arXiv:1509.02971.

The idea: where actions are continuous, the best one is not searched for but learned: a policy a = mu(s) climbs the
slope of Q. It also climbs whatever the critic overestimates, so TD3 adds three things to DDPG: two critics, of which
targets take the lower; a policy that learns more slowly than the critics; and targets that are smoothed over nearby
actions, so that a narrow peak of Q is worth little.

    act randomly for training_start_step frames, then a = mu(s) + N(0, sigma), clipped to [-1, 1]; store transitions
    once for each training_frequency frames, training_iter times:
        draw a batch (s, a, r, s', d)
        a' = clip(mu_target(s') + clip(N(0, target_noise), -target_noise_clip, target_noise_clip), -1, 1)
        descend on loss(Q_i(s, a), r + gamma (1 - d) min_i Q_i_target(s', a')) for all critics
        every policy_delay-th time: ascend Q_1(s, mu(s)) in the policy
        every target_delay-th time: move the targets of policy and critics

sigma is `explore_var_spec`, in units of half the range of an action. The policy ends in a tanh.

DDPG is TD3 with `num_critics` 1, `policy_delay` 1 and `target_noise` 0 (with Gaussian noise, not the paper's
Ornstein-Uhlenbeck process).

Differs from the paper: several envs; n-step targets on request (see `dqn`).
"""

from typing import Any, Literal

import torch
from torch import Tensor

from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.base import Algorithm, Schedule, Setting
from slm_lab.agent.algorithm.delayed import Batch, DelayedSpec, Turns, start_step
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.algorithm.noise import NoiseStream
from slm_lab.agent.memory.replay import Replay
from slm_lab.agent.net.actor_critic import DeterministicPolicy
from slm_lab.agent.net.critic import Critics
from slm_lab.agent.net.init import loss_function
from slm_lab.agent.net.optim import Optim
from slm_lab.agent.net.target import TargetNet
from slm_lab.functional.continuous_distributions import TanhNormal
from slm_lab.functional.exploration import random_action, smoothed_action
from slm_lab.functional.losses import ensemble_loss
from slm_lab.functional.targets import lowest, td_target
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import lookup, register
from slm_lab.lib.stateful import State
from slm_lab.spec.model import Count, NonNegative, NonNegativeSchedule, ScheduleSpec
from slm_lab.types import Act, Continuous, Stats, kind_of


class TD3Spec(DelayedSpec):
    """Keys of TD3."""

    action_pdtype: Literal["default"] = "default"
    """The policy is no distribution."""
    policy_delay: Count = 2
    """Updates of the critics for one of the policy."""
    explore_var_spec: NonNegativeSchedule = ScheduleSpec(name="no_decay", start_val=0.1)
    """Standard deviation of the noise on actions, by frame; an action is in [-1, 1]."""
    target_noise: NonNegative = 0.2
    """Standard deviation of the noise on the next action in targets."""
    target_noise_clip: NonNegative = 0.5
    """Greatest size of that noise."""


@register("algorithm")
class TD3(Algorithm):
    """A policy, critics, and targets of both."""

    Spec = TD3Spec
    on_policy = False
    has_target = True
    random_start = True
    stat_names = ("q", "policy_loss")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        spec, action, device = setting.spec, self.info.action, setting.device
        if not isinstance(action, Continuous):
            why = f"{self.spec.name} acts in Continuous spaces, not {kind_of(action)}"
            raise SpecError([f"agent.algorithm.name: {why}"])
        actor_spec, critic_spec = spec.net.for_role("actor"), spec.net.for_role("critic")
        net_class: Any = lookup("net", spec.net.type)
        self.policy = DeterministicPolicy(net_class(actor_spec, self.info.obs_shape, {"policy": action.dim})).to(device)
        number = self.spec.num_critics
        self.critics = Critics(net_class, critic_spec, self.info.obs_shape, action, number).to(device)
        self.target = TargetNet(self.critics, critic_spec)
        self.policy_target = TargetNet(self.policy, actor_spec)
        self.noise = NoiseStream(TanhNormal, action, self.info.num_envs, setting.generator)
        self.nets = {"net": self.policy, "critic_net": self.critics}
        self.optims = {
            "net": Optim(self.policy, actor_spec, self.spec.lr),
            "critic_net": Optim(self.critics, critic_spec, self.spec.lr),
        }
        self.schedules = {"explore_var": Schedule(self.spec.explore_var_spec, device)}
        self._elementwise_loss = loss_function(critic_spec.loss_spec, each=True)
        critic = Stage(("critic_net",), self.critic_loss, ("q",), outputs=("error",))
        policy = Stage(("net",), self.policy_loss, label="policy_loss")
        targets = {"target": (self.policy_target, "net"), "target_critic_net": (self.target, "critic_net")}
        self.turns = Turns(self.spec, self.nets, self.optims, critic, policy, targets, compile=setting.compile)
        self.learner = self.turns.both
        self.parts = {"noise": self.noise, "target": self.target, "policy_target": self.policy_target}
        params = {"net": self.optims["net"].params}
        self.actor = Actor({"net": self.policy}, params, self.choose, compile=setting.compile)

    @property
    def training_start_step(self) -> int:
        """Frames of random actions."""
        return start_step(self.setting)

    @property
    def opt_step(self) -> int:
        """Gradient steps taken, summed over optimizers."""
        return self.turns.opt_step

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N, dim]; random ones at first."""
        if not explore:
            return Act(self.policy(obs))
        self.acted += len(obs)
        if self.acted <= self.training_start_step:
            return Act(random_action(self.info.action, len(obs), self.setting.generator).to(obs.device))
        return self.actor(obs, self.noise.next(len(obs)).to(obs.device), self.schedules["explore_var"].tensor)

    inputs = Algorithm.inputs
    """See Algorithm: `act` draws in this way."""

    def choose(self, obs: Tensor, noise: Tensor, std: Tensor) -> Act:
        """[N, *O], [N, dim], 0-d -> actions [N, dim] around those of the policy"""
        return Act((self.policy(obs) + std * noise).clamp(-1, 1))

    def critic_loss(self, *data: Tensor) -> tuple[Tensor, Stats]:
        """All critics against the smoothed target: a Batch [B, ...], then noise [B, dim] for the next action."""
        *given, noise = data
        batch = Batch(*given)
        with torch.no_grad():
            mean: Tensor = self.policy_target.net(batch.next_obs)
            next_action = smoothed_action(mean, noise, self.spec.target_noise, self.spec.target_noise_clip)
            next_value = lowest(self.target.net(batch.next_obs, next_action))
            target = td_target(batch.reward, batch.terminated, next_value, self.spec.gamma)
        qs = self.critics(batch.obs, batch.action)
        lower = lowest(qs).detach()
        losses = [self._elementwise_loss(q, target) for q in qs]
        return ensemble_loss(losses, batch.weight), {"q": lower.mean(), "error": (lower - target).abs()}

    def policy_loss(self, obs: Tensor, *_: Tensor) -> tuple[Tensor, Stats]:
        """`-mean Q_1(s, mu(s))` over a batch [B, *O]."""
        q: Tensor = self.critics.members[0](obs, self.policy(obs))
        return -q.mean(), {}

    def update(self, batch: Replay) -> Stats:
        """Learn from `training_iter` batches of the memory for each training that is due."""
        return self.turns.update(batch, self.spec.training_iter, self.learn)

    def learn(self, memory: Replay, learner: Learner) -> None:
        """One step of this learner: of the critics alone, or of everything."""
        batch = memory.sample(self.spec.num_step_returns, self.spec.gamma)
        noise = torch.randn(batch.action.shape, generator=self.setting.generator).to(batch.action.device)
        data = [batch.obs, batch.action, batch.reward, batch.next_obs, batch.terminated, batch.weight, noise]
        (error,) = learner.step(data, None, ())
        memory.update_priority(batch.index, error)

    def state_dict(self) -> State:
        """The state of every algorithm, and the turns."""
        return super().state_dict() | self.turns.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.turns.load_state_dict(state)
