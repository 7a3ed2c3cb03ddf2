"""Advantage actor-critic (A2C). Mnih et al. 2016, arXiv:1602.01783; Sutton and Barto 2018, section 13.5.

The idea: REINFORCE, with a critic. A learned value function V predicts the return of a state; an action is made more
likely in proportion to how much its return exceeds that, its advantage. The same steps train the critic.

    repeat:
        gather T steps of N envs with the policy pi
        A_t, R_t = advantages and value targets, by one of
            lam: GAE              A by (16) of arXiv:1506.02438, R = A + V
            num_step_returns: n   R = discounted rewards to the end of the n steps gathered + gamma^k V there, A = R - V
            neither: Monte Carlo  the same over training_frequency steps
        ascend c_pi * mean(log pi(a|s) * A) + c_H * mean(H) - c_V * loss(V, R)

Differs from the paper: advantages are standardized over the batch, unless it has a single sample; envs step together in
place of asynchronous workers.
With `meta.distributed` it is the A3C of the paper: each worker has its own envs and updates the shared parameters
whenever its rollout is complete. With `shared`, other workers may have changed the parameters since the rollout was
collected, so the statements below hold only approximately.
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from slm_lab.agent.algorithm.acting import Actor, NetFunction
from slm_lab.agent.algorithm.base import Algorithm, Schedule, Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.algorithm.noise import NoiseStream
from slm_lab.agent.algorithm.notes import Notes
from slm_lab.agent.algorithm.scales import TargetScale
from slm_lab.agent.net.actor_critic import ActorCriticNet
from slm_lab.agent.net.init import loss_function
from slm_lab.agent.net.optim import Optim
from slm_lab.functional.distributions import distribution_for
from slm_lab.functional.losses import policy_gradient_loss
from slm_lab.functional.normalize import standardize
from slm_lab.functional.returns import discounted_returns, gae
from slm_lab.lib.compiler import Effort
from slm_lab.lib.registry import lookup, register
from slm_lab.spec.model import AlgorithmSpec, Count, NonNegative, NonNegativeSchedule, Unit
from slm_lab.types import Act, Evaluated, PackedShape, Rollout, Sequences, Stats

AT_ONCE = 2**22
"""Largest number of observation elements evaluated in one pass: about 148 Atari frames, or 10,000s of vectors."""


class ActorCriticBaseSpec(AlgorithmSpec):
    """Keys that all actor-critics have."""

    action_policy: Literal["default"] = "default"
    """Actions are drawn from the distribution."""
    entropy_coef_spec: NonNegativeSchedule | None = None
    """c_H, weight of the entropy bonus that keeps the policy from settling too early; none by default."""
    val_loss_coef: NonNegative = 1.0
    """c_V, weight of the value loss."""
    normalize_v_targets: bool = False
    """Value errors are measured in the running standard deviation of the targets, where that is more than 1."""


class ActorCriticSpec(ActorCriticBaseSpec):
    """Keys of ActorCritic."""

    lam: Unit | None = None
    """GAE lambda: 0 is one-step TD, 1 is Monte Carlo. None: n-step or Monte Carlo returns."""
    num_step_returns: Count | None = None
    """n of n-step returns, where lam is not given; it is the training frequency then."""
    training_frequency: Count | None = None
    """T, steps per env between two updates."""
    policy_loss_coef: NonNegative = 1.0
    """c_pi, weight of the policy gradient."""

    @property
    def frequency(self) -> int:
        """T, steps per env of a rollout."""
        n = self.num_step_returns if self.lam is None else None
        return int(n or self.training_frequency or 1)

    @model_validator(mode="after")
    def _frequency_stated(self) -> Self:
        if self.training_frequency is None and (self.num_step_returns is None or self.lam is not None):
            raise PydanticCustomError(
                "missing_key", "'training_frequency' is missing (or 'num_step_returns' without 'lam')"
            )
        return self


@register("algorithm")
class ActorCritic(Algorithm):
    """A policy and a value function, in one net or two.

    Hooks for subclasses: `loss` with its `stat_names`, `scaled`, and `learn`.
    """

    Spec: ClassVar[type[AlgorithmSpec]] = ActorCriticSpec
    on_policy = True
    recurrent = True
    masks = True
    stat_names: tuple[str, ...] = ("policy_loss", "value_loss", "entropy")
    output_names: tuple[str, ...] = ()
    """Statistics that `learner.step` returns."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        spec, info, device = setting.spec, setting.info, setting.device
        dist = distribution_for(self.spec.action_pdtype, info.action)
        self.net = ActorCriticNet(lookup("net", spec.net.type), spec.net, info.obs_shape, dist, info.action).to(device)
        self.noise = NoiseStream(dist, info.action, info.num_envs, setting.generator)
        self.nets = {"net": self.net.actor}
        if self.net.critic is not None:
            self.nets["critic_net"] = self.net.critic
        net_specs = {"net": spec.net.for_role("actor"), "critic_net": spec.net.for_role("critic")}
        self.optims = {k: Optim(net, net_specs[k], self.spec.lr) for k, net in self.nets.items()}
        self.value_loss: nn.Module = loss_function(net_specs["critic_net"].loss_spec)
        self.schedules = {"entropy_coef": Schedule(self.spec.entropy_coef_spec, device)}
        self.target_scale = TargetScale(device) if self.spec.normalize_v_targets else None
        self.recall = self.make_recall(self.net.bodies)
        loss = self.loss if self.recall is None else self.recall.over(self.loss)
        stage = Stage(tuple(self.nets), loss, self.stat_names, self.output_names)
        self.learner = Learner(self.nets, self.optims, [stage], compile=setting.compile)
        self.learners, self.parts = {"steps": self.learner}, {"noise": self.noise, "target_scale": self.target_scale}
        if self._takes_notes():
            self.notes = Notes(self.training_frequency, info.num_envs, device)
        params = {k: optim.params for k, optim in self.optims.items()}
        small = len(info.obs_shape) < 3
        able = setting.compile if self.recall is None else Effort.OFF
        acting = able if small or self.notes is not None else Effort.OFF
        self.actor = Actor(self.nets, params, self.choose, compile=acting, quick=small)
        # a compiled estimate would evaluate what the notes hold already, and leave them full of an old rollout
        judging = able if small and self.notes is None else Effort.OFF
        self.estimator = NetFunction(
            self.nets, params, self.estimate, compile=judging, quick=True, label="evaluating a rollout"
        )

    def _takes_notes(self) -> bool:
        """Whether actor and critic share a net that reads images, and rollouts have a fixed length."""
        fixed = lookup("memory", self.setting.spec.memory.name).fixed_size
        shape = self.info.obs_shape
        images = len(shape) == 3 or (isinstance(shape, PackedShape) and any(part.image for part in shape.parts))
        return bool(fixed and images and self.net.critic is None and self.recall is None)

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N, *A]"""
        recall = self.recall
        if explore and recall is None:
            return self.actor(obs, self.noise.next(len(obs)).to(obs.device))
        dist = self.net.policy(obs) if recall is None else self.net.actor.distribution(recall.step(obs)[0])
        return Act(dist.sample(self.noise.next(len(obs)).to(obs.device)) if explore else dist.mode())

    inputs = Algorithm.inputs
    """See Algorithm: `act` draws in this way."""

    def choose(self, obs: Tensor, noise: Tensor) -> Act:
        """[N, *O], [N, ...] -> sampled actions [N, *A]; with log prob and value if these are cached for the update."""
        if self.notes is None:
            return Act(self.net.policy(obs).sample(noise))
        policy, value = self.net.policy_value(obs)
        action = policy.sample(noise)
        return Act(action, policy.log_prob(action), value)

    def evaluate(self, rollout: Rollout) -> Evaluated:
        """Log probabilities and values of a rollout, under the parameters that collected it.

        Returns:
            log_prob [T, N], value [T+1, N], final_value [T, N]
        """
        t, n = rollout.reward.shape
        # no action follows the last observation: zeros fill the place, and their log probs are not used
        later = rollout.action.new_zeros((n + len(rollout.final_obs), *rollout.action.shape[2:]))
        action = torch.cat([rollout.action.flatten(0, 1), later])
        noted = None if self.notes is None else self.notes.take()
        if noted is not None:
            _, value = self._judge(torch.cat([rollout.obs[-1], rollout.final_obs]), later)
            log_prob, value = noted[0].flatten(), torch.cat([noted[1].flatten(), value])
        elif self.recall is None:
            log_prob, value = self._judge(torch.cat([rollout.obs.flatten(0, 1), rollout.final_obs]), action)
        else:
            policy, value = self.net.read(self.recall.run(rollout))
            log_prob = policy.log_prob(action)
        final_value = value.new_zeros(t * n)
        final_value[rollout.final_index] = value[(t + 1) * n :]
        return Evaluated(
            log_prob=log_prob[: t * n].view(t, n),
            value=value[: (t + 1) * n].view(t + 1, n),
            final_value=final_value.view(t, n),
        )

    def _judge(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """[B, *O], [B, *A] -> log_prob [B], value [B]; in parts, as layers of many images fit in no CPU cache."""
        log_probs, values = [], []
        size = max(1, AT_ONCE // obs[0].numel())
        for seen, done in zip(obs.split(size), action.split(size), strict=True):
            policy, value = self.net.policy_value(seen)
            log_probs.append(policy.log_prob(done))
            values.append(value)
        return torch.cat(log_probs), torch.cat(values)

    def estimate(
        self, obs: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, final_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Everything that an update reads of a rollout.

        Args:
            obs: [T+1, N, *O]
            action: [T, N, *A]
            reward: [T, N]
            terminated: [T, N] bool
            truncated: [T, N] bool
            final_value: [T, N] V of the true successor where truncated, else 0

        Returns:
            log_prob, value, advantage, value target, [T, N] each
        """
        t, n = reward.shape
        later = torch.zeros_like(action[0])
        log_prob, value = self._judge(obs.flatten(0, 1), torch.cat([action.flatten(0, 1), later]))
        value = value.view(t + 1, n)
        advantage, ret = self.advantages(reward, terminated, truncated, value, final_value)
        return log_prob[: t * n].view(t, n), value[:-1], advantage, ret

    def advantages(
        self, reward: Tensor, terminated: Tensor, truncated: Tensor, value: Tensor, final_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advantages and value targets, [T, N] each, by the estimator of the spec; value is [T+1, N]."""
        if self.spec.lam is not None:
            advantage = gae(reward, terminated, truncated, value, final_value, self.spec.gamma, self.spec.lam)
            return advantage, advantage + value[:-1]
        ret = discounted_returns(reward, terminated, truncated, value[-1], final_value, self.spec.gamma)
        return ret - value[:-1], ret

    def scaled(self, advantage: Tensor) -> Tensor:
        """Advantages as they are learned from, [T, N]."""
        return advantage

    def loss(
        self,
        obs: Tensor | Sequences,
        action: Tensor,
        log_prob: Tensor,
        value: Tensor,
        advantage: Tensor,
        ret: Tensor,
        *coefs: Tensor,
    ) -> tuple[Tensor, Stats]:
        """The negative of what is ascended above, over a batch [B, ...]; coefs: as `coefs` gives them."""
        entropy_coef, *scale = coefs
        policy, new_value = self.net.policy_value(obs)
        entropy = policy.entropy().mean()
        scaled = standardize(advantage) if advantage.numel() > 1 else advantage
        policy_loss = policy_gradient_loss(policy.log_prob(action), scaled)
        if scale:
            new_value, ret = new_value / scale[0], ret / scale[0]
        value_loss = self.value_loss(new_value, ret)
        loss = self.spec.policy_loss_coef * policy_loss - entropy_coef * entropy + self.spec.val_loss_coef * value_loss
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    def update(self, batch: Rollout) -> Stats:
        """Learn from a rollout."""
        log_prob, value, advantage, ret = self._study(batch)
        advantage = self.scaled(advantage)
        if self.target_scale is not None:
            self.target_scale.update(ret)
        self.learn(self.learner_data(batch, batch.action, log_prob, value, advantage, ret))
        return self.learner.take_stats()

    def _study(self, batch: Rollout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log_prob, value, advantage, value target, [T, N] each."""
        played = (batch.reward, batch.terminated, batch.truncated)
        if self.estimator.compile and batch.reward.device.type == "cpu":
            final_value = torch.zeros_like(batch.reward)
            if len(batch.final_obs):
                final_value.view(-1)[batch.final_index] = self.net.value(batch.final_obs)
            return self.estimator(batch.obs, batch.action, *played, final_value)
        evaluated = self.evaluate(batch)
        advantage, ret = self.advantages(*played, evaluated.value, evaluated.final_value)
        return evaluated.log_prob, evaluated.value[:-1], advantage, ret

    def learn(self, data: tuple[Tensor, ...]) -> None:
        """Take gradient steps on what `learner_data` gave: the arguments of `loss` before `coefs`, [T * N, ...]."""
        self.learner.step(data, None, self.coefs())

    def coefs(self) -> tuple[Tensor, ...]:
        """Arguments of the loss after the data: its schedules in order; the scale of value targets, if there is one."""
        scale = () if self.target_scale is None else (self.target_scale.tensor,)
        return (*(schedule.tensor for schedule in self.schedules.values()), *scale)
