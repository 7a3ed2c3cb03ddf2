"""Cycles of tensor envs: a few steps and the update after them as one compiled program, many cycles as one call.

The update of a small Q net takes less time than Python needs to draw its batch. So the batches of many updates are
drawn ahead: which transitions they hold depends on how many there will be, not on what they are. What is stored already
is gathered before the call; what is not comes from the steps that the program itself has played.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.dqn import VanillaDQN
from slm_lab.agent.algorithm.learner import NonFiniteLoss
from slm_lab.agent.memory.replay import Replay
from slm_lab.env.tensor import QUEUE, TensorVec
from slm_lab.experiment.session.rollouts import Rollouts
from slm_lab.functional.targets import polyak_
from slm_lab.lib.compile import Compiled, CompileError, compile_function

LONGEST, MOST = 8, 4
"""Steps and gradient steps of a cycle that is compiled: each is a part of the program by itself."""


class Cycles(Rollouts):
    """Plays steps as Rollouts does, and from the first training on learns in between."""

    def __init__(self, agent: Agent, env: TensorVec) -> None:
        super().__init__(agent, env)
        self._agent = agent
        self._dqn: VanillaDQN = agent.algorithm  # type: ignore[assignment]
        self._replay: Replay = agent.memory  # type: ignore[assignment]
        self._n, self._each = env.info.num_envs, agent.training_frequency // env.info.num_envs
        """N, and T, the steps of a cycle."""
        self._draws = int(self._dqn.spec.training_iter)
        """I, gradient steps of a cycle."""
        obs, _, action, reward, terminated, _, final_obs, *_ = self._moving
        self._table = [x.flatten(0, 1) for x in (obs, action, reward, final_obs, terminated)]
        """[QUEUE * N, ...] transitions of the call, as far as they have been played."""
        self._weight = torch.ones(self._replay.spec.batch_size)
        self._learn, self._learned = self._dqn.learner.program(6)
        self._call: Compiled | None = None

    def left(self, frames: int) -> int:
        """See Rollouts; where a cycle begins, the steps of as many whole ones as fit."""
        room = self._memory.room
        if self._begins() and frames >= self._each * self._n:
            return min(frames // self._n, QUEUE, self._replay.capacity // self._n) // self._each * self._each
        steps = super().left(frames)
        return min(steps, room - self._each) if room > self._each else steps

    def _begins(self) -> bool:
        return self._memory.room == self._each and self._replay.goes_on(self._env.obs)

    def compile(self) -> bool:
        """See Rollouts; what can't be compiled is played and learned one after the other."""
        if not super().compile():
            return False
        b, (obs, action, reward, final_obs, _) = len(self._weight), self._table
        batch = [x.new_zeros((1, self._draws, b, *x.shape[1:])) for x in (obs, action, reward, final_obs, reward)]
        where = torch.zeros((1, self._draws, b), dtype=torch.int64)
        fixed, moving = self._all_arguments(1, self._dqn.inputs(self._each, example=True), batch, where)
        try:
            with torch.inference_mode(mode=False), torch.no_grad():
                args = [*fixed, *(x[0] for x in moving.values())]
                self._call = compile_function(self._function(fixed, list(moving)), args, quick=True)
        except CompileError:
            return False
        return True

    def play(self, steps: int) -> tuple[list[float], list[int]]:
        """See Rollouts."""
        if self._call is None or steps % self._each or not self._begins():
            return super().play(steps)
        count, dqn = steps // self._each, self._dqn
        every = self._each * self._n
        due = [self._replay.first_due + k * every for k in range(count)]
        drawn, places = self._replay.draw_ahead(count, self._each, self._draws)
        fields = (drawn.obs, drawn.action, drawn.reward, drawn.next_obs, drawn.terminated)
        batch = [x.unflatten(0, (count, self._draws, -1)) for x in fields]
        self._arrays[0][0] = self._env.obs
        fixed, moving = self._all_arguments(count, dqn.inputs(steps), batch, torch.from_numpy(places), due)
        args = [*fixed, *(x[0] for x in moving.values())]
        self._call.loop(args, dict(enumerate(moving.values(), len(fixed))), count)
        ended = self._keep(steps)
        self._replay.drew()
        try:
            self.learned = dqn.learner.took(moving["sums"], self._draws)
        except NonFiniteLoss as e:
            self._agent.explain(e, self._replay)
        return ended

    def _all_arguments(
        self, count: int, inputs: tuple[Tensor, ...], batch: list[Tensor], places: Tensor, due: Sequence[int] = ()
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Of so many cycles.

        Args:
            count: K
            inputs: of the actor, [K * T, ...] each
            batch: obs, actions, rewards, successors, terminated of the transitions that are stored already,
                [K, I, B, ...] each
            places: [K, I, B] int64 numbers of the others, from the first step of the call on; else negative
            due: K frames at which training is due; none: an example

        Returns:
            those that stay, no tensor twice; and [K, ...] those of each cycle
        """
        dqn, t, first = self._dqn, self._each, self._dqn.frame
        state = [*self._actor.state(), *self._env.held, *self._learned[:-1], *self._table, self._weight]
        fixed = list({id(x): x for x in state if x is not dqn.optims["net"].lr}.values())
        cut = {f"slot{i}": x[: count * t].unflatten(0, (count, t)) for i, x in enumerate(self._moving)}
        chance = (self._env.noise(count * t), *inputs)
        drawn = {f"chance{i}": x.contiguous().unflatten(0, (count, t)) for i, x in enumerate(chance)}
        # numbers of the transitions from the first one of each cycle on
        now = places - torch.arange(count).view(-1, 1, 1) * (t * self._n)
        target = dqn.target
        follows = [target is not None and target.due(frame) for frame in due]
        return fixed, {
            **cut,
            **drawn,
            **{f"batch{i}": x for i, x in enumerate(batch)},
            "stored": places < 0,
            "made": now >= 0,
            "earlier": places.clamp(min=0),
            "now": now.clamp(min=0),
            "lr": dqn.optims["net"].ahead([first + ((k + 1) * t - 1) * self._n for k in range(count)]),
            "follows": torch.tensor(follows or [False] * count),
            "sums": self._learned[-1].new_zeros((count, len(self._learned[-1]))),
        }

    def _function(self, fixed: list[Tensor], names: list[str]) -> Any:
        """A cycle as a function of what `_all_arguments` says."""
        places = {id(x): i for i, x in enumerate(fixed)}
        optim, target = self._dqn.optims["net"], self._dqn.target

        def cycle(*args: Tensor) -> tuple[Tensor, ...]:
            own = {key: args[i] for key, i in places.items()}
            given = dict(zip(names, args[len(fixed) :], strict=True))
            own |= {id(optim.lr): given["lr"], id(self._learned[-1]): given["sums"]}
            played = [torch.cat(x) for x in zip(*self._steps(own, given), strict=True)]
            table = [own[id(x)] for x in self._table]
            learned = [own[id(x)] for x in self._learned]
            for i in range(self._draws):
                where = [given[k][i] for k in ("stored", "made", "earlier", "now")]
                stored = [given[f"batch{k}"][i] for k in range(len(table))]
                data = [_pick(*x, *where) for x in zip(stored, table, played, strict=True)]
                self._learn(*learned, *data, own[id(self._weight)])
            if target is not None:
                flat = own[id(target.params.flat)]
                moved = flat.clone()
                polyak_(moved, own[id(optim.flat)], target.coef)
                flat.copy_(torch.where(given["follows"], moved, flat))
            return ()

        return cycle

    def _steps(self, own: dict[int, Tensor], given: dict[str, Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """The steps of a cycle; gives their transitions, in the order of the table."""
        actor, held = ([own[id(x)] for x in tensors] for tensors in (self._actor.state(), self._env.held))
        seen, *slots = (given[f"slot{i}"] for i in range(len(self._moving)))
        env_noise, *inputs = (given[k] for k in given if k.startswith("chance"))
        obs = seen[0]
        for i in range(self._each):
            action = self._actor.pure(actor, obs, *(x[i] for x in inputs))[0]
            following, *made = self._env.transition(*held, action, env_noise[i])
            for slot, value in zip(slots, (following, action, *made), strict=True):
                slot[i].copy_(value)
            reward, terminated, _, final_obs, *_ = made
            yield obs, action, reward, final_obs, terminated
            obs = following


def _pick(
    stored: Tensor, table: Tensor, played: Tensor, is_stored: Tensor, is_made: Tensor, earlier: Tensor, now: Tensor
) -> Tensor:
    """One field of a batch [B, ...]: what was stored before the call, played in this cycle, or in an earlier one."""
    shape = (-1, *[1] * (stored.dim() - 1))
    fresh = torch.where(is_made.view(shape), played.index_select(0, now), table.index_select(0, earlier))
    return torch.where(is_stored.view(shape), stored, fresh.to(stored.dtype))


def learns_in_cycles(agent: Agent, env: TensorVec) -> bool:
    """Whether each cycle of this agent is the same program: so many steps, uniform batches, a gradient step on each."""
    algorithm, memory = agent.algorithm, agent.memory
    if not isinstance(algorithm, VanillaDQN) or type(memory) is not Replay or memory.spec.use_cer:
        return False
    cls, spec, n = type(algorithm), algorithm.spec, env.info.num_envs
    # what learns in a way of its own is asked each time
    if (cls.update, cls.learn) != (VanillaDQN.update, VanillaDQN.learn) or algorithm.noise or agent.debug:
        return False
    plain = spec.training_batch_iter == 1 and algorithm.num_step_returns == 1 and agent.precision == "float32"
    whole = agent.training_frequency % n == 0 and agent.training_frequency // n <= LONGEST
    fits = spec.training_iter <= MOST and memory.capacity >= agent.training_frequency
    buffers = any(True for _ in algorithm.net.buffers())
    return plain and whole and fits and not buffers and bool(algorithm.learner.compile)
