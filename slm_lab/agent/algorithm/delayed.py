"""What SAC, TD3 and their relatives share: critics learn with every batch, policy and targets with every nth."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from slm_lab.agent.algorithm.base import Setting
from slm_lab.agent.algorithm.learner import Learner, Stage
from slm_lab.agent.memory.replay import Replay
from slm_lab.agent.net.optim import Optim
from slm_lab.agent.net.target import TargetNet
from slm_lab.lib.compiler import Effort
from slm_lab.lib.stateful import State
from slm_lab.spec.model import AlgorithmSpec, Count, Natural
from slm_lab.types import Stats


class DelayedSpec(AlgorithmSpec):
    """Keys of SAC, TD3 and their relatives."""

    training_frequency: Count = 1
    """Frames between two trainings, whatever num_envs is."""
    training_iter: Count = 1
    """Batches of a training."""
    num_step_returns: Count = 1
    """n, rewards that are summed up before the target bootstraps; fewer where the episode ends."""
    training_start_step: Natural | None = None
    """Frames of random actions before the first training; None: 1000, or a batch if that is more."""
    policy_delay: Count = 1
    """Updates of the critics for one of the policy."""
    target_delay: Count | None = None
    """Updates of the critics for one move of the targets; None: policy_delay."""
    num_critics: Count = 2
    """N, critics trained on the same targets from different initializations."""


class Batch(NamedTuple):
    """Transitions drawn from a replay memory, as the losses get them."""

    obs: Tensor
    """[B, *O]"""
    action: Tensor
    """[B, *A]"""
    reward: Tensor
    """[B]"""
    next_obs: Tensor
    """[B, *O]"""
    terminated: Tensor
    """[B], 1 where nothing may be bootstrapped"""
    weight: Tensor
    """[B]"""


class Turns:
    """Says which learner takes the next batch, and moves the targets.

    A move that is due by the targets' `update_frequency` waits for an update whose number is a multiple of
    `target_delay`; the updates of one training all move them.

    Args:
        spec: `policy_delay` and `target_delay`
        nets: every module that a loss reads, by name
        optims: one for each net that is learned, under its name
        critic: the loss of the critics
        policy: that of the policy; an update whose number is a multiple of `policy_delay` has both
        targets: target nets by name, each with the name of the net that it follows
        compile: see Learner
    """

    def __init__(
        self,
        spec: Any,
        nets: Mapping[str, nn.Module],
        optims: Mapping[str, Optim],
        critic: Stage,
        policy: Stage,
        targets: Mapping[str, tuple[TargetNet, str]],
        *,
        compile: Effort | bool,
    ) -> None:
        self.policy_delay, self.target_delay = spec.policy_delay, spec.target_delay or spec.policy_delay
        read = {**nets, **{name: target.net for name, (target, _) in targets.items()}}
        frozen = {name: target.params for name, (target, _) in targets.items()}
        self.both = Learner(read, optims, [critic, policy], frozen=frozen, compile=compile)
        self.critics = Learner(read, optims, [critic], frozen=frozen, compile=compile)
        self._targets = [(target, optims[net]) for target, net in targets.values()]
        self.move_due = False
        """Whether the targets move at the next turn."""

    def update(self, memory: Replay, training_iter: int, learn: Callable[[Replay, Learner], None]) -> Stats:
        """All trainings that are due, of `training_iter` batches each.

        Args:
            memory: to draw from
            training_iter: batches of a training
            learn: takes one step of the learner that it is given on a batch of the memory
        """
        learners = (self.critics, self.both)
        before = [learner.steps for learner in learners]
        for frame in memory.due():
            due = [target.due(frame) for target, _ in self._targets]
            self.move_due = self.move_due or any(due)
            moved = False
            for _ in range(training_iter):
                number = self.critics.steps + self.both.steps + 1
                learn(memory, self.critics if number % self.policy_delay else self.both)
                if self.move_due and number % self.target_delay == 0:
                    moved = True
                    for target, optim in self._targets:
                        target.move_(optim.params)
            if moved:
                self.move_due = False
        used = [learner for learner, steps in zip(learners, before, strict=True) if learner.steps > steps]
        return {name: value for learner in used for name, value in learner.take_stats().items()}

    @property
    def opt_step(self) -> int:
        """Gradient steps taken, summed over optimizers."""
        return self.both.opt_step + self.critics.opt_step

    def state_dict(self) -> State:
        """Steps taken, and whether a move is due."""
        return {"move_due": self.move_due, "steps": [self.both.steps, self.critics.steps]}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self.move_due = bool(state.get("move_due", False))
        self.both.steps, self.critics.steps = (int(n) for n in state["steps"])


def start_step(setting: Setting) -> int:
    """Frames of random actions before the first training."""
    start = setting.spec.algorithm.training_start_step  # type: ignore[attr-defined]
    return max(1000, setting.spec.memory.batch_size) if start is None else int(start)  # type: ignore[attr-defined]
