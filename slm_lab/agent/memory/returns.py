"""Actions with the return to their episode's end: the memory that self-imitation learns from."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from slm_lab.agent.memory.sum_tree import NO_PRIORITIES, Priorities
from slm_lab.functional.returns import discounted_returns
from slm_lab.lib.stateful import State
from slm_lab.spec.model import Count, MemorySpec, NonNegative, Unit
from slm_lab.types import Rollout


class WithReturnReplaySpec(MemorySpec):
    """Keys of an on-policy memory, with those of the replay that SIL and PPOSIL keep beside it."""

    sil_replay_name: Literal["Replay", "PrioritizedReplay"] = "Replay"
    """SIL: how the replay is drawn from, uniformly or by priority. The keys marked SIL are for SIL and PPOSIL alone."""
    batch_size: Count = 32
    """SIL: steps of a batch."""
    max_size: Count = 10_000
    """SIL: steps kept; the oldest go first."""
    use_cer: bool = False
    """SIL: the steps since the last batch take the end of the next one."""
    alpha: Unit = 0.6
    """SIL, prioritized: how much priorities count."""
    epsilon: NonNegative = 1e-4
    """SIL, prioritized: added to each priority, so that no step is forgotten."""


class Returned(NamedTuple):
    """A batch drawn from a ReturnReplay."""

    obs: Tensor
    """[B, *O]"""
    action: Tensor
    """[B, *A]"""
    ret: Tensor
    """[B] discounted return from there to the episode's end"""
    place: Tensor
    """[B] int64, where in the memory"""


class ReturnReplay:
    """A ring of steps with their returns. A step enters when its episode has ended: its return is known then.

    Bytes: `max_size * (size of obs + size of action + 4)`, and the current episodes.
    """

    def __init__(self, spec: WithReturnReplaySpec, gamma: float, generator: Generator) -> None:
        self.spec = spec
        self._gamma = gamma
        self._generator = generator
        self._under_way: list[list[tuple[Tensor, ...]]] = []
        """Per env: obs, action, reward of the steps of its episode so far, a piece for each rollout."""
        self._ring: tuple[Tensor, ...] = ()
        """obs, action, ret [max_size, ...]"""
        self._head = self._size = self._fresh = 0
        prioritized = spec.sil_replay_name == "PrioritizedReplay"
        self._tree = Priorities(spec.max_size, spec.alpha, spec.epsilon) if prioritized else None

    def __len__(self) -> int:
        """Steps stored."""
        return self._size

    def add(self, rollout: Rollout, final_value: Tensor) -> None:
        """Continue the current episodes, and store those that end.

        Args:
            rollout: [T, N, ...]
            final_value: [K], values of the successors `rollout.final_obs`, to bootstrap from at a time limit
        """
        t, n = rollout.reward.shape
        values = rollout.reward.new_zeros(t * n)
        values[rollout.final_index] = final_value
        values = values.view(t, n)
        if len(self._under_way) != n:
            self._under_way = [[] for _ in range(n)]
        last = (rollout.terminated | rollout.truncated).cpu().numpy()
        for i in range(n):
            ends = np.flatnonzero(last[:, i])
            start = int(ends[-1]) + 1 if len(ends) else 0
            if start:
                self._end_episodes(i, rollout, values, start)
            if start < t:
                part = slice(start, t)
                steps = (rollout.obs[part, i], rollout.action[part, i], rollout.reward[part, i])
                self._under_way[i].append(tuple(x.cpu().clone() for x in steps))

    def _end_episodes(self, i: int, rollout: Rollout, values: Tensor, stop: int) -> None:
        """Store what env i did up to its last episode's end, before step `stop`."""
        now = (rollout.obs[:stop, i], rollout.action[:stop, i], rollout.reward[:stop, i])
        pieces = [*self._under_way[i], tuple(x.cpu() for x in now)]
        self._under_way[i] = []
        obs, action, reward = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        # of the steps before this rollout none ended an episode
        ends = [rollout.terminated[:stop, i], rollout.truncated[:stop, i], values[:stop, i]]
        early = len(reward) - stop
        terminated, truncated, final = (torch.cat([x.new_zeros(early), x]).cpu()[:, None] for x in ends)
        none = reward.new_zeros(1)
        ret = discounted_returns(reward[:, None], terminated, truncated, none, final, self._gamma)
        self._store(obs, action, ret.squeeze(-1))

    def _store(self, *rows: Tensor) -> None:
        size = self.spec.max_size
        if not self._ring:
            self._ring = tuple(x.new_zeros((size, *x.shape[1:])) for x in rows)
        count = min(len(rows[0]), size)
        places = (self._head + torch.arange(count)) % size
        for ring, x in zip(self._ring, rows, strict=True):
            ring[places] = x[-count:]
        if self._tree is not None:
            self._tree.update(places.numpy(), self._tree.highest)
        self._head = (self._head + count) % size
        self._size = min(self._size + count, size)
        self._fresh = min(self._fresh + count, size)

    def sample(self) -> Returned:
        """A batch; the memory must not be empty."""
        b = self.spec.batch_size
        if self._tree is None:
            index = torch.randint(self._size, (b,), generator=self._generator)
        else:
            index = torch.from_numpy(self._tree.draw(b, self._generator))
        if self.spec.use_cer and self._fresh:
            newest = min(self._fresh, b)
            index[-newest:] = (self._head - 1 - torch.arange(newest)) % self.spec.max_size
        self._fresh = 0
        obs, action, ret = (x.index_select(0, index) for x in self._ring)
        return Returned(obs, action, ret, index)

    def update_priority(self, index: Tensor, gain: Tensor) -> None:
        """Set priorities `(gain + epsilon)^alpha`, where they count.

        Args:
            index: [B] int64, as `sample` gave it
            gain: [B], (R - V)+
        """
        if self._tree is not None:
            self._tree.tell(index, gain)

    def state_dict(self) -> State:
        """Everything stored."""
        return {
            "under_way": [[list(piece) for piece in pieces] for pieces in self._under_way],
            "ring": [x[: self._size].clone() for x in self._ring],
            "head": self._head,
            "size": self._size,
            "fresh": self._fresh,
            **(NO_PRIORITIES if self._tree is None else self._tree.state_dict()),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._under_way = [[tuple(piece) for piece in pieces] for pieces in state["under_way"]]
        self._head, self._size, self._fresh = int(state["head"]), int(state["size"]), int(state["fresh"])
        self._ring = tuple(x.new_zeros((self.spec.max_size, *x.shape[1:])) for x in state["ring"])
        for ring, x in zip(self._ring, state["ring"], strict=True):
            ring[: self._size] = x
        if self._tree is not None:
            self._tree.load_state_dict(state)
