"""Rollouts of envs that live on a device: policy, env and memory talk there, and Python hears of it once a rollout."""

import torch
from torch import Tensor

from slm_lab.agent.algorithm.actor_critic import ActorCritic
from slm_lab.agent.memory.onpolicy import OnPolicyBatchReplay
from slm_lab.env.device import DeviceVec
from slm_lab.lib.graphs import Replayed


class DeviceRollouts:
    """Plays steps of the current rollout. On a GPU a whole one is a single CUDA graph, where the env allows it."""

    whole = True
    """Whether a rollout is played to its end before a row is written."""
    learned = None
    """It never learns by itself."""

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
        """Steps to be played at once, to pass that many frames by less than a step."""
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
        """Act and step that many times, at most `left`.

        Returns:
            returns and lengths of the episodes that ended
        """
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
