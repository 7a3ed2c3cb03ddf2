"""Base of all algorithms: it chooses actions and updates nets from experience. The agent decides when to update."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.learner import Learner
from slm_lab.agent.algorithm.notes import Notes
from slm_lab.agent.algorithm.recall import Recall
from slm_lab.agent.net.recurrent import RecurrentNet
from slm_lab.agent.net.target import TargetNet
from slm_lab.functional.schedules import at_frame
from slm_lab.lib.compiler import Effort
from slm_lab.lib.registry import lookup
from slm_lab.lib.stateful import State, Stateful
from slm_lab.spec.effect import overruled
from slm_lab.spec.model import AgentSpec, AlgorithmSpec, NetSpec, ScheduleSpec
from slm_lab.types import Act, EnvInfo, Rollout, Stats


@dataclass(frozen=True)
class Setting:
    """What an algorithm is built from, beside its spec."""

    spec: AgentSpec
    info: EnvInfo
    device: torch.device
    compile: Effort | bool
    generator: torch.Generator
    """Random generator for everything it samples, on the CPU."""


class Schedule:
    """A coefficient that follows the frame counter, as a 0-d tensor: compiled code sees an argument, not a constant.

    Args:
        spec: None is a constant 0
        device: of the tensor
    """

    def __init__(self, spec: ScheduleSpec | None, device: torch.device) -> None:
        self.spec = spec
        self.tensor = torch.zeros((), device=device)
        self.value = 0.0
        self.set_frame(0)

    def ahead(self, frame: int, every: int, steps: int) -> Tensor:
        """[steps] f32: the values at frame, frame + every, frame + 2 * every, ..."""
        if self.spec is None:
            return self.tensor.expand(steps)
        values = [at_frame(*self.spec.parts, frame + k * every) for k in range(steps)]
        return torch.from_numpy(np.array(values, np.float32))

    def set_frame(self, frame: int) -> None:
        """Move to where the schedule is at this frame."""
        if self.spec is None:
            return
        value = at_frame(*self.spec.parts, frame)
        if value != self.value:
            self.value = value
            self.tensor.fill_(value)


class Algorithm(ABC):
    """Base of all algorithms.

    A subclass sets `Spec`, builds its nets in `__init__` and defines how it acts and learns. Put nets into `nets`,
    optimizers into `optims`, learners into `learners` and other state into `parts`: the base class saves and restores
    them.
    """

    Spec: ClassVar[type[AlgorithmSpec]]
    on_policy: ClassVar[bool | None]
    """Whether it is on-policy. None: it does not learn."""
    recurrent: ClassVar[bool] = False
    """Whether it can learn with a net that has a memory: from whole sequences, in order."""
    has_target: ClassVar[bool] = False
    """Whether there is a target net; the net's `update_type`, `update_frequency` and `polyak_coef` configure it."""
    masks: ClassVar[bool] = False
    """Whether it never chooses, nor bootstraps from, actions that the env does not allow (`env.action_mask`)."""
    noisy: ClassVar[bool] = False
    """Whether it draws the noise of noisy layers (the net's `noisy_std`)."""
    roles: ClassVar[tuple[str, ...]] = NetSpec.roles
    """Nets that it has: those whose prefix a key of the net may have."""
    moves_each_step: ClassVar[bool] = False
    """Whether schedules move in every vector step, because acting depends on one; else only with updates. With a replay
    memory they always move in every step."""
    random_start: ClassVar[bool] = False
    """Whether the first `training_start_step` frames are acted at random."""
    actor: Actor
    """Chooses actions when exploring; `inputs` gives its arguments beside the observations."""
    stat_names: tuple[str, ...] = ()
    """Names of the statistics of the loss, in order."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.spec: Any = setting.spec.algorithm
        self.info = setting.info
        self.nets: dict[str, torch.nn.Module] = {}
        self.optims: dict[str, Any] = {}
        self.learners: dict[str, Learner] = {}
        """By the name under which their numbers of steps are saved."""
        self.parts: dict[str, Stateful | None] = {}
        """Other state to be saved, by name; None: not in use. `noise` is the NoiseStream of the actor."""
        self.schedules: dict[str, Schedule] = {}
        self.frame = 0
        """Frame of the schedules."""
        self.acted = 0
        """Frames acted, by an algorithm that begins with random actions."""
        self.recall: Recall | None = None
        """Hidden states of recurrent nets; None: the nets are not recurrent."""
        self.notes: Notes | None = None
        """Cached log probabilities and values of the current rollout; None: computed afterwards, or never."""

    @property
    def training_frequency(self) -> int:
        """Units of the memory between two updates: vector steps for batch memories, episodes for episodic ones."""
        return int(self.spec.frequency)

    @property
    def training_start_step(self) -> int:
        """The first update comes once a replay memory has seen more transitions than this."""
        return 0

    @property
    def opt_step(self) -> int:
        """Gradient steps taken, summed over optimizers."""
        return sum(learner.opt_step for learner in self.learners.values())

    @abstractmethod
    def act(self, obs: Tensor, explore: bool = True) -> Act:
        """Choose actions.

        Args:
            obs: [N, *O]
            explore: sample from the policy; False: its most likely action
        """

    @property
    def alike(self) -> bool:
        """Whether the next steps can be fused: each is `actor(obs, *inputs)`."""
        drawn = not self.random_start or self.acted + self.info.num_envs > self.training_start_step
        known = hasattr(self, "actor") and "noise" in self.parts
        return known and drawn and self.recall is None and self.notes is None

    def inputs(self, steps: int, *, example: bool = False) -> tuple[Tensor, ...]:
        """Arguments of `actor` beside observations, as `act` would draw them in that many steps: [steps, ...] each.

        A class whose `act` draws in this way states it by `inputs = Algorithm.inputs`; a subclass may act differently.

        Args:
            steps: number of steps
            example: return tensors of the same shapes and types, without drawing from the generator
        """
        if not example:
            self.acted += steps * self.info.num_envs
        stream: Any = self.parts["noise"]
        noise, var = stream.ahead(steps, example=example), self.schedules.get("explore_var")
        return (noise,) if var is None else (noise, var.ahead(self.frame, self.info.num_envs, steps))

    @abstractmethod
    def update(self, batch: Any) -> Stats:
        """Learn from data of the memory.

        Args:
            batch: a Rollout from an on-policy memory; or the replay memory itself, to sample from

        Returns:
            0-d tensors by name

        Raises:
            NonFiniteLoss: the loss is not finite
        """

    def make_recall(self, nets: Sequence[torch.nn.Module]) -> Recall | None:
        """Hidden states for these nets, of which the first acts; None where they are not recurrent."""
        recurrent = [net for net in nets if isinstance(net, RecurrentNet)]
        if not recurrent:
            return None
        fixed = lookup("memory", self.setting.spec.memory.name).fixed_size
        horizon = self.training_frequency if fixed else None
        return Recall(recurrent, self.info.num_envs, horizon, self.setting.device)

    def learner_data(self, rollout: Rollout, *fields: Tensor) -> tuple[Tensor, ...]:
        """Observations and further fields of a rollout, in the form that the losses of the Learner take.

        Args:
            rollout: of T steps; recurrent nets have processed it (`Recall.run`)
            fields: [T, N, ...] each

        Returns:
            [T * N, ...] each; with recurrent nets what `Recall.sequences` gives
        """
        if self.recall is not None:
            return self.recall.sequences(rollout, fields)
        return tuple(x.flatten(0, 1) for x in (rollout.obs[:-1], *fields))

    def limit_minibatch(self) -> None:
        """Register a `minibatch_size` above the rollout as a key without effect."""
        size = self.training_frequency * self.info.num_envs
        if lookup("memory", self.setting.spec.memory.name).fixed_size and self.spec.minibatch_size > size:
            overruled(self.spec, "minibatch_size", f"a rollout has {size:,} transitions (time_horizon x env.num_envs)")

    def rows(self, size: int) -> int:
        """Number of rows of `learner_data` that make a minibatch of `size` transitions."""
        return size if self.recall is None else max(1, size // self.recall.seq_len)

    def shuffled(self, data: Sequence[Tensor]) -> Tensor:
        """Indices of all rows of the data in random order, [B] int64."""
        return torch.randperm(len(data[0]), generator=self.setting.generator).to(data[0].device)

    def set_frame(self, frame: int) -> None:
        """Move every schedule to this frame."""
        self.frame = frame
        for schedule in self.schedules.values():
            schedule.set_frame(frame)
        for optim in self.optims.values():
            optim.set_frame(frame)

    def begin(self) -> None:
        """Start learning with the nets as they are: schedules at frame 0, targets equal to their nets."""
        self.set_frame(0)
        for part in vars(self).values():
            if isinstance(part, TargetNet):
                part.equal_()

    def finish(self) -> None:
        """Move every schedule to its end: a saved policy acts as at the end of its training, and never at random."""
        self.frame = sys.maxsize
        for schedule in self.schedules.values():
            schedule.set_frame(sys.maxsize)
        self.acted = max(self.acted, self.training_start_step)

    def variables(self) -> dict[str, float]:
        """Current learning rate (mean over optimizers) and coefficients."""
        rates = [float(o.lr) for o in self.optims.values()]
        lr = {"lr": sum(rates) / len(rates)} if rates else {}
        return lr | {name: s.value for name, s in self.schedules.items() if s.spec is not None}

    def _all_parts(self) -> dict[str, Stateful]:
        parts = {"recall": self.recall, "notes": self.notes, **self.parts}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> State:
        """Nets, optimizers, steps, the frame of the schedules, and all parts."""
        return {
            "frame": self.frame,
            "nets": {k: {n: v.clone() for n, v in net.state_dict().items()} for k, net in self.nets.items()},
            "optims": {k: o.state_dict() for k, o in self.optims.items()},
            **({"acted": self.acted} if self.random_start else {}),
            **{name: learner.steps for name, learner in self.learners.items()},
            **{name: part.state_dict() for name, part in self._all_parts().items()},
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self.load_learned(state)
        # schedules are those of the spec, which may have been changed since
        self.set_frame(int(state["frame"]))
        if self.random_start:
            self.acted = int(state["acted"])
        for name, learner in self.learners.items():
            learner.steps = int(state[name])
        for name, part in self._all_parts().items():
            # checkpoints from before this cache existed have no entry: the current rollout is evaluated afterwards then
            if name in state or part is not self.notes:
                part.load_state_dict(state[name])

    def load_learned(self, state: State) -> None:
        """Restore the nets and optimizers of the state that `state_dict` returned, and nothing else."""
        for key, net in self.nets.items():
            net.load_state_dict(state["nets"][key])
        for key, optim in self.optims.items():
            optim.load_state_dict(state["optims"][key])
        if self.notes is not None:
            self.notes.clear()
