"""Replay: the memory of off-policy algorithms. Lin 1992; Mnih et al. 2013, arXiv:1312.5602."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.agent.memory.base import Memory, Owner, action_array
from slm_lab.agent.memory.mirror import mirrors, to_device
from slm_lab.agent.memory.obs_store import Index, PlainObs, StackedObs, look_up, looks_stacked
from slm_lab.agent.memory.outcomes import Outcomes
from slm_lab.lib.errors import LabError
from slm_lab.lib.registry import register
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.spec.effect import overruled
from slm_lab.spec.model import Count, MemorySpec
from slm_lab.types import Normalizer, Played, Step, Transition


class ReplaySpec(MemorySpec):
    """Keys of Replay."""

    batch_size: Count
    """B, transitions of a batch."""
    max_size: Count
    """Transitions kept; the oldest go first. Rounded down to whole vector steps."""
    use_cer: bool = False
    """Combined experience replay (arXiv:1712.01275): transitions newer than the last batch take the end of the next."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where batches are gathered. With the agent on a GPU, cuda keeps observations there too, beside those on the host;
    auto does so where they take at most half of its free memory. normalize_obs and normalize_reward keep it at cpu."""


@register("memory")
class Replay(Memory):
    """A ring of vector steps, from which transitions are drawn uniformly and with replacement.

    The successor of an observation is the next row's, so each observation is kept once; only where an episode ended is
    its true last observation kept beside the ring. Bytes per transition: `size of obs + size of action + 8` (reward,
    end), and for each episode end another `size of obs` (up to a quarter of them in reserve). Observations that are
    stacks of k frames (uint8, [k, H, W]) are kept as single frames: `H * W + size of action + 13` bytes, and two
    stacks for each episode. Arrays are taken from the system as they fill.

    Where running statistics normalize observations or rewards, the memory keeps them raw. A batch is normalized when it
    is drawn, by the statistics of that moment: old and new observations are on the same scale.

    Training is due once for each multiple of `training_frequency` that the number of transitions seen passes, from
    `training_start_step` on. A vector step that passes several has as many trainings: their number does not depend on
    `num_envs`.
    """

    Spec: ClassVar[type[ReplaySpec]] = ReplaySpec
    on_policy = False
    fixed_size = True
    prioritized: ClassVar[bool] = False
    """Whether `update_priority` does anything."""

    def __init__(self, memory_spec: Any, agent: Owner) -> None:
        super().__init__(memory_spec, agent)
        self._n = agent.info.num_envs
        self._steps = max(memory_spec.max_size // self._n, 1)
        """Vector steps kept."""
        if memory_spec.batch_size > memory_spec.max_size:
            why = f"a memory of max_size {memory_spec.max_size:,} never holds a batch of {memory_spec.batch_size:,}"
            overruled(memory_spec, "batch_size", why)
        self._agent = agent
        self._generator = torch.Generator().manual_seed(derive(agent.seed, 2))
        self._device = agent.device
        self._mirrored = False
        """Whether the store has a mirror on the device."""
        self._batch = int(memory_spec.batch_size)
        self._ones = torch.ones(self._batch)
        self._head = 0
        """Row that is written next; its observation is there already."""
        self._size = 0
        """Rows filled with transitions."""
        self._next: bytes | None = None
        """The observation that must be acted on next."""
        self._fresh = 0
        """Vector steps since the last batch."""
        self._trained_at = 0
        """Transitions seen when the last batch was drawn."""
        self.seen = 0
        """Transitions ever stored."""
        self._store: PlainObs | StackedObs | None = None
        self._normalizer: Normalizer | None = None
        """Of what is stored; None: it is handed out as it is."""

    def __len__(self) -> int:
        """Transitions stored."""
        return self._size * self._n

    @property
    def capacity(self) -> int:
        """Transitions it can hold."""
        return self._steps * self._n

    def add(self, obs: NDArray[Any], action: NDArray[Any], step: Step) -> None:
        """Store one vector step: [N, *O], [N, *A] and the outcome."""
        if step.raw is not None:
            obs, step, self._normalizer = step.raw
        store = self._store or self._allocate(obs.dtype.name, stacked=looks_stacked(obs, step.final_obs))
        head = self._head
        if obs.tobytes() != self._next:
            self._begin(obs)
        self._action[head] = action
        self._outcomes.reward[head] = step.reward
        if self._size == self._steps:
            self._outcomes.clear(head)
        if 1 in step.terminated.tobytes() or 1 in step.truncated.tobytes():
            self._outcomes.close(head, step)
        self._head = head = (head + 1) % self._rows
        store.put(head, step.obs)
        self._moved(1, step.obs)

    def extend(self, played: Played) -> None:
        """Store several vector steps, at most `room` of them."""
        obs = played.obs
        store = self._store or self._allocate(obs.dtype.name, stacked=looks_stacked(obs[0], played.final_obs[0]))
        if isinstance(store, StackedObs):
            super().extend(played)
            return
        count = len(played.reward)
        if obs[0].tobytes() != self._next:
            self._begin(obs[0])
        rows = (self._head + np.arange(count)) % self._rows
        self._action[rows] = played.action
        self._outcomes.reward[rows] = played.reward
        self._outcomes.clear(rows)
        done = played.terminated | played.truncated
        if done.any():
            for k, step in enumerate(played.steps()):
                if done[k].any():
                    self._outcomes.close(int(rows[k]), step)
        self._head = (self._head + count) % self._rows
        store.put((rows + 1) % self._rows, obs[1:])
        self._moved(count, obs[-1])

    def _moved(self, count: int, obs: NDArray[Any]) -> None:
        """So many rows were written; the observation is to be acted on next."""
        self._next = obs.tobytes()
        self._size = min(self._size + count, self._steps)
        self._fresh += count
        self.seen += count * self._n

    @property
    def room(self) -> int:
        """Vector steps until training is due; no more than it keeps."""
        return max(1, min(-(-(self.first_due - self.seen) // self._n), self._steps))

    def ready(self) -> bool:
        """Whether training is due: not again before the next vector step once a batch was drawn."""
        return len(self.due()) > 0

    def due(self) -> range:
        """Frames at which trainings became due since the last batch, one each; oldest first."""
        return range(self.first_due, self.seen + 1, self._agent.training_frequency)

    @property
    def first_due(self) -> int:
        """Frame of the first training since the last batch."""
        every = self._agent.training_frequency
        return (max(self._trained_at, self._agent.training_start_step) // every + 1) * every

    def sample(self, steps: int = 1, gamma: float = 1.0) -> Transition:
        """A batch [B, ...]; the memory keeps what it gives.

        Args:
            steps: n, rewards that are summed up; fewer where the episode ends or the memory knows no more
            gamma: discount per step
        """
        index = self._draw()
        if self.spec.use_cer:
            newest = min(self._fresh * self._n, self._batch, len(self))
            if newest:
                index[-newest:] = (self._head * self._n - 1 - np.arange(newest)) % self._total
        self.drew()
        batch = self._take(index, steps, gamma)
        return batch if self._device.type == "cpu" else Transition(*(to_device(t, self._device) for t in batch))

    def goes_on(self, obs: NDArray[Any]) -> bool:
        """Whether observations [N, *O] that are acted on next follow on what is stored, each kept as it is."""
        return isinstance(self._store, PlainObs) and self._normalizer is None and obs.tobytes() == self._next

    def draw_ahead(self, rounds: int, steps: int, batches: int) -> tuple[Transition, Index]:
        """What `sample` would return in K rounds, each of which stores `steps` steps and then draws I batches.

        Returns:
            transitions [K * I * B, ...]; and [K, I, B], which of those yet to be stored belongs there, from 0 on;
            negative: none
        """
        drawn = []
        for k in range(1, rounds + 1):
            size = min(self._size + k * steps, self._steps)
            behind = (k * steps - size) * self._n
            count = size * self._n, (self._batch,)
            drawn += [torch.randint(*count, generator=self._generator).numpy() + behind for _ in range(batches)]
        missing = np.stack(drawn)
        places = (np.where(missing < 0, missing, -self._n) + self._head * self._n) % self._total
        return self._take(places.ravel()), missing.reshape(rounds, batches, -1)

    def drew(self) -> None:
        """Note that a batch was drawn."""
        self._fresh = 0
        self._trained_at = self.seen

    def received(self) -> dict[str, list[NDArray[Any]]]:
        """Arrays of the env's data, by name; places that hold nothing hold zeros, or what was there before."""
        if self._store is None:
            return {}
        outcomes = self._outcomes
        return {"observations": [*self._store.arrays, outcomes.pool.array], "rewards": [outcomes.reward]}

    def update_priority(self, index: Tensor, error: Tensor) -> None:
        """Update the priorities of these transitions by their errors, [B] each; a uniform memory ignores them."""

    def state_dict(self) -> State:
        """Everything stored, and the state of the random generator."""
        state: State = {
            "head": self._head,
            "size": self._size,
            "fresh": self._fresh,
            "trained_at": self._trained_at,
            "seen": self.seen,
            "generator": self._generator.get_state(),
            "arrays": None,
        }
        if self._store is not None:
            rows = self._rows if self._size == self._steps else self._head + 1
            state["arrays"] = {
                "raw": self.info.normalized,
                "stacked": isinstance(self._store, StackedObs),
                "obs": self._store.state_dict(rows),
                "action": torch.from_numpy(self._action[:rows].copy()),
                **self._outcomes.state_dict(rows),
            }
        return state

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self._head, self._size, self._fresh = int(state["head"]), int(state["size"]), int(state["fresh"])
        self._trained_at, self.seen = int(state["trained_at"]), int(state["seen"])
        self._generator.set_state(state["generator"])
        self._store, self._next = None, None
        arrays = state["arrays"]
        if arrays is None:
            return
        if self.info.normalized and not arrays.get("raw"):
            raise LabError(
                "agent.memory: the checkpoint is of an older version: its replay memory holds observations and rewards "
                "that are normalized already, each by the statistics of its own time. Start a new run; it can begin "
                "from this one's weights with --from"
            )
        store = self._allocate(str(arrays["final"]["array"].numpy().dtype), stacked=arrays["stacked"])
        store.load_state_dict(arrays["obs"])
        self._outcomes.load_state_dict(arrays)
        self._action[: len(arrays["action"])] = arrays["action"].numpy()
        self._next = store.take(self._row(self._head)).tobytes()

    def _allocate(self, obs_dtype: str, *, stacked: bool) -> PlainObs | StackedObs:
        info, n = self.info, self._n
        make = StackedObs if stacked else PlainObs
        # one row for the newest successor, and those that the oldest stack reaches back to
        self._rows = self._steps + (info.obs_shape[0] if stacked else 1)
        self._total = self._rows * n
        self._store = make(self._rows, n, info.obs_shape, obs_dtype)
        size = sum(array.nbytes for array in self._store.arrays)
        self._mirrored = mirrors(self.spec.device, self._device, size, normalized=info.normalized)
        self._action = action_array((self._rows, n), info.action)
        self._flat_action = self._action.reshape(self._total, *self._action.shape[2:])
        self._outcomes = Outcomes(self._rows, n, info.obs_shape, obs_dtype)
        return self._store

    def _row(self, row: int) -> Index:
        return np.arange(row * self._n, (row + 1) * self._n)

    def _begin(self, obs: NDArray[Any]) -> None:
        """What is acted on is not what the last step gave (or there was none): the env was reset from outside."""
        assert self._store is not None
        if self._size:
            successor = self._store.take(self._row(self._head))
            self._outcomes.cut((self._head - 1) % self._rows, successor, obs)
        self._store.put(self._head, obs)

    def _oldest(self) -> int:
        """First row that holds a transition."""
        return (self._head - self._size) % self._rows

    def _draw(self) -> Index:
        """Places of a batch, [B]."""
        index: Index = torch.randint(len(self), (self._batch,), generator=self._generator).numpy()
        oldest = self._oldest()
        if oldest:
            index += oldest * self._n
            index %= self._total
        return index

    def _weight(self, index: Index) -> Tensor:
        """Importance weights of a batch, [B] f32."""
        return self._ones[: len(index)]

    def _take(self, index: Index, steps: int = 1, gamma: float = 1.0) -> Transition:
        assert self._store is not None
        newest = (self._head - 1) % self._rows
        reward, last, terminated, apart, final = self._outcomes.look_up(index, steps, gamma, newest, self._normalizer)
        next_index = last + self._n
        next_index %= self._total
        tensor = torch.from_numpy
        obs, next_obs = look_up(self._store, index, next_index, apart, final, self._device if self._mirrored else None)
        if self._normalizer is not None:
            obs, next_obs = (tensor(self._normalizer.normalize_obs(x.numpy())) for x in (obs, next_obs))
        return Transition(
            obs=obs,
            action=tensor(self._flat_action.take(index, 0)),
            reward=tensor(reward),
            next_obs=next_obs,
            terminated=tensor(terminated),
            index=tensor(index),
            weight=self._weight(index),
        )
