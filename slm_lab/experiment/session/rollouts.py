"""Rollouts of tensor envs: policy and envs as one compiled step, and many steps as one call.

Of envs that live on a device policy, env and memory talk there, and Python hears of it once a rollout.
"""

from typing import Any

import torch
from loguru import logger
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.actor_critic import ActorCritic
from slm_lab.agent.algorithm.base import Algorithm
from slm_lab.agent.memory.base import action_array
from slm_lab.agent.memory.onpolicy import OnPolicyBatchReplay
from slm_lab.env.base import VecEnv
from slm_lab.env.device import DeviceVec
from slm_lab.env.make import make_env
from slm_lab.env.modes import prefers_tensor, tensor_class
from slm_lab.env.names import find
from slm_lab.env.tensor import QUEUE, TENSOR_ENVS, TensorVec
from slm_lab.experiment.session.resources import thread_share, use_compile
from slm_lab.experiment.session.run import Run
from slm_lab.lib.compile import Compiled, CompileError, compile_function
from slm_lab.lib.graphs import Replayed
from slm_lab.lib.native.build import compiler
from slm_lab.lib.registry import lookup
from slm_lab.lib.stateful import State
from slm_lab.spec.model import Spec
from slm_lab.types import Played, Stats


class Rollouts:
    """Plays steps, up to the next time to learn."""

    whole = False
    """Whether a rollout is played to its end before a row is written."""
    learned: Stats | None = None
    """Of the latest update, where `play` itself has learned."""

    def __init__(self, agent: Agent, env: TensorVec) -> None:
        self._algorithm, self._actor = agent.algorithm, agent.algorithm.actor
        self._each_step = agent.each_step
        self._memory, self._env = agent.memory, env
        n, shape = env.info.num_envs, env.info.obs_shape
        self._made = {
            "obs": torch.zeros((QUEUE + 1, n, *shape)),
            "action": torch.from_numpy(action_array((QUEUE, n), env.info.action)),
            "reward": torch.zeros((QUEUE, n)),
            "terminated": torch.zeros((QUEUE, n), dtype=torch.bool),
            "truncated": torch.zeros((QUEUE, n), dtype=torch.bool),
            "final_obs": torch.zeros((QUEUE, n, *shape)),
        }
        """As in Played, of as many steps as one call may make."""
        self._returns = torch.zeros((QUEUE, n), dtype=torch.float64)
        self._lengths = torch.zeros((QUEUE, n), dtype=torch.int64)
        self._arrays = [x.numpy() for x in self._made.values()]
        obs, *others = self._made.values()
        self._moving = [obs[:-1], obs[1:], *others, self._returns, self._lengths]
        """What moves on from step to step: observation, successor, and what `_step` writes after them."""
        self._run: Compiled | None = None

    def left(self, frames: int) -> int:
        """Steps to be played at once, to pass that many frames by less than a step; 0: act step by step."""
        if not self._algorithm.alike:
            return 0
        return min(self._memory.room, QUEUE, -(-frames // self._env.info.num_envs))

    def compile(self) -> bool:
        """Whether it works; else the steps have to be played one by one."""
        try:
            inputs = self._algorithm.inputs(1, example=True)
            args, rows = self._arguments(inputs, 1)
            args = [rows[i][0] if i in rows else t for i, t in enumerate(args)]
            with torch.inference_mode(mode=False), torch.no_grad():
                self._run = compile_function(self._step, args, quick=True)
        except CompileError as e:
            logger.info("rollouts are not compiled: {}", e)
        return self._run is not None

    def _step(self, *args: Tensor) -> tuple[Tensor, ...]:
        """One step of all envs; the outcome goes into its place."""
        n, held, moving = len(self._actor.state()), len(self._env.held), len(self._moving)
        state, (obs, *slots) = args[n : n + held], args[n + held : n + held + moving]
        env_noise, *inputs = args[n + held + moving :]
        action = self._actor.pure(args[:n], obs, *inputs)[0]
        following, *made = self._env.transition(*state, action, env_noise)
        for slot, value in zip(slots, (following, action, *made), strict=True):
            slot.copy_(value)
        return ()

    def _arguments(self, inputs: tuple[Tensor, ...], steps: int) -> tuple[list[Tensor], dict[int, Tensor]]:
        """All arguments of `_step`, and by position those that move on, which have a row for each step."""
        fixed = [*self._actor.state(), *self._env.held]
        moving = [*self._moving, self._env.noise(steps), *inputs]
        return [*fixed, *moving], dict(enumerate(moving, len(fixed)))

    def play(self, steps: int) -> tuple[list[float], list[int]]:
        """Act and step that many times, at most `left`.

        Returns:
            returns and lengths of the episodes that ended
        """
        assert self._run is not None
        self._arrays[0][0] = self._env.obs
        args, rows = self._arguments(self._algorithm.inputs(steps), steps)
        self._run.loop(args, rows, steps)
        self.learned = None
        return self._keep(steps)

    def _keep(self, steps: int) -> tuple[list[float], list[int]]:
        """Count the steps that were played; returns the returns and lengths of the episodes that ended."""
        obs, *others = self._arrays
        played = Played(obs[: steps + 1], *(x[:steps] for x in others))
        done = played.terminated | played.truncated
        self._env.moved(steps, obs[steps].copy(), done)
        self._memory.extend(played)
        if self._each_step:
            # an update sees the schedules of the last step before it, as where steps are taken one by one
            self._algorithm.set_frame(self._algorithm.frame + (steps - 1) * self._env.info.num_envs)
        if not done.any():
            return [], []
        returns, lengths = (x[:steps].numpy()[done] for x in (self._returns, self._lengths))
        return returns.tolist(), lengths.tolist()


class DeviceRollouts:
    """Plays steps of the current rollout. On a GPU a whole one is a single CUDA graph, where the env allows it."""

    whole = True
    learned = None
    """See Rollouts; it never learns by itself."""

    def __init__(self, algorithm: ActorCritic, memory: OnPolicyBatchReplay, env: DeviceVec) -> None:
        self._algorithm, self._memory, self._env = algorithm, memory, env
        device = algorithm.setting.device
        memory.place_(device)
        t, n = memory.tensors["reward"].shape
        assert memory.successors is not None
        places = [memory.tensors[k] for k in ("reward", "terminated", "truncated")]
        self._ret = torch.zeros((t, n), dtype=torch.float64, device=device)
        self._length = torch.zeros((t, n), dtype=torch.int64, device=device)
        self._slots = [*places, memory.successors, self._ret, self._length]
        """[T, N, ...] for the fields of `Moved` after its observations."""
        self._noise: Tensor = algorithm.noise.ahead(t, example=True).to(device)
        self._replayed = Replayed(lambda: self._steps(0, t), device) if env.capturable else None

    def left(self, frames: int) -> int:
        """See Rollouts."""
        return min(self._memory.room, -(-frames // self._env.info.num_envs))

    def _steps(self, begin: int, end: int) -> None:
        """Steps [begin, end) of the rollout, without reading their outcomes."""
        obs = self._memory.tensors["obs"]
        obs[begin].copy_(self._env.seen)
        for t in range(begin, end):
            action = self._algorithm.choose(obs[t], self._noise[t]).action
            self._memory.tensors["action"][t].copy_(action)
            following, *made = self._env.advance(action)
            obs[t + 1].copy_(following)
            for slot, value in zip(self._slots, made, strict=True):
                slot[t].copy_(value)

    def play(self, steps: int) -> tuple[list[float], list[int]]:
        """See Rollouts."""
        begin = self._memory.horizon - self._memory.room
        rows = slice(begin, begin + steps)
        with torch.no_grad():
            self._noise[rows].copy_(self._algorithm.noise.ahead(steps))
            if self._replayed is not None and steps == self._memory.horizon:
                self._replayed()
            else:
                self._steps(begin, begin + steps)
        self._memory.advance(steps)
        _, terminated, truncated, *_ = self._slots
        ended = (terminated[rows] | truncated[rows]).flatten().nonzero().squeeze(1)
        found = torch.stack([x[rows].flatten()[ended].double() for x in (self._ret, self._length)])
        returns, lengths = found.tolist()
        return returns, [int(x) for x in lengths]


def plays_rollouts(spec: Spec, *, on_device: bool = False) -> bool:
    """Whether several steps may be played in one call: nobody has a say in between, and it can be done.

    On a device, where the envs live, no compiler is needed.
    """
    if spec.meta.distributed:
        return False
    if not on_device and (not use_compile(spec.meta.compile, spec.env.max_frame, spec.agent.net) or compiler() is None):
        return False
    algorithm, memory = lookup("algorithm", spec.agent.algorithm.name), lookup("memory", spec.agent.memory.name)
    net: Any = spec.agent.net
    plain = not getattr(lookup("net", net.type), "recurrent", False) and getattr(net, "noisy_std", None) is None
    if on_device and not (issubclass(algorithm, ActorCritic) and issubclass(memory, OnPolicyBatchReplay)):
        # they would step envs on a device through the host
        return False
    return bool(_acts_by_inputs(algorithm) and memory.fixed_size and plain)


def why_no_batch(spec: Spec) -> str | None:
    """What keeps the sessions of a trial from being computed together: only those of tensor envs are."""
    found = find(spec.env.name)
    if prefers_tensor(found, spec.env, whole=True):
        return None
    if tensor_class(found) is None:
        return f"there is no tensor env for {found.id} (there is for: {', '.join(sorted(TENSOR_ENVS))})"
    return f"needs env.vectorization 'tensor' here (got '{spec.env.vectorization}')"


def _acts_by_inputs(algorithm: type[Algorithm]) -> bool:
    """Whether `act` and `inputs` are of one class, or `inputs` of a later one: else `act` may do something else."""
    first = next(c for c in algorithm.__mro__ if "act" in vars(c) or "inputs" in vars(c))
    return "inputs" in vars(first) and first is not Algorithm


def training_env(run: Run, state: State | None, device: str = "cpu") -> VecEnv:
    """The envs of a session; those of tensors live on the device of the agent.

    Compiled or not, drawn or not: a resumed run keeps the kind of env that it started with, which its checkpoint tells.
    """
    spec = run.spec
    tensor = None if state is None else _is_tensor_state(state["env"])
    render = run.options.render and run.session == 0
    if render and tensor:
        logger.info("not drawn: this run was started without --render, with an env that has no pictures")
    return make_env(
        spec.env,
        render="human" if render and not tensor else None,
        gamma=spec.agent.algorithm.gamma,
        threads=thread_share(spec, run.cores),
        whole=plays_rollouts(spec, on_device=device != "cpu"),
        tensor=tensor,
        device=device,
    )


def _is_tensor_state(state: State) -> bool:
    """Whether the saved state of envs, perhaps inside wrappers, is that of tensor envs."""
    return "held" in state or (isinstance(state.get("env"), dict) and _is_tensor_state(state["env"]))


def rollouts_for(agent: Agent, env: VecEnv) -> Rollouts | DeviceRollouts | None:
    """What plays several steps at once, where agent and env are of that kind; None: steps are taken one by one."""
    algorithm, memory = agent.algorithm, agent.memory
    if algorithm.recall is not None or algorithm.notes is not None:
        return None
    if isinstance(env, DeviceVec):
        if not isinstance(algorithm, ActorCritic) or not isinstance(memory, OnPolicyBatchReplay):
            return None
        return DeviceRollouts(algorithm, memory, env)
    actor = getattr(algorithm, "actor", None)
    if not isinstance(env, TensorVec) or actor is None or not actor.compile or agent.device.type != "cpu":
        return None
    # knows this module
    from slm_lab.experiment.session.cycles import Cycles, learns_in_cycles

    for kind in (Cycles, Rollouts) if learns_in_cycles(agent, env) else (Rollouts,):
        made = kind(agent, env)
        if made.compile():
            return made
    return None


def rollouts_of(spec: Spec, agent: Agent, env: VecEnv) -> Rollouts | DeviceRollouts | None:
    """`rollouts_for`, where a run of this spec lets several steps be played at once."""
    return rollouts_for(agent, env) if plays_rollouts(spec, on_device=isinstance(env, DeviceVec)) else None
