"""Memories that hand over whole episodes of the policy that acts."""

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from slm_lab.agent.memory.base import Memory, Owner, action_array
from slm_lab.agent.memory.returns import WithReturnReplaySpec
from slm_lab.lib.registry import register
from slm_lab.lib.stateful import State
from slm_lab.spec.model import MemorySpec, Unit
from slm_lab.types import Rollout, Step

FIRST_SIZE = 256
"""Vector steps there is room for at first."""


class Episode(NamedTuple):
    """One whole episode of L steps."""

    obs: NDArray[Any]
    """[L, *O]"""
    action: NDArray[Any]
    """[L, *A]"""
    reward: NDArray[np.float32]
    """[L]"""
    final_obs: NDArray[Any]
    """[*O] the true last observation"""
    terminated: bool
    """Or truncated."""


@register("memory")
class OnPolicyReplay(Memory):
    """At least `training_frequency` whole episodes, end to end as the rollout of one env: `[T+1, 1, *O]`, `[T, 1]`.

    With several envs an episode counts when it ends, and one that is unfinished when the others are handed over is not
    thrown away (short episodes would then be seen too often): its first steps are then of an older policy, by one
    update or a few.
    """

    Spec: ClassVar[type[MemorySpec]] = WithReturnReplaySpec
    on_policy = True
    fixed_size = False

    def __init__(self, memory_spec: Any, agent: Owner) -> None:
        super().__init__(memory_spec, agent)
        self._needed = agent.training_frequency
        self._episodes: list[Episode] = []
        self._t = 0
        self._begin = np.zeros(self.info.num_envs, np.int64)
        """Where the current episode of each env began."""
        self._allocate(FIRST_SIZE)

    def add(self, obs: NDArray[Any], action: NDArray[Any], step: Step) -> None:
        """Store one vector step: [N, *O], [N, *A] and the outcome."""
        if self._t == len(self._obs):
            self._make_room()
        t = self._t
        self._obs[t], self._action[t], self._reward[t] = obs, action, step.reward
        self._t = t + 1
        for n in np.flatnonzero(step.terminated | step.truncated).tolist():
            part = slice(self._begin[n], t + 1)
            self._episodes.append(
                Episode(
                    self._obs[part, n].copy(),
                    self._action[part, n].copy(),
                    self._reward[part, n].copy(),
                    step.final_obs[n].copy(),
                    bool(step.terminated[n]),
                )
            )
            self._begin[n] = t + 1

    def ready(self) -> bool:
        """Whether enough episodes have ended."""
        return len(self._episodes) >= self._needed

    def choose(self, episodes: list[Episode]) -> list[Episode]:
        """A hook: which of them to hand over, all here."""
        return episodes

    def sample(self) -> Rollout:
        """The episodes that have ended; they are forgotten."""
        episodes, self._episodes = self.choose(self._episodes), []
        last = np.cumsum([len(e.reward) for e in episodes]) - 1
        terminated = np.zeros((last[-1] + 1, 1), np.bool_)
        truncated = np.zeros_like(terminated)
        terminated[last, 0] = [e.terminated for e in episodes]
        truncated[last, 0] = [not e.terminated for e in episodes]
        cut = [i for i, e in enumerate(episodes) if not e.terminated]
        shape = (0, *self.info.obs_shape)
        final = np.stack([episodes[i].final_obs for i in cut]) if cut else np.zeros(shape, self.info.obs_dtype)
        obs = np.concatenate([*(e.obs for e in episodes), episodes[-1].final_obs[None]])
        tensor = torch.from_numpy
        return Rollout(
            obs=tensor(obs[:, None]),
            action=tensor(np.concatenate([e.action for e in episodes])[:, None]),
            reward=tensor(np.concatenate([e.reward for e in episodes])[:, None]),
            terminated=tensor(terminated),
            truncated=tensor(truncated),
            final_index=tensor(last[cut].astype(np.int64)),
            final_obs=tensor(final),
        )

    def state_dict(self) -> State:
        """Finished and current episodes."""
        return {
            "t": self._t,
            "begin": self._begin.tolist(),
            "size": len(self._obs),
            "steps": {k: torch.from_numpy(v[: self._t].copy()) for k, v in self._arrays().items()},
            "episodes": [
                {k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in e._asdict().items()}
                for e in self._episodes
            ],
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._t = int(state["t"])
        self._begin[:] = state["begin"]
        self._allocate(int(state["size"]))
        for key, value in self._arrays().items():
            value[: self._t] = state["steps"][key].numpy()
        names = ("obs", "action", "reward", "final_obs")
        self._episodes = [
            Episode._make([*(e[k].numpy().copy() for k in names), bool(e["terminated"])]) for e in state["episodes"]
        ]

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {"obs": self._obs, "action": self._action, "reward": self._reward}

    def _allocate(self, size: int) -> None:
        n = self.info.num_envs
        self._obs = np.zeros((size, n, *self.info.obs_shape), self.info.obs_dtype)
        self._action = action_array((size, n), self.info.action)
        self._reward = np.zeros((size, n), np.float32)

    def _make_room(self) -> None:
        """Drop the steps of finished episodes; grow if that frees less than half."""
        old, size, done = self._arrays(), len(self._obs), int(self._begin.min())
        self._allocate(size if done >= size // 2 else 2 * size)
        for key, value in self._arrays().items():
            value[: size - done] = old[key][done:]
        self._t -= done
        self._begin -= done


class OnPolicyCrossEntropySpec(MemorySpec):
    """Keys of OnPolicyCrossEntropy."""

    cross_entropy: Unit = 1.0
    """Of the episodes those are kept whose return is at least this quantile of their returns; 1 keeps all."""


@register("memory")
class OnPolicyCrossEntropy(OnPolicyReplay):
    """OnPolicyReplay that hands over the best episodes only: the cross-entropy method. Rubinstein 1999."""

    Spec = OnPolicyCrossEntropySpec

    def choose(self, episodes: list[Episode]) -> list[Episode]:
        """Those whose undiscounted return is at least the quantile."""
        if self.spec.cross_entropy == 1:
            return episodes
        returns = [float(e.reward.sum(dtype=np.float64)) for e in episodes]
        bar = np.quantile(returns, self.spec.cross_entropy)
        # a return that is not a number is kept, so that the update stops with an error
        return [e for e, ret in zip(episodes, returns, strict=True) if not ret < bar]
