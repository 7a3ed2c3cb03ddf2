"""What learners of action values share: how they explore and act; and one base of those that learn from rollouts."""

from abc import abstractmethod
from typing import Any, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.base import Algorithm, Schedule, Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.algorithm.noise import NoiseStream
from slm_lab.agent.net.init import loss_function
from slm_lab.agent.net.optim import Optim
from slm_lab.functional.exploration import EXPLORATION, EpsilonGreedy, MaskedEpsilonGreedy
from slm_lab.functional.targets import taken_value
from slm_lab.lib.compiler import Effort
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import lookup
from slm_lab.spec.basics import wrong
from slm_lab.spec.effect import overruled
from slm_lab.spec.model import AlgorithmSpec, NetSpec, NonNegativeSchedule
from slm_lab.types import Act, Discrete, Rollout, Sequences, Stats, kind_of


class ActionValueSpec(AlgorithmSpec):
    """Keys of algorithms that learn action values."""

    action_pdtype: Literal["default", "Argmax", "Categorical"] = "default"
    """Argmax for epsilon_greedy, Categorical for boltzmann; action_policy implies it."""
    action_policy: Literal["default", "epsilon_greedy", "boltzmann"] = "default"
    """How to explore: epsilon_greedy (the default), or boltzmann, `softmax(Q / tau)`."""
    explore_var_spec: NonNegativeSchedule | None = None
    """Epsilon or tau, by frame. None: no exploration. Not used where the net has a noisy_std: its noise explores."""

    @model_validator(mode="after")
    def _epsilon_is_a_share(self) -> Self:
        s = self.explore_var_spec
        if s is not None and self.action_policy != "boltzmann":
            for key in ("start_val", "end_val"):
                if (getattr(s, key) or 0) > 1:
                    raise wrong(f"explore_var_spec.{key}", getattr(s, key), "epsilon must be at most 1")
        return self

    @model_validator(mode="after")
    def _boltzmann_has_a_temperature(self) -> Self:
        if self.action_policy != "boltzmann":
            return self
        if self.action_pdtype == "Argmax":
            raise PydanticCustomError("boltzmann", "boltzmann draws from action_pdtype Categorical, not Argmax")
        s = self.explore_var_spec
        if s is None or min(s.start_val, s.start_val if s.end_val is None else s.end_val) <= 0:
            raise PydanticCustomError("boltzmann", "boltzmann needs an explore_var_spec that stays above 0")
        return self


class Explorer:
    """Acts on Q values.

    Raises:
        SpecError: the env's actions are not discrete
    """

    def __init__(self, spec: ActionValueSpec, setting: Setting, *, greedy: bool = False) -> None:
        action = setting.info.action
        if not isinstance(action, Discrete):
            why = f"needs discrete actions (the env has {kind_of(action)} ones)"
            raise SpecError([f"agent.algorithm.name: {spec.name} {why}"])
        self.n = action.n
        """Number of actions."""
        policy = spec.action_policy
        name = "epsilon_greedy" if greedy or policy == "default" else policy
        self._way = EXPLORATION[name]
        if setting.info.masked and self._way is EpsilonGreedy:
            self._way = MaskedEpsilonGreedy
        drawn = "Argmax" if name == "epsilon_greedy" else "Categorical"
        if spec.action_pdtype not in ("default", drawn):
            overruled(spec, "action_pdtype", f"action_policy {name} draws from {drawn}")
        schedule = Schedule(spec.explore_var_spec, setting.device)
        if greedy:
            overruled(spec, "action_policy", "the noise of the net explores", meant=policy == "epsilon_greedy")
            overruled(spec, "explore_var_spec", "the noise of the net explores", meant=True)
        self.var = Schedule(None, setting.device) if greedy else schedule
        """Epsilon or tau."""
        self.noise = NoiseStream(self._way, action, setting.info.num_envs, setting.generator)

    def choose(self, q: Tensor, explore: bool = True) -> Tensor:
        """Q values [B, n] -> actions [B]; the best ones if not exploring."""
        if not explore:
            return q.argmax(-1)
        return self.pick(q, self.draw(q), self.var.tensor)

    def draw(self, like: Tensor) -> Tensor:
        """Noise for one choice of each env of a batch, on its device."""
        return self.noise.next(len(like)).to(like.device)

    def pick(self, q: Tensor, noise: Tensor, var: Tensor) -> Tensor:
        """Q values [B, n], noise [B, ...], epsilon or tau -> actions [B]."""
        return self._way.choose(q, var, noise)


def q_net(setting: Setting, spec: NetSpec, n: int, each: int = 1) -> nn.Module:
    """A net with one head, of `each` numbers for each of n actions; spec: with the keys of the net's role."""
    size = n if each == 1 else (n, each)
    net: nn.Module = lookup("net", spec.type)(spec, setting.info.obs_shape, {"q": size})
    return net.to(setting.device)


class RolloutQ(Algorithm):
    """One Q net that learns from rollouts and then drops them: what SARSA and PQN share.

    A subclass defines the targets and how many steps are taken on them.
    """

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
        self.sample_loss = loss_function(spec.loss_spec, each=True)
        self.recall = self.make_recall([self.net])
        loss = self.loss if self.recall is None else self.recall.over(self.loss)
        params = {"net": self.optims["net"].params}
        acting = setting.compile if self.recall is None else Effort.OFF
        self.actor = Actor(self.nets, params, self.choose, compile=acting)
        stage = Stage(("net",), loss, self.stat_names)
        self.learner = Learner(self.nets, self.optims, [stage], compile=setting.compile)
        self.learners, self.parts = {"steps": self.learner}, {"noise": self.explorer.noise}

    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """[N, *O] -> actions [N]"""
        if explore and self.recall is None:
            return self.actor(obs, self.explorer.draw(obs), self.explorer.var.tensor)
        q = self.net(obs)[0] if self.recall is None else self.recall.step(obs)[0]
        return Act(self.explorer.choose(q, explore))

    inputs = Algorithm.inputs
    """See Algorithm: `act` draws in this way."""

    def choose(self, obs: Tensor, noise: Tensor, var: Tensor) -> Act:
        """[N, *O], [N, ...], epsilon or tau -> actions [N]"""
        return Act(self.explorer.pick(self.net(obs)[0], noise, var))

    def loss(self, obs: Tensor | Sequences, action: Tensor, target: Tensor) -> tuple[Tensor, Stats]:
        """How far Q(s, a) is from y, the mean over a batch [B, ...]."""
        q = taken_value(self.net(obs)[0], action)
        return self.sample_loss(q, target).mean(), {"q_value": q.mean()}

    @abstractmethod
    def targets(self, rollout: Rollout) -> Tensor:
        """y, [T, N]: one pass of the net over all observations, before it changes."""
