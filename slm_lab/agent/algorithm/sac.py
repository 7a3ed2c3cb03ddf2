"""Soft Actor-Critic (SAC). Haarnoja et al. 2018, arXiv:1801.01290, 1812.05905; Christodoulou 2019, 1910.07207.

The idea: want reward, and want to stay random: a nat of entropy is worth alpha. Such a policy explores by itself, and
keeps all good ways of acting open until their values differ. Experience of any policy teaches it, so each step is used
many times.

    act randomly for training_start_step frames, then with pi; store every transition
    once for each training_frequency frames, training_iter times:
        draw a batch (s, a, r, s', d)
        V(s') = E_{a' ~ pi}[min(Q1', Q2')(s', a') - alpha log pi(a'|s')]        by the target critics
        descend on loss(Q_i(s, a), r + gamma (1 - d) V(s')) for both critics
        every policy_delay-th time:
            ascend  E_{a ~ pi}[min(Q1, Q2)(s, a) - alpha log pi(a|s)]           the soft value, in the policy
            descend log alpha * (H(pi) - H_target)                              alpha rises where entropy is lacking
            move the target critics towards the critics

Continuous actions: a = tanh(u), u Gaussian, and one reparameterized sample stands for the expectation. For discrete
actions the expectation is summed up exactly.

Target entropy `auto`: -dim for continuous actions; for n discrete ones `ratio * ln n`, see `entropy_anneal`. The ratio
is 0.6 by default, 0.98 in the paper. On CartPole-v1 (specs/sac/sac_cartpole.json, 200,000 frames, two seeds) the score
over the last 100 rows came to 500.0 and 499.6 with 0.6, to 497.0 and 499.4 with 0.98, learned in about the same time.
The smaller of two critics is taken for discrete actions too: with their mean it was 493.7 and 484.6.

With `num_step_returns` above 1 the target sums up so many rewards before it bootstraps, as in `dqn`; the entropy of the
steps between is not counted.

Differs from the paper: log alpha is kept in [log_alpha_min, log_alpha_max]; policy_delay is from TD3, arXiv:1802.09477.
Both critics are one optimizer's parameters, so clip_grad_val counts for their gradients together.
`crossq` is SAC without target critics.
"""

import math
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.base import Algorithm, Schedule, Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.algorithm.noise import NoiseStream
from slm_lab.agent.memory.replay import Replay
from slm_lab.agent.net.actor_critic import Policy, policy_head_size
from slm_lab.agent.net.critic import TwinCritic
from slm_lab.agent.net.init import loss_function
from slm_lab.agent.net.optim import Optim
from slm_lab.agent.net.target import TargetNet
from slm_lab.functional.continuous_distributions import TanhNormal
from slm_lab.functional.discrete_distributions import Categorical
from slm_lab.functional.distributions import UnfitDistribution
from slm_lab.functional.normalize import symlog
from slm_lab.functional.soft import expected_soft_value, soft_value, temperature_loss
from slm_lab.functional.targets import td_target
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import lookup, register
from slm_lab.lib.stateful import State
from slm_lab.spec.model import (
    AlgorithmSpec,
    Count,
    Natural,
    NetSpec,
    NonNegative,
    OptimSpec,
    Real,
    ScheduleSpec,
    SpecModel,
)
from slm_lab.types import Act, Continuous, Discrete, Stats

RATIO = 0.6
"""Default target entropy of discrete policies, as a share of the greatest, ln n."""
PDTYPES: dict[type, tuple[str, ...]] = {
    Discrete: ("default", "Categorical", "GumbelSoftmax"),
    Continuous: ("default", "Normal", "NormalTanh", "MultivariateNormal"),
}
"""Names that older specs give to the two policies there are."""


class EntropyAnnealSpec(SpecModel):
    """Target entropy of a discrete policy: `ratio * ln n`."""

    start_ratio: NonNegative = RATIO
    """Ratio at frame 0."""
    end_ratio: NonNegative | None = None
    """Ratio from `frames` on; None: start_ratio."""
    frames: Natural = 0
    """Frames over which it changes, linearly."""


class SoftActorCriticSpec(AlgorithmSpec):
    """Keys of SoftActorCritic."""

    training_frequency: Count = 1
    """Frames between two trainings, whatever num_envs is."""
    training_iter: Count = 1
    """Batches of a training."""
    num_step_returns: Count = 1
    """n, rewards that are summed up before the target bootstraps; fewer where the episode ends."""
    training_start_step: Natural | None = None
    """Frames of random actions before the first training; None: 1000, or a batch if that is more."""
    policy_delay: Count = 1
    """Updates of the critics for one of policy, temperature and target critics."""
    target_entropy: Real | Literal["auto"] = "auto"
    """H_target, in nats."""
    entropy_anneal: EntropyAnnealSpec = EntropyAnnealSpec()
    """Discrete actions, where target_entropy is auto."""
    alpha_lr: NonNegative | None = None
    """Learning rate of the temperature; None: the policy's."""
    fixed_alpha: NonNegative | None = None
    """A temperature that is not learned."""
    alpha_anneal_frames: Natural = 0
    """Frames over which fixed_alpha falls to 0; 0: it stays."""
    log_alpha_min: Real = -5.0
    log_alpha_max: Real = 2.0
    symlog: bool = False
    """Q values and their targets are compared by their symlog, `sign(x) ln(1 + |x|)`."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.log_alpha_min > self.log_alpha_max:
            raise PydanticCustomError("order", "log_alpha_min must not lie above log_alpha_max")
        return self


class Temperature(nn.Module):
    """alpha, learned as its logarithm; 1 at first."""

    def __init__(self, lowest: float, highest: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.full((1,), min(max(0.0, lowest), highest)))

    def forward(self) -> Tensor:
        """0-d alpha, a constant"""
        return self.log_alpha.detach().exp().squeeze(0)


@register("algorithm")
class SoftActorCritic(Algorithm):
    """A policy, two critics with their targets, and a temperature.

    Hooks for subclasses: `critic_values`, and `has_target`.
    """

    Spec = SoftActorCriticSpec
    on_policy = False
    has_target = True
    stat_names = ("q", "policy_loss", "entropy", "alpha")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        spec, action, device = setting.spec, self.info.action, setting.device
        self.discrete = isinstance(action, Discrete)
        if not isinstance(action, Discrete | Continuous):
            why = f"{self.spec.name} acts in Discrete and Continuous spaces, not {type(action).__name__}"
            raise SpecError([f"agent.algorithm.name: {why}"])
        known = ", ".join(PDTYPES[type(action)])
        if self.spec.action_pdtype not in PDTYPES[type(action)]:
            raise UnfitDistribution(f"'{self.spec.action_pdtype}' is no policy of {self.spec.name} (known: {known})")
        dist: Any = Categorical if self.discrete else TanhNormal
        actor_spec, critic_spec = spec.net.for_role("actor"), spec.net.for_role("critic")
        net_class: Any = lookup("net", spec.net.type)
        head = policy_head_size(dist, action, actor_spec.log_std_init)
        net = net_class(actor_spec, self.info.obs_shape, {"policy": head})
        self.policy = Policy(net, dist, action, actor_spec.log_std_init).to(device)
        self.critics = TwinCritic(net_class, critic_spec, self.info.obs_shape, action).to(device)
        self.target = TargetNet(self.critics, critic_spec) if self.has_target else None
        self.noise = NoiseStream(dist, action, self.info.num_envs, setting.generator)
        self.nets = {"net": self.policy, "critic_net": self.critics}
        self.optims = {
            "net": Optim(self.policy, actor_spec, self.spec.lr),
            "critic_net": Optim(self.critics, critic_spec, self.spec.lr),
        }
        self.temperature: Temperature | None = None
        if self.spec.fixed_alpha is None:
            self.temperature = Temperature(self.spec.log_alpha_min, self.spec.log_alpha_max).to(device)
            self.nets["temperature"] = self.temperature
            lr = self.optims["net"].base_lr if self.spec.alpha_lr is None else self.spec.alpha_lr
            # no weight decay: it would draw alpha to 1
            plain = NetSpec(type="Temperature", optim_spec=OptimSpec(lr=lr))
            self.optims["temperature"] = Optim(self.temperature, plain)
        self.schedules = {name: Schedule(s, device) for name, s in self._schedule_specs().items()}
        self._elementwise_loss = loss_function(critic_spec.loss_spec, each=True)
        self._build_learners(compile=setting.compile)
        params = {"net": self.optims["net"].params}
        self.actor = Actor({"net": self.policy}, params, self.choose, compile=setting.compile)
        self.acted = 0
        """Frames acted, to know when the random ones are over."""
        self.move_due = False
        """Whether the targets move with the next step of the policy."""

    def _schedule_specs(self) -> dict[str, ScheduleSpec | None]:
        """Of the two coefficients that follow the frame counter; None where not in use."""
        spec, anneal, action = self.spec, self.spec.entropy_anneal, self.info.action
        if spec.fixed_alpha is not None:
            return {"target_entropy": None, "alpha": _line(spec.fixed_alpha, 0.0, spec.alpha_anneal_frames)}
        if spec.target_entropy != "auto":
            return {"target_entropy": _line(spec.target_entropy), "alpha": None}
        if isinstance(action, Continuous):
            return {"target_entropy": _line(-float(action.dim)), "alpha": None}
        assert isinstance(action, Discrete)
        most, start = math.log(action.n), anneal.start_ratio
        end = start if anneal.end_ratio is None else anneal.end_ratio
        return {"target_entropy": _line(start * most, end * most, anneal.frames), "alpha": None}

    def _build_learners(self, *, compile: bool) -> None:
        nets, frozen = dict(self.nets), {}
        if self.target is not None:
            nets["target_critic_net"], frozen["target_critic_net"] = self.target.net, self.target.params
        critic = Stage(("critic_net",), self.critic_loss, ("q",), outputs=("error",))
        learned = ("net",) if self.temperature is None else ("net", "temperature")
        policy = Stage(learned, self.policy_loss, ("entropy", "alpha"), label="policy_loss")
        self.learner = Learner(nets, self.optims, [critic, policy], frozen=frozen, compile=compile)
        self.critic_learner = Learner(nets, self.optims, [critic], frozen=frozen, compile=compile)

    @property
    def training_start_step(self) -> int:
        """Frames of random actions."""
        start = self.spec.training_start_step
        return max(1000, self.setting.spec.memory.batch_size) if start is None else int(start)  # type: ignore[attr-defined]

    @property
    def opt_step(self) -> int:
        """Gradient steps taken, summed over optimizers."""
        return self.learner.steps * len(self.optims) + self.critic_learner.steps

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N, *A]; random ones at first."""
        if not explore:
            return Act(self.policy(obs).mode())
        self.acted += len(obs)
        if self.acted <= self.training_start_step:
            return Act(self._random_action(len(obs)).to(obs.device))
        return self.actor(obs, self.noise.next(len(obs)).to(obs.device))

    def finish(self) -> None:
        """See Algorithm: the random actions of the beginning are over."""
        super().finish()
        self.acted = max(self.acted, self.training_start_step)

    def choose(self, obs: Tensor, noise: Tensor) -> Act:
        """[N, *O], [N, ...] -> actions [N, *A], drawn from the policy"""
        return Act(self.policy(obs).sample(noise))

    def _random_action(self, n: int) -> Tensor:
        action, generator = self.info.action, self.setting.generator
        if isinstance(action, Discrete):
            return torch.randint(action.n, (n,), generator=generator)
        assert isinstance(action, Continuous)
        return torch.rand((n, action.dim), generator=generator) * 2 - 1

    def alpha(self, fixed: Tensor) -> Tensor:
        """0-d, a constant."""
        return fixed if self.temperature is None else self.temperature()

    def soft_value(self, critics: Any, obs: Tensor, noise: Tensor | None, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """V(s) by these critics, and the policy's entropy (an estimate of it, where actions are continuous).

        Args:
            critics: TwinCritic, online or target
            obs: [B, *O]
            noise: [B, dim] for continuous actions
            alpha: 0-d

        Returns:
            V [B], H [B]
        """
        policy = self.policy(obs)
        if noise is None:
            q = torch.min(*critics.all_actions(obs))
            return expected_soft_value(q, policy.log_p, alpha), policy.entropy()
        action, log_prob = policy.sample_log_prob(noise)
        return soft_value(torch.min(*critics(obs, action)), log_prob, alpha), -log_prob

    def critic_values(
        self, obs: Tensor, action: Tensor, next_obs: Tensor, noise: Tensor | None, alpha: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the critics say of the present, and what the next state is worth.

        Args:
            obs: [B, *O]
            action: [B, *A]
            next_obs: [B, *O]
            noise: [B, dim] for continuous actions
            alpha: 0-d

        Returns:
            Q1(s, a) [B], Q2(s, a) [B], V(s') [B], a constant
        """
        assert self.target is not None
        with torch.no_grad():
            next_value, _ = self.soft_value(self.target.net, next_obs, noise, alpha)
        return *self.critics(obs, action), next_value

    def critic_loss(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
        terminated: Tensor,
        weight: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, Stats]:
        """Both critics against the one-step soft target, over a batch [B, ...]; rest: noise, coefficients."""
        noise, _, _, fixed_alpha = _unpack(rest)
        q1, q2, next_value = self.critic_values(obs, action, next_obs, noise, self.alpha(fixed_alpha))
        target = td_target(reward, terminated, next_value, self.spec.gamma)
        lower = torch.min(q1, q2).detach()
        stats = {"q": lower.mean(), "error": (lower - target).abs()}
        if self.spec.symlog:
            q1, q2, target = symlog(q1), symlog(q2), symlog(target)
        return (weight * (self._elementwise_loss(q1, target) + self._elementwise_loss(q2, target))).mean(), stats

    def policy_loss(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
        terminated: Tensor,
        weight: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, Stats]:
        """`-mean V(s)`, with the temperature's gradient, over a batch [B, ...]; rest: noise, coefficients."""
        _, noise, target_entropy, fixed_alpha = _unpack(rest)
        alpha = self.alpha(fixed_alpha)
        value, entropy = self.soft_value(self.critics, obs, noise, alpha)
        loss = -value.mean()
        stats = {"entropy": entropy.mean(), "alpha": alpha}
        if self.temperature is not None:
            # one pass for both: the temperature's loss adds its gradient and no value
            own = temperature_loss(self.temperature.log_alpha, entropy, target_entropy)
            loss = loss + (own - own.detach())
        return loss, stats

    def update(self, batch: Replay, frame: int) -> Stats:
        """Learn from `training_iter` batches of the memory for each training that is due."""
        learners = (self.critic_learner, self.learner)
        before = [learner.steps for learner in learners]
        for due in batch.due():
            self.move_due = self.move_due or (self.target is not None and self.target.due(due))
            steps = self.learner.steps
            for _ in range(self.spec.training_iter):
                self.learn(batch)
            if self.learner.steps > steps:
                self.move_due = False
        used = [learner for learner, steps in zip(learners, before, strict=True) if learner.steps > steps]
        return {name: value for learner in used for name, value in learner.take_stats().items()}

    def learn(self, memory: Replay) -> None:
        """One update of the critics, and of the rest when it is its turn."""
        batch = memory.sample(self.spec.num_step_returns, self.spec.gamma)
        data = [batch.obs, batch.action, batch.reward, batch.next_obs, batch.terminated, batch.weight]
        if not self.discrete:
            shape = (2, *batch.action.shape)
            data += torch.randn(shape, generator=self.setting.generator).to(batch.action.device).unbind()
        coefs = (self.schedules["target_entropy"].tensor, self.schedules["alpha"].tensor)
        delayed = (self.learner.steps + self.critic_learner.steps + 1) % self.spec.policy_delay
        (error,) = (self.critic_learner if delayed else self.learner).step(data, None, coefs)
        memory.update_priority(batch.index, error)
        if delayed:
            return
        if self.temperature is not None:
            self.optims["temperature"].params.flat.clamp_(self.spec.log_alpha_min, self.spec.log_alpha_max)
        if self.target is not None and self.move_due:
            self.target.move_(self.optims["critic_net"].params)

    def state_dict(self) -> State:
        """Nets, optimizers, targets, noise."""
        own: State = {"noise": self.noise.state_dict(), "acted": self.acted, "move_due": self.move_due}
        own["steps"] = [self.learner.steps, self.critic_learner.steps]
        if self.target is not None:
            own["target"] = self.target.state_dict()
        return super().state_dict() | own

    def load_state_dict(self, state: State) -> None:
        """Become what `state_dict` said."""
        super().load_state_dict(state)
        if self.target is not None:
            self.target.load_state_dict(state["target"])
        self.noise.load_state_dict(state["noise"])
        self.acted, self.move_due = int(state["acted"]), bool(state.get("move_due", False))
        self.learner.steps, self.critic_learner.steps = (int(n) for n in state["steps"])


def _line(start: float, end: float | None = None, frames: int = 0) -> ScheduleSpec:
    """From start to end over frames; constant where there are none."""
    if not frames or end is None:
        return ScheduleSpec(name="no_decay", start_val=start)
    return ScheduleSpec(name="linear_decay", start_val=start, end_val=end, start_step=0, end_step=frames)


def _unpack(rest: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    """Noise for the next and for the present action (continuous ones), target entropy, fixed alpha."""
    if len(rest) == 2:
        return None, None, *rest
    next_noise, noise, target_entropy, fixed_alpha = rest
    return next_noise, noise, target_entropy, fixed_alpha
