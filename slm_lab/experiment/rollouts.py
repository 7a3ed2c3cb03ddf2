"""Rollouts of tensor envs: policy, env and memory as one compiled step, and many steps as one call."""

from typing import Any

import numpy as np
import torch
from loguru import logger

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.actor_critic import ActorCritic
from slm_lab.agent.memory.onpolicy import OnPolicyBatchReplay
from slm_lab.env.base import VecEnv
from slm_lab.env.make import make_env
from slm_lab.env.tensor import QUEUE, TensorVec
from slm_lab.experiment.resources import parallel_sessions, use_compile
from slm_lab.experiment.run import Run
from slm_lab.lib.compile import Compiled, CompileError, compile_function
from slm_lab.lib.native.build import compiler
from slm_lab.lib.registry import lookup
from slm_lab.lib.stateful import State
from slm_lab.spec.model import Spec


class Rollouts:
    """Plays steps of the rollout under way.

    Args:
        agent: acts by its actor, and has an on-policy memory of a fixed size
        env: N tensor envs
    """

    def __init__(self, agent: Agent, env: TensorVec) -> None:
        assert isinstance(agent.algorithm, ActorCritic)
        assert isinstance(agent.memory, OnPolicyBatchReplay)
        self._algorithm, self._memory, self._env = agent.algorithm, agent.memory, env
        self._slots = [agent.memory.tensors[k] for k in ("action", "reward", "terminated", "truncated")]
        horizon, n = self._slots[1].shape
        self._final = torch.zeros((horizon, n, *env.info.obs_shape))
        self._returns = torch.zeros((horizon, n), dtype=torch.float64)
        self._lengths = torch.zeros((horizon, n), dtype=torch.int64)
        self._run: Compiled | None = None

    def left(self) -> int:
        """Steps that can be played at once; 0 where the rollout is complete."""
        return min(self._memory.horizon - self._memory.filled, QUEUE)

    def compile(self) -> bool:
        """Whether it works; else the steps have to be played one by one."""
        try:
            args, _ = self._arguments(1)
            with torch.inference_mode(mode=False), torch.no_grad():
                self._run = compile_function(self._step, args, quick=True)
        except CompileError as e:
            logger.info("rollouts are not compiled: {}", e)
        return self._run is not None

    def _step(self, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One step of all envs; what came of it goes into its place in memory."""
        actor, held = self._algorithm.actor, len(self._env.held)
        n = len(actor.state())
        state, (obs, noise, env_noise, *slots) = args[n : n + held], args[n + held :]
        action = actor.pure(args[:n], obs, noise)[0]
        following, *made = self._env.transition(*state, action, env_noise)
        for slot, value in zip(slots, (following, action, *made), strict=True):
            slot.copy_(value)
        return ()

    def _arguments(self, steps: int) -> tuple[list[torch.Tensor], dict[int, torch.Tensor]]:
        """Arguments of one step, and by position what moves from step to step."""
        t, memory, env = self._memory.filled, self._memory, self._env
        noise = self._algorithm.noise
        chance = torch.stack([noise.next() for _ in range(steps)]) if self._run is not None else noise.like(steps)
        seen = memory.tensors["obs"]
        own = (*self._slots, self._final, self._returns, self._lengths)
        moving = [seen[t : t + steps], chance, env.noise(steps), seen[t + 1 : t + 1 + steps]]
        moving += [x[t : t + steps] for x in own]
        fixed = [*self._algorithm.actor.state(), *env.held]
        return [*fixed, *(x[0] for x in moving)], dict(enumerate(moving, len(fixed)))

    def play(self, steps: int) -> tuple[list[float], list[int]]:
        """Act and step so many times, at most `left`.

        Returns:
            returns and lengths of the episodes that ended
        """
        assert self._run is not None
        t, memory = self._memory.filled, self._memory
        # after a resumption what is to be acted on is not in memory yet
        memory.tensors["obs"][t] = torch.from_numpy(self._env.obs)
        args, rows = self._arguments(steps)
        self._run.loop(args, rows, steps)
        terminated, truncated = (x[t : t + steps].numpy() for x in self._slots[2:])
        done = terminated | truncated
        self._env.moved(steps, memory.tensors["obs"][t + steps].numpy().copy(), done)
        ended = np.nonzero(done)
        final: Any = None
        if len(ended[0]):
            final = self._final[t : t + steps].numpy()
        memory.advance(steps, truncated, final)
        if final is None:
            return [], []
        returns, lengths = (x[t : t + steps].numpy()[ended] for x in (self._returns, self._lengths))
        return returns.tolist(), lengths.tolist()


def plays_rollouts(spec: Spec) -> bool:
    """Whether rollouts of known length may be played in one call: it is compiled, and nobody has a say in between."""
    if spec.meta.distributed or not use_compile(spec.meta.compile, spec.env.max_frame) or compiler() is None:
        return False
    algorithm, memory = lookup("algorithm", spec.agent.algorithm.name), lookup("memory", spec.agent.memory.name)
    recurrent = getattr(lookup("net", spec.agent.net.type), "recurrent", False)
    return issubclass(algorithm, ActorCritic) and issubclass(memory, OnPolicyBatchReplay) and not recurrent


def training_env(run: Run, state: State | None) -> VecEnv:
    """The envs of a session.

    Compiled or not, drawn or not: a run goes on with the kind of env that it began with.

    Args:
        run: the session
        state: its checkpoint; None: it begins
    """
    spec = run.spec
    tensor = None if state is None else _is_tensor_state(state["env"])
    render = run.options.render and run.session == 0
    if render and tensor:
        logger.info("not drawn: this run began without --render, with an env that has no pictures")
    return make_env(
        spec.env,
        render="human" if render and not tensor else None,
        gamma=spec.agent.algorithm.gamma,
        threads=max(1, run.cores // parallel_sessions(spec.meta.max_session, run.cores)),
        whole=plays_rollouts(spec),
        tensor=tensor,
    )


def _is_tensor_state(state: State) -> bool:
    """Whether the saved state of envs, perhaps inside wrappers, is that of tensor envs."""
    return "held" in state or (isinstance(state.get("env"), dict) and _is_tensor_state(state["env"]))


def rollouts_for(agent: Agent, env: VecEnv) -> Rollouts | None:
    """What plays whole rollouts, where agent and env are of that kind and it can be compiled."""
    algorithm = agent.algorithm
    fit = (
        isinstance(env, TensorVec)
        and isinstance(algorithm, ActorCritic)
        and isinstance(agent.memory, OnPolicyBatchReplay)
        and algorithm.actor.compile
        and algorithm.notes is None
        and algorithm.recall is None
        and agent.device.type == "cpu"
    )
    if not fit:
        return None
    assert isinstance(env, TensorVec)
    made = Rollouts(agent, env)
    return made if made.compile() else None
