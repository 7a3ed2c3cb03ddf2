"""Memories of the policy that acts: filled, handed over once, emptied."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.agent.memory.base import Memory, Owner, action_array
from slm_lab.agent.memory.returns import WithReturnReplaySpec
from slm_lab.lib.registry import register
from slm_lab.lib.stateful import State
from slm_lab.types import Played, Rollout, Step


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """[T, N, *O]. Channels of images are innermost, as convolutions prefer: transposed once, not in every epoch."""
    if len(shape) != 5:
        return torch.zeros(shape, dtype=dtype)
    t, n, c, h, w = shape
    return torch.zeros((t, n, h, w, c), dtype=dtype).movedim(-1, 2)


@register("memory")
class OnPolicyBatchReplay(Memory):
    """T vector steps of N envs, T being the algorithm's training frequency.

    Bytes: about `(T + 1) * N * (size of obs + size of action + 6)`.
    """

    Spec = WithReturnReplaySpec
    on_policy = True
    fixed_size = True

    def __init__(self, memory_spec: WithReturnReplaySpec, agent: Owner) -> None:
        super().__init__(memory_spec, agent)
        info, self.horizon = agent.info, agent.training_frequency
        t, n = self.horizon, info.num_envs
        obs_dtype = torch.from_numpy(np.zeros(0, info.obs_dtype)).dtype
        self.tensors: dict[str, Tensor] = {
            "obs": _zeros((t + 1, n, *info.obs_shape), obs_dtype),
            "action": torch.from_numpy(action_array((t, n), info.action)),
            "reward": torch.zeros((t, n), dtype=torch.float32),
            "terminated": torch.zeros((t, n), dtype=torch.bool),
            "truncated": torch.zeros((t, n), dtype=torch.bool),
        }
        """Everything, by name; of `obs` there is a row more."""
        views = {k: v.numpy() for k, v in self.tensors.items()}
        self._obs, self._action, self._reward = views["obs"], views["action"], views["reward"]
        self._terminated, self._truncated = views["terminated"], views["truncated"]
        self._final: list[tuple[int, NDArray[Any]]] = []
        self.successors: Tensor | None = None
        """[T, N, *O] the true successors of all steps, where the rollout is on a device; None: `_final` has them."""
        self._t = 0

    def place_(self, device: torch.device) -> None:
        """Move to a device: steps are written into `tensors` and `successors`, and counted by `advance`."""
        self.tensors = {k: v.to(device) for k, v in self.tensors.items()}
        t, n = self.tensors["reward"].shape
        self.successors = torch.zeros_like(self.tensors["obs"][:t])
        for i, obs in self._final:
            self.successors[i // n, i % n] = torch.from_numpy(obs).to(device)
        self._final = []

    def add(self, obs: NDArray[Any], action: NDArray[Any], step: Step) -> None:
        """Store one vector step: [N, *O], [N, *A] and the outcome."""
        t = self._t
        self._store_obs(t, obs)
        self._action[t] = action
        self._reward[t] = step.reward
        self._terminated[t] = step.terminated
        self._truncated[t] = step.truncated
        if step.episode_return:
            for n in np.flatnonzero(step.truncated & ~step.terminated):
                self._final.append((t * self.info.num_envs + int(n), step.final_obs[n].copy()))
        self._t = t + 1
        if self._t == self.horizon:
            self._store_obs(self._t, step.obs)

    def _store_obs(self, t: int, obs: NDArray[Any]) -> None:
        if self._obs.ndim == 5:
            # torch turns images in a third of the time that numpy takes
            self.tensors["obs"][t].copy_(torch.from_numpy(obs))
        else:
            self._obs[t] = obs

    def extend(self, played: Played) -> None:
        """Store several vector steps, at most `room` of them."""
        begin, end = self._t, self._t + len(played.reward)
        self._obs[begin : end + 1] = played.obs
        self._action[begin:end] = played.action
        self._reward[begin:end] = played.reward
        self._terminated[begin:end] = played.terminated
        self._truncated[begin:end] = played.truncated
        for k, n in np.argwhere(played.truncated & ~played.terminated):
            self._final.append((int((begin + k) * self.info.num_envs + n), played.final_obs[k, n].copy()))
        self._t = end

    @property
    def room(self) -> int:
        """Vector steps until the rollout is complete."""
        return self.horizon - self._t

    def advance(self, steps: int) -> None:
        """Take note of steps that were written into `tensors` and `successors`."""
        self._t += steps

    def ready(self) -> bool:
        """Whether T steps are stored."""
        return self._t == self.horizon

    def sample(self) -> Rollout:
        """The rollout, in the memory's own tensors: use it before the next `add`. The memory is empty afterwards."""
        if self.successors is not None:
            self._t = 0
            at = (self.tensors["truncated"] & ~self.tensors["terminated"]).flatten().nonzero().squeeze(1)
            return Rollout(**self.tensors, final_index=at, final_obs=self.successors.flatten(0, 1)[at])
        index = torch.tensor([i for i, _ in self._final], dtype=torch.int64)
        shape = (0, *self.info.obs_shape)
        final = np.stack([o for _, o in self._final]) if self._final else np.zeros(shape, self._obs.dtype)
        self._final = []
        self._t = 0
        return Rollout(**self.tensors, final_index=index, final_obs=torch.from_numpy(final))

    def state_dict(self) -> State:
        """The steps stored so far."""
        steps = {k: v[: self._t].cpu().clone() for k, v in self.tensors.items()}
        final = [(i, torch.from_numpy(o.copy())) for i, o in self._final]
        if self.successors is not None:
            at = (steps["truncated"] & ~steps["terminated"]).flatten().nonzero().squeeze(1)
            found = self.successors[: self._t].flatten(0, 1)[at.to(self.successors.device)].cpu()
            final = list(zip(at.tolist(), found.unbind(), strict=True))
        return {"t": self._t, "steps": steps, "final_index": [i for i, _ in final], "final_obs": [o for _, o in final]}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._t = int(state["t"])
        for key, value in state["steps"].items():
            self.tensors[key][: self._t] = value
        finals = zip(state["final_index"], state["final_obs"], strict=True)
        self._final = [(int(i), o.numpy().copy()) for i, o in finals]
