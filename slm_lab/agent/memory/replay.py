"""Replay: the memory of algorithms that learn from what any policy did. Lin 1992; Mnih et al. 2013, arXiv:1312.5602."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.agent.memory.base import Memory, Owner, action_array
from slm_lab.agent.memory.mirror import mirrors, to_device
from slm_lab.agent.memory.obs_store import Index, PlainObs, Pool, StackedObs, look_up, looks_stacked
from slm_lab.lib.errors import LabError
from slm_lab.lib.registry import register
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.spec.effect import overruled
from slm_lab.spec.model import Count, MemorySpec
from slm_lab.types import Floats, Normalizer, Played, Step, Transition

CUT = -2
"""An end of an episode that is no true end, behind which the next row's observation is the successor all the same."""


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
    its true last observation kept beside the ring. Bytes a transition: `size of obs + size of action + 8` (reward,
    end), and for each episode end another `size of obs` (up to a quarter of them in reserve). Observations that are
    stacks of k frames (uint8, [k, H, W]) are kept as single frames: `H * W + size of action + 13` bytes, and two
    stacks for each episode. Arrays are taken from the system as they fill.

    Where running statistics normalize observations or rewards, the memory keeps them raw. A batch is normalized when it
    is drawn, by the statistics of that moment: what was seen long ago is on the scale of what is seen now.

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
        self._asked: str = memory_spec.device
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

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; 0 before the first step."""
        if self._store is None:
            return 0
        own = self._action.nbytes + self._reward.nbytes + self._end.nbytes
        return own + self._store.nbytes + self._final.array.nbytes

    def add(self, obs: NDArray[Any], action: NDArray[Any], step: Step) -> None:
        """Store one vector step: [N, *O], [N, *A] and what came of it."""
        if step.raw is not None:
            obs, step, self._normalizer = step.raw
        if self._store is None:
            self._allocate(obs.dtype.name, stacked=looks_stacked(obs, step.final_obs))
        store, head = self._store, self._head
        assert store is not None
        if obs.tobytes() != self._next:
            self._begin(obs)
        self._action[head] = action
        self._reward[head] = step.reward
        end = self._end[head]
        if self._size == self._steps:
            self._forget(end)
        end[:] = 0
        if 1 in step.terminated.tobytes() or 1 in step.truncated.tobytes():
            self._close(end, step)
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
        self._reward[rows] = played.reward
        self._forget(self._end[rows])
        self._end[rows] = 0
        done = played.terminated | played.truncated
        if done.any():
            for k, step in enumerate(played.steps()):
                if done[k].any():
                    self._close(self._end[rows[k]], step)
        self._head = (self._head + count) % self._rows
        store.put((rows + 1) % self._rows, obs[1:])
        self._moved(count, obs[-1])

    def _close(self, end: NDArray[np.int32], step: Step) -> None:
        """Write down in a row of `_end` which episodes the step has ended."""
        end += step.terminated
        self._keep_final(end, step.final_obs, step.obs)
        end[(end == 0) & step.truncated] = CUT

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
        """What `sample` would give in K rounds, in each of which so many steps are stored and I batches drawn then.

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
        """Arrays of what came from the env, by name; places that hold nothing hold zeros, or what was there before."""
        if self._store is None:
            return {}
        return {"observations": [*self._store.arrays, self._final.array], "rewards": [self._reward]}

    def update_priority(self, index: Tensor, error: Tensor) -> None:
        """Tell how wrong the predictions for these transitions were, [B] each; a uniform memory does not care."""

    def state_dict(self) -> State:
        """Everything stored, and where chance stands."""
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
                "final": self._final.state_dict(),
                **{k: torch.from_numpy(v[:rows].copy()) for k, v in self._named().items()},
            }
        return state

    def load_state_dict(self, state: State) -> None:
        """Become what `state_dict` said."""
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
        self._final.load_state_dict(arrays["final"])
        for key, value in self._named().items():
            value[: len(arrays[key])] = arrays[key].numpy()
        self._next = store.take(self._row(self._head)).tobytes()

    def _allocate(self, obs_dtype: str, *, stacked: bool) -> PlainObs | StackedObs:
        info, n = self.info, self._n
        make = StackedObs if stacked else PlainObs
        # one row for the newest successor, and those that the oldest stack reaches back to
        self._rows = self._steps + (info.obs_shape[0] if stacked else 1)
        self._total = self._rows * n
        self._store = make(self._rows, n, info.obs_shape, obs_dtype)
        self._mirrored = mirrors(self._asked, self._device, self._store.nbytes, normalized=info.normalized)
        self._action = action_array((self._rows, n), info.action)
        self._flat_action = self._action.reshape(self._total, *self._action.shape[2:])
        self._reward = np.zeros((self._rows, n), np.float32)
        # 0: the episode goes on, the successor is the next row's. Else it ended: bit 0: terminated; the bits above, if
        # not 0: 1 + place of the true successor, which is the next row's in CUT too
        self._end = np.zeros((self._rows, n), np.int32)
        self._final = Pool(info.obs_shape, obs_dtype)
        return self._store

    def _named(self) -> dict[str, NDArray[Any]]:
        return {"action": self._action, "reward": self._reward, "end": self._end}

    def _row(self, row: int) -> Index:
        return np.arange(row * self._n, (row + 1) * self._n)

    def _begin(self, obs: NDArray[Any]) -> None:
        """What is acted on is not what the last step gave (or there was none): the env was reset from outside."""
        assert self._store is not None
        if self._size:
            end = self._end[(self._head - 1) % self._rows]
            self._keep_final(end, self._store.take(self._row(self._head)), obs, only=end < 2)
            end[end == 0] = CUT
        self._store.put(self._head, obs)

    def _keep_final(self, end: NDArray[np.int32], final_obs: NDArray[Any], obs: NDArray[Any], only: Any = True) -> None:
        """Keep true successors where they differ from the observation of the next row."""
        differs = (final_obs != obs).reshape(self._n, -1).any(1) & only
        places = np.flatnonzero(differs)
        if len(places):
            end[places] = (end[places] & 1) + 2 * (self._final.put(final_obs[places]) + 1)

    def _forget(self, end: NDArray[np.int32]) -> None:
        """A row is about to be overwritten."""
        kept = end[end > 1]
        if len(kept):
            self._final.drop((kept >> 1).astype(np.int64) - 1)

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

    def _walk(self, index: Index, steps: int, gamma: float) -> tuple[Index, Floats, Floats]:
        """Up to n steps on from each place, within its episode.

        Args:
            index: [B]
            steps: n
            gamma: discount per step

        Returns:
            places of the last steps [B], discounted sums of rewards [B], discounts of the last rewards [B]
        """
        last, reward = index.copy(), self._rewards(index)
        discount = np.ones(len(index), np.float32)
        newest = (self._head - 1) % self._rows
        for _ in range(steps - 1):
            on = (self._end.take(last) == 0) & (last // self._n != newest)
            if not on.any():
                break
            last[on] = (last[on] + self._n) % self._total
            discount[on] *= gamma
            reward[on] += discount[on] * self._rewards(last[on])
        return last, reward, discount

    def _rewards(self, index: Index) -> Floats:
        reward = self._reward.take(index)
        return reward if self._normalizer is None else self._normalizer.normalize_reward(reward)

    def _take(self, index: Index, steps: int = 1, gamma: float = 1.0) -> Transition:
        assert self._store is not None
        if steps == 1:
            last, reward = index, self._rewards(index)
        else:
            last, reward, discount = self._walk(index, steps, gamma)
        next_index = last + self._n
        next_index %= self._total
        end = self._end.take(last)
        apart = (end > 1).nonzero()[0]
        final = self._final.take((end[apart] >> 1).astype(np.int64) - 1) if len(apart) else None
        terminated = (end & 1).astype(np.float32)
        if steps > 1:
            terminated = 1 - discount * (1 - terminated)
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
