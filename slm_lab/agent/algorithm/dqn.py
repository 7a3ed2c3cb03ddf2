"""Deep Q learning, from the plain net to the double one. Watkins 1989; Mnih et al. 2013; van Hasselt et al. 2016.

The idea: Q(s, a) is the value of an action if one acts best from then on, whoever took it. So old experience is as good
as new: it is kept in a memory, and learned from many times.

    repeat:
        act, a = argmax_a Q(s, a) or, to explore, another; store (s, a, r, s')
        once for each training_frequency frames, training_iter times:
            draw B transitions from the memory
            y = r + gamma * V(s')            y = r where the episode terminated; or over n steps, below
            training_batch_iter times: descend on the mean of w * loss(Q(s, a), y)

A step of N envs that passes several multiples of training_frequency frames is followed by as many trainings: the number
of gradient steps does not depend on num_envs.

They differ in what V(s') is:

    VanillaDQN   max_a Q(s', a)                              the online net's own estimate: it chases a moving target
    DQN          max_a Q_target(s', a)                       of a slow copy, the target net
    DoubleDQN    Q_target(s', argmax_a Q(s', a))             the net chooses, the copy evaluates: less overestimation

With `atoms` the net gives not the mean of the return but its distribution, over that many values from `v_min` to
`v_max` (C51). With `net.noisy_std` its linear layers are noisy and explore: noise is drawn anew for each act and, of
the net and its target apart, for each gradient step.

With `num_step_returns` n above 1, `y = r_0 + gamma r_1 + ... + gamma^(m-1) r_(m-1) + gamma^m V(s_m)`. m is n, or less
where the episode ends before, or where the memory has no more yet; s_m is the true successor. Rewards reach back
faster; but those after the first belong to actions that the present policy might not take (Hessel et al. 2018).

The target net is equal to the net at the start. After the first training past each multiple of `update_frequency`
frames it is replaced, or moved by `polyak_coef`. The weights w are 1, unless a PrioritizedReplay has a `beta_spec`.

Papers: arXiv:1312.5602 (VanillaDQN), Mnih et al. 2015 in Nature (DQN), arXiv:1509.06461 (DoubleDQN), arXiv:1511.05952
(PrioritizedReplay), arXiv:1511.06581 (a net of type DuelingMLPNet makes a dueling one of each), arXiv:1707.06887
(C51), arXiv:1706.10295 (noisy nets). Differs from them: several envs, any optimizer and loss; rewards are not clipped;
one draw of noise for all envs of a step.
"""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.action_value import ActionValueSpec, Explorer, q_net
from slm_lab.agent.algorithm.base import Algorithm, Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.algorithm.return_head import CategoricalHead, MeanHead, ReturnHead
from slm_lab.agent.memory.replay import Replay
from slm_lab.agent.net.init import loss_function
from slm_lab.agent.net.noisy import LayerNoise
from slm_lab.agent.net.optim import Optim
from slm_lab.agent.net.target import TargetNet
from slm_lab.lib.registry import lookup, register
from slm_lab.spec.basics import NUMBER, wrong
from slm_lab.spec.model import Count, Natural, NetSpec, Real
from slm_lab.types import Act, Stats


class DQNBaseSpec(ActionValueSpec):
    """Keys that all of the DQN family have."""

    training_frequency: Count
    """Frames between two trainings, whatever num_envs is."""
    training_iter: Count = 1
    """Batches drawn each time."""
    training_batch_iter: Count = 1
    """Gradient steps on each."""
    num_step_returns: Count = 1
    """n, rewards that are summed up before the target bootstraps; fewer where the episode ends."""
    training_start_step: Natural | None = None
    """Frames to be passed before the first training. None: batch_size of the memory."""


class DQNSpec(DQNBaseSpec):
    """Keys of VanillaDQN, DQN and DoubleDQN."""

    atoms: Annotated[int, Field(ge=2), NUMBER] | None = None
    """K, values of the return that the net gives probabilities for: 51 is usual. None: the net gives its mean."""
    v_min: Real | None = None
    """Lowest of them, in units of the discounted return; smaller returns are clipped to it."""
    v_max: Real | None = None
    """Highest of them; larger returns are clipped to it."""

    @property
    def distributional(self) -> bool:
        """Whether the net gives probabilities of returns, else their mean."""
        return self.atoms is not None

    @model_validator(mode="after")
    def _support_is_stated(self) -> Self:
        if not self.distributional:
            return self
        for key in ("v_min", "v_max"):
            if getattr(self, key) is None:
                raise PydanticCustomError("support", "missing: atoms needs it", {"key": key})
        if self.v_min >= self.v_max:  # type: ignore[operator]
            raise wrong("v_min", self.v_min, "must be less than v_max")
        return self


@register("algorithm")
class VanillaDQN(Algorithm):
    """One Q net.

    Hooks for subclasses: `has_target` and `double`, and what else Rainbow overrides.
    """

    Spec: ClassVar[type[DQNBaseSpec]] = DQNSpec
    on_policy = False
    stat_names = ("q_value",)
    roles = ("critic",)
    noisy = True
    masks = True
    double: bool = False
    """Whether the online net chooses the next action, also where a target net evaluates it."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        spec = self.net_spec()
        noisy = getattr(spec, "noisy_std", None) is not None
        self.explorer = Explorer(self.spec, setting, greedy=noisy)
        self.head = self.make_head(spec)
        self.net = q_net(setting, spec, self.explorer.n, self.head.each)
        self.target = TargetNet(self.net, spec) if self.has_target else None
        self.noise = LayerNoise(self.net, setting.generator)
        self.target_noise = None if self.target is None else LayerNoise(self.target.net, setting.generator)
        self.nets = {"net": self.net}
        self.optims = {"net": Optim(self.net, spec, self.spec.lr)}
        self.schedules = {"explore_var": self.explorer.var}
        self._errors = self.prioritized()
        stage = Stage(("net",), self.loss, self.stat_names, outputs=("error",) if self._errors else ())
        nets, frozen = dict(self.nets), {}
        if self.target is not None:
            nets["target"], frozen["target"] = self.target.net, self.target.params
        params = {"net": self.optims["net"].params}
        self.actor = Actor(self.nets, params, self.choose, compile=setting.compile)
        self.learner = Learner(nets, self.optims, [stage], frozen=frozen, compile=setting.compile)
        self.learners, self.parts = {"steps": self.learner}, {"noise": self.explorer.noise, "target": self.target}

    def net_spec(self) -> Any:
        """Spec of the net, with the keys of its role."""
        return self.setting.spec.net.for_role("critic")

    def make_head(self, spec: NetSpec) -> ReturnHead:
        """How the net represents returns."""
        if not self.spec.distributional:
            return MeanHead(loss_function(spec.loss_spec, each=True))
        return CategoricalHead(self.spec.v_min, self.spec.v_max, self.spec.atoms, masked=self.info.masked)

    def prioritized(self) -> bool:
        """Whether the memory takes TD errors as priorities."""
        return bool(getattr(lookup("memory", self.setting.spec.memory.name), "prioritized", False))

    @property
    def num_step_returns(self) -> int:
        """n, rewards of a target."""
        return int(self.spec.num_step_returns)

    @property
    def training_start_step(self) -> int:
        """Frames to be passed before the first training."""
        stated = self.spec.training_start_step
        return int(getattr(self.setting.spec.memory, "batch_size", 0) if stated is None else stated)

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N]"""
        if not explore:
            with self.noise.off():
                return Act(self.head.q(self.net(obs)[0]).argmax(-1))
        self.noise.draw_()
        return self.actor(obs, self.explorer.draw(obs), self.explorer.var.tensor)

    @property
    def alike(self) -> bool:
        """See Algorithm: noise of layers is drawn in each step."""
        return super().alike and not self.noise

    inputs = Algorithm.inputs
    """See Algorithm: `act` draws in this way."""

    def choose(self, obs: Tensor, noise: Tensor, var: Tensor) -> Act:
        """[N, *O], [N, ...], epsilon or tau -> actions [N]"""
        return Act(self.explorer.pick(self.head.q(self.net(obs)[0]), noise, var))

    def next_return(self, next_obs: Tensor) -> Tensor:
        """V(s') of the table above, [B]; of a distribution, the distribution whose mean it is, [B, K]."""
        judge = self.net if self.target is None else self.target.net
        judged = judge(next_obs)[0]
        return self.head.best(judged, self.net(next_obs)[0] if self.double else None)

    def loss(
        self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor, weight: Tensor
    ) -> tuple[Tensor, Stats]:
        """The loss above, over a batch [B, ...]; `error` is each sample's TD error, [B]."""
        raw = self.net(obs)[0]
        with torch.no_grad():
            best = self.next_return(next_obs)
        loss, q, error = self.head.loss(raw, action, reward, terminated, best, self.spec.gamma)
        return (weight * loss).mean(), {"q_value": q.mean(), "error": error}

    def update(self, batch: Replay) -> Stats:
        """Draw batches from the memory and learn from them; then the target net follows."""
        for due in batch.due():
            for _ in range(self.spec.training_iter):
                self.learn(batch)
            if self.target is not None:
                self.target.follow_(self.optims["net"].params, due)
        return self.learner.take_stats()

    def learn(self, memory: Replay) -> None:
        """Gradient steps on one batch."""
        drawn = memory.sample(self.num_step_returns, self.spec.gamma)
        data = (drawn.obs, drawn.action, drawn.reward, drawn.next_obs, drawn.terminated, drawn.weight)
        for _ in range(self.spec.training_batch_iter):
            self.noise.draw_()
            if self.target_noise is not None:
                self.target_noise.draw_()
            outputs = self.learner.step(data, None, ())
        if self._errors:
            memory.update_priority(drawn.index, outputs[0])


@register("algorithm")
class DQN(VanillaDQN):
    """A target net chooses the next action and evaluates it."""

    has_target = True


@register("algorithm")
class DoubleDQN(VanillaDQN):
    """The net chooses the next action, the target net evaluates it."""

    has_target = True
    double = True
