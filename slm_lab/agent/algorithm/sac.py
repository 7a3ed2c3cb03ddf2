"""Soft Actor-Critic (SAC). Haarnoja et al. 2018, arXiv:1801.01290, 1812.05905; Christodoulou 2019, 1910.07207.

The idea: maximize reward, and stay random: a nat of entropy is worth alpha. Such a policy explores by itself, and keeps
all good ways of acting open until their values differ. It learns from experience of any policy, so each step is used
many times.

    act randomly for training_start_step frames, then with pi; store every transition
    once for each training_frequency frames, training_iter times:
        draw a batch (s, a, r, s', d)
        V(s') = E_{a' ~ pi}[min(Q1', Q2')(s', a') - alpha log pi(a'|s')]        by the target critics
        descend on loss(Q_i(s, a), r + gamma (1 - d) V(s')) for both critics
        every policy_delay-th time:
            ascend  E_{a ~ pi}[min(Q1, Q2)(s, a) - alpha log pi(a|s)]           the soft value, in the policy
            descend log alpha * (H(pi) - H_target)                              alpha rises where entropy is lacking
        every target_delay-th time: move the target critics towards the critics

Continuous actions: a = tanh(u), u Gaussian, and one reparameterized sample estimates the expectation. For discrete
actions the expectation is summed up exactly.

Target entropy `auto`: -dim for continuous actions; for n discrete ones `ratio * ln n`, see `entropy_anneal`; with
`env.action_mask` n counts the actions that are allowed in s. Masked actions have no probability, so they add neither
value nor entropy to V(s). The ratio is 0.6 by default, 0.98 in the paper. On CartPole-v1 (sac_cartpole, 200,000 frames,
two seeds) the score over the last 100 rows was 500.0 and 499.6 with 0.6, and 497.0 and 499.4 with 0.98, learned in
about the same time. The smaller of two critics is taken for discrete actions too: with their mean it was 493.7 and
484.6. Where rewards are rare it can keep the policy from states it seldom saw: on Acrobot-v1 it never reached the goal,
`policy_q` mean with `critic_subset` 1 did (sac_acrobot).

With `num_step_returns` above 1 the target sums up that many rewards before it bootstraps, as in `dqn`; the entropy of
the steps between is not counted.

Differs from the paper: log alpha is kept in [log_alpha_min, log_alpha_max]; policy_delay is from TD3, arXiv:1802.09477.
Both critics are one optimizer's parameters, so clip_grad_val counts for their gradients together.
`crossq` is SAC without target critics; `tqc` and `xqc` learn distributions of returns.

Many updates per frame, by keys alone. REDQ (Chen et al. 2021, arXiv:2101.05982): `training_iter` 20 batches per frame,
`num_critics` 10, `critic_subset` 2 of them drawn for each target, `policy_q` mean, `policy_delay` 20 and `target_delay`
1: see specs/sac/redq_mujoco.json. DroQ (Hiraoka et al. 2022, arXiv:2110.02034): as
many updates of two critics, with `critic_dropout` 0.01 and `critic_layer_norm` of MLPNet: specs/sac/droq_mujoco.json.
Its targets drop nothing here.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.base import Algorithm, Schedule, Setting
from slm_lab.agent.algorithm.delayed import Batch, Turns, start_step
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.algorithm.noise import NoiseStream
from slm_lab.agent.algorithm.soft_spec import SoftActorCriticSpec, policy_distribution
from slm_lab.agent.algorithm.temperature import Temperature, temperature_optim, temperature_schedules
from slm_lab.agent.memory.replay import Replay
from slm_lab.agent.net.actor_critic import Policy
from slm_lab.agent.net.critic import Critics
from slm_lab.agent.net.init import loss_function
from slm_lab.agent.net.masked import HeadMask
from slm_lab.agent.net.optim import Optim
from slm_lab.agent.net.target import TargetNet
from slm_lab.functional.exploration import random_action
from slm_lab.functional.losses import ensemble_loss
from slm_lab.functional.masks import entropy_share
from slm_lab.functional.normalize import symlog
from slm_lab.functional.soft import expected_soft_value, soft_value, temperature_loss
from slm_lab.functional.targets import lowest, td_target
from slm_lab.lib.registry import lookup, register
from slm_lab.lib.stateful import State
from slm_lab.types import Act, Continuous, Discrete, Stats


class Rest(NamedTuple):
    """Inputs of a loss beside the transitions."""

    next_noise: Tensor | None
    """[B, dim] for the next action, where actions are continuous"""
    noise: Tensor | None
    """[B, dim] for the present one"""
    subset: Tensor | None
    """[M] int64, critics that the target is made of; None: all"""
    target_entropy: Tensor
    """0-d"""
    fixed_alpha: Tensor
    """0-d"""


@register("algorithm")
class SoftActorCritic(Algorithm):
    """A policy, critics with their targets, and a temperature.

    Hooks for subclasses: `critic_values` or the whole of `compare`, `q_value`, `after_step`; and the class variables.
    """

    Spec = SoftActorCriticSpec
    on_policy = False
    has_target = True
    random_start = True
    masks = True
    spaces: ClassVar[tuple[type, ...]] = (Discrete, Continuous)
    """Kinds of action spaces."""
    stat_names = ("q", "policy_loss", "entropy", "alpha")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        spec, device = setting.spec, setting.device
        action: Any = self.info.action
        dist: Any = policy_distribution(self.spec, action, self.spaces)
        self.discrete = isinstance(action, Discrete)
        actor_spec, critic_spec = spec.net.for_role("actor"), spec.net.for_role("critic")
        net_class: Any = lookup("net", spec.net.type)
        self.policy = Policy(net_class, actor_spec, self.info.obs_shape, dist, action).to(device)
        self.critics = Critics(
            net_class, critic_spec, self.info.obs_shape, action, self.spec.num_critics, self.critic_outputs
        ).to(device)
        self.target = TargetNet(self.critics, critic_spec) if self.has_target else None
        self.noise = NoiseStream(dist, action, self.info.num_envs, setting.generator)
        self.nets = {"net": self.policy, "critic_net": self.critics}
        self.optims = {
            "net": Optim(self.policy, actor_spec, self.spec.lr),
            "critic_net": Optim(self.critics, critic_spec, self.spec.lr),
        }
        self.temperature: Temperature | None = None
        if self.spec.fixed_alpha is None:
            lr = self.optims["net"].base_lr if self.spec.alpha_lr is None else self.spec.alpha_lr
            self.temperature = Temperature(self.spec.log_alpha_min, self.spec.log_alpha_max).to(device)
            self.nets["temperature"] = self.temperature
            self.optims["temperature"] = temperature_optim(self.temperature, lr)
        schedules = temperature_schedules(self.spec, action)
        self.schedules = {name: Schedule(s, device) for name, s in schedules.items()}
        self._mask = HeadMask.of(self.info.obs_shape, {"policy": action.n}) if self.discrete else None
        self._elementwise_loss = loss_function(critic_spec.loss_spec, each=True)
        critic = Stage(("critic_net",), self.critic_loss, ("q",), outputs=("error",))
        learned = ("net",) if self.temperature is None else ("net", "temperature")
        policy = Stage(learned, self.policy_loss, ("entropy", "alpha"), label="policy_loss")
        targets = {} if self.target is None else {"target_critic_net": (self.target, "critic_net")}
        self.turns = Turns(self.spec, self.nets, self.optims, critic, policy, targets, compile=setting.compile)
        self.learner = self.turns.both
        self.parts = {"noise": self.noise, "target": self.target}
        params = {"net": self.optims["net"].params}
        self.actor = Actor({"net": self.policy}, params, self.choose, compile=setting.compile)

    @property
    def critic_outputs(self) -> int | None:
        """K, numbers that a critic gives for an action: a distribution of returns; None: a single value."""
        return None

    @property
    def training_start_step(self) -> int:
        """Frames of random actions."""
        return start_step(self.setting)

    @property
    def opt_step(self) -> int:
        """Gradient steps taken, summed over optimizers."""
        return self.turns.opt_step

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N, *A]; random ones at first."""
        if not explore:
            return Act(self.policy(obs).mode())
        self.acted += len(obs)
        if self.acted <= self.training_start_step:
            return Act(
                random_action(self.info.action, len(obs), self.setting.generator, self.allowed(obs)).to(obs.device)
            )
        return self.actor(obs, self.noise.next(len(obs)).to(obs.device))

    def allowed(self, obs: Tensor) -> Tensor | None:
        """[N, *O] -> [N, n] bool, which discrete actions the env allows; None: all."""
        return None if self._mask is None else self._mask.allowed(obs, self.info.action.n)  # type: ignore[union-attr]

    inputs = Algorithm.inputs
    """See Algorithm: `act` draws in this way."""

    def choose(self, obs: Tensor, noise: Tensor) -> Act:
        """[N, *O], [N, ...] -> actions [N, *A], drawn from the policy"""
        return Act(self.policy(obs).sample(noise))

    def alpha(self, fixed: Tensor) -> Tensor:
        """0-d, a constant."""
        return fixed if self.temperature is None else self.temperature()

    def soft_value(
        self, critics: Any, obs: Tensor, noise: Tensor | None, alpha: Tensor, subset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """V(s) by these critics, and the policy's entropy (an estimate of it, where actions are continuous).

        Args:
            critics: the online ones, for the policy's loss; or the targets
            obs: [B, *O]
            noise: [B, dim] for continuous actions
            alpha: 0-d
            subset: [M] critics whose lowest value is taken, for a target; None: all

        Returns:
            V [B], H [B]
        """
        policy: Any = self.policy(obs)
        if noise is None:
            q = self._join(critics, critics.all_actions(obs), subset)
            return expected_soft_value(q, policy.log_p, alpha), policy.entropy()
        action, log_prob = policy.sample_log_prob(noise)
        return soft_value(self.q_value(critics, obs, action, subset), log_prob, alpha), -log_prob

    def q_value(self, critics: Any, obs: Tensor, action: Tensor, subset: Tensor | None) -> Tensor:
        """Q(s, a) [B] by these critics, of continuous actions; see `soft_value`."""
        return self._join(critics, critics(obs, action), subset)

    def _join(self, critics: Any, qs: Sequence[Tensor], subset: Tensor | None) -> Tensor:
        """One value out of several predictions: the lowest; for the policy their mean, where the spec says so."""
        if critics is self.critics and self.spec.policy_q == "mean":
            return torch.stack(tuple(qs)).mean(0)
        return lowest(qs, subset)

    @torch.no_grad()
    def next_action(self, next_obs: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """A continuous action of the policy and its log probability, [B, dim] and [B], constants."""
        policy: Any = self.policy(next_obs)
        action, log_prob = policy.sample_log_prob(noise)
        return action, log_prob

    def critic_values(self, batch: Batch, extras: Rest, alpha: Tensor) -> tuple[Tensor, ...]:
        """Q_i(s, a) [B] of each critic, last V(s') [B], a constant."""
        assert self.target is not None
        with torch.no_grad():
            next_value, _ = self.soft_value(self.target.net, batch.next_obs, extras.next_noise, alpha, extras.subset)
        return *self.critics(batch.obs, batch.action), next_value

    def critic_loss(self, *data: Tensor) -> tuple[Tensor, Stats]:
        """All critics against their target: a Batch [B, ...], then what `unpack` understands."""
        batch, extras = Batch(*data[: len(Batch._fields)]), self.unpack(data)
        losses, q, error = self.compare(batch, extras, self.alpha(extras.fixed_alpha))
        return ensemble_loss(losses, batch.weight), {"q": q.mean(), "error": error.abs()}

    def compare(self, batch: Batch, extras: Rest, alpha: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """The critics' predictions and their target.

        Returns:
            the loss of each critic [B], Q(s, a) [B], and how far it is from its target [B]; the last two are constants
        """
        *qs, next_value = self.critic_values(batch, extras, alpha)
        target = td_target(batch.reward, batch.terminated, next_value, self.spec.gamma)
        lower = lowest(qs).detach()
        error = lower - target
        if self.spec.symlog:
            qs, target = [symlog(q) for q in qs], symlog(target)
        return [self._elementwise_loss(q, target) for q in qs], lower, error

    def policy_loss(self, obs: Tensor, *rest: Tensor) -> tuple[Tensor, Stats]:
        """`-mean V(s)`, with the temperature's gradient; arguments: as for `critic_loss`."""
        extras = self.unpack((obs, *rest))
        alpha = self.alpha(extras.fixed_alpha)
        value, entropy = self.soft_value(self.critics, obs, extras.noise, alpha)
        loss = -value.mean()
        stats = {"entropy": entropy.mean(), "alpha": alpha}
        if self.temperature is not None:
            target, allowed = extras.target_entropy, self.allowed(obs)
            if allowed is not None and self.spec.target_entropy == "auto":
                target = target * entropy_share(allowed)
            # one pass for both: the temperature's loss adds its gradient and no value
            own = temperature_loss(self.temperature.log_alpha, entropy, target)
            loss = loss + (own - own.detach())
        return loss, stats

    def unpack(self, data: tuple[Tensor, ...]) -> Rest:
        """The inputs that `learn` adds to a batch."""
        *given, target_entropy, fixed_alpha = data[len(Batch._fields) :]
        next_noise, noise = (None, None) if self.discrete else given[:2]
        subset = given[-1] if self._draws_subset else None
        return Rest(next_noise, noise, subset, target_entropy, fixed_alpha)

    @property
    def _draws_subset(self) -> bool:
        return (self.spec.critic_subset or self.spec.num_critics) < self.spec.num_critics

    def update(self, batch: Replay) -> Stats:
        """Learn from `training_iter` batches of the memory for each training that is due."""
        return self.turns.update(batch, self.spec.training_iter, self.learn)

    def learn(self, memory: Replay, learner: Learner) -> None:
        """One step of this learner: of the critics alone, or of everything."""
        batch = memory.sample(self.spec.num_step_returns, self.spec.gamma)
        data = [batch.obs, batch.action, batch.reward, batch.next_obs, batch.terminated, batch.weight]
        generator, device = self.setting.generator, batch.obs.device
        if not self.discrete:
            data += torch.randn((2, *batch.action.shape), generator=generator).to(device).unbind()
        if self._draws_subset:
            drawn = torch.randperm(self.spec.num_critics, generator=generator)[: self.spec.critic_subset]
            data.append(drawn.to(device))
        coefs = (self.schedules["target_entropy"].tensor, self.schedules["alpha"].tensor)
        (error,) = learner.step(data, None, coefs)
        memory.update_priority(batch.index, error)
        self.after_step(learner)

    def after_step(self, learner: Learner) -> None:
        """Clamp the temperature to its bounds."""
        if self.temperature is not None and learner is self.learner:
            self.optims["temperature"].params.flat.clamp_(self.spec.log_alpha_min, self.spec.log_alpha_max)

    def state_dict(self) -> State:
        """The state of every algorithm, and the turns."""
        return super().state_dict() | self.turns.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.turns.load_state_dict(state)
