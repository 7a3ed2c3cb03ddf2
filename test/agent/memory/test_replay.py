"""Replay against a plain list of all that happened."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slm_lab.agent.memory.prioritized import PrioritizedReplay
from slm_lab.agent.memory.replay import Replay
from slm_lab.lib.errors import LabError
from slm_lab.types import Continuous, Discrete, EnvInfo, MultiDiscrete, Raw, Step, Transition

Row = tuple[bytes, Any, float, bytes, float]
KINDS = {"Replay": (Replay, {}), "PrioritizedReplay": (PrioritizedReplay, {"alpha": 0.6, "epsilon": 1e-4})}


def make(owner: Any, kind: str = "Replay", **keys: Any) -> Any:
    cls, more = KINDS[kind]
    return cls(cls.Spec(name=kind, **{"batch_size": 16, "max_size": 40, **more, **keys}), owner)


def size_of(part: Any) -> int:
    """Bytes of the arrays that hang on a memory."""
    arrays = [v for v in vars(part).values() if isinstance(v, np.ndarray) and v.base is None]
    inner = [v for v in vars(part).values() if type(v).__module__.startswith("slm_lab.agent.memory.")]
    return sum(array.nbytes for array in arrays) + sum(map(size_of, inner))


def told(obs: NDArray[Any], action: NDArray[Any], step: Step) -> list[Row]:
    """A vector step as the naive memory keeps it."""
    return [
        (
            obs[n].tobytes(),
            int(action[n]),
            float(step.reward[n]),
            step.final_obs[n].tobytes(),
            float(step.terminated[n]),
        )
        for n in range(len(obs))
    ]


def given_back(batch: Transition) -> list[Row]:
    fields = zip(batch.obs, batch.action, batch.reward, batch.next_obs, batch.terminated, strict=True)
    return [(o.numpy().tobytes(), int(a), float(r), x.numpy().tobytes(), float(d)) for o, a, r, x, d in fields]


def contents(memory: Any) -> list[Row]:
    """All it holds, oldest first."""
    first = memory._oldest() * memory._n
    index = (first + np.arange(len(memory))) % memory._total
    return given_back(memory._take(index))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    num_envs=st.integers(1, 4),
    max_size=st.integers(1, 30),
    steps=st.integers(1, 60),
    p_end=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_it_holds_what_a_list_would(
    owner: Any, stream: Any, *, kind: str, num_envs: int, max_size: int, steps: int, p_end: float, seed: int
) -> None:
    me = owner(num_envs)
    memory, env = make(me, kind, max_size=max_size), stream(me.info, seed, p_end)
    naive: list[Row] = []
    for _ in range(steps):
        obs, action, step = env.step()
        memory.add(obs, action, step)
        naive += told(obs, action, step)
        naive = naive[-max(max_size // num_envs, 1) * num_envs :]
        assert set(given_back(memory.sample())) <= set(naive)
    assert contents(memory) == naive


def stacked_stream(num_envs: int, steps: int, seed: int, p_end: float = 0.1, *, stacks: bool = True) -> Any:
    """Stacks of 4 frames of 20x20; a new episode repeats its first frame, a final observation is cut off with it."""
    rng = np.random.default_rng(seed)
    shape = (num_envs, 4, 20, 20)

    def first() -> NDArray[Any]:
        return np.repeat(rng.integers(0, 255, (num_envs, 1, 20, 20), dtype=np.uint8), 4, 1)

    obs = first()
    for _ in range(steps):
        frame = rng.integers(0, 255, (num_envs, 1, 20, 20), dtype=np.uint8)
        final = np.concatenate([obs[:, 1:], frame], 1) if stacks else rng.integers(0, 255, shape, dtype=np.uint8)
        end = rng.random(num_envs) < p_end
        terminated = end & (rng.random(num_envs) < 0.5)
        after = np.where(end[:, None, None, None], first(), final)
        reward = rng.normal(size=num_envs).astype(np.float32)
        yield obs, rng.integers(0, 5, num_envs), Step(after, reward, terminated, end & ~terminated, final, [], [])
        obs = after


@settings(max_examples=15, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    max_size=st.integers(1, 30),
    steps=st.integers(1, 50),
    p_end=st.sampled_from([0.0, 0.1, 0.5]),
    stacks=st.booleans(),
)
def test_stacks_are_rebuilt_from_single_frames(
    owner: Any, num_envs: int, max_size: int, steps: int, p_end: float, stacks: bool
) -> None:
    memory = make(owner(num_envs, (4, 20, 20), "uint8"), max_size=max_size)
    naive: list[Row] = []
    for obs, action, step in stacked_stream(num_envs, steps, 0, p_end, stacks=stacks):
        memory.add(obs, action, step)
        naive += told(obs, action, step)
    assert contents(memory) == naive[-memory.capacity :]


def test_an_env_that_stops_to_stack_is_still_told_right(owner: Any) -> None:
    memory = make(owner(2, (4, 20, 20), "uint8"))
    naive: list[Row] = []
    for stacks in (True, False, True):
        for obs, action, step in stacked_stream(2, 12, int(stacks), stacks=stacks):
            memory.add(obs, action, step)
            naive += told(obs, action, step)
    assert contents(memory) == naive[-memory.capacity :]


def test_an_env_reset_from_outside_does_not_give_a_wrong_successor(owner: Any, stream: Any) -> None:
    me = owner(2)
    memory, env = make(me), stream(me.info, p_end=0.2)
    naive: list[Row] = []
    for i in range(30):
        if i % 5 == 4:
            env.obs = env.new()
        obs, action, step = env.step()
        memory.add(obs, action, step)
        naive += told(obs, action, step)
    assert contents(memory) == naive[-memory.capacity :]


def test_bytes_of_a_transition_are_those_of_its_arrays(owner: Any, stream: Any) -> None:
    me = owner(4, (17,), action=Continuous(6, (-1.0,) * 6, (1.0,) * 6))
    memory, env = make(me, max_size=40_000), stream(me.info, p_end=0.001)
    for _ in range(10_000):
        obs, _, step = env.step()
        memory.add(obs, np.zeros((4, 6), np.float32), step)
    arrays = 17 * 4 + 6 * 4 + 4 + 1  # obs, action, reward, terminated
    assert len(memory) == 40_000
    assert arrays * 40_000 <= size_of(memory) <= 1.15 * arrays * 40_000


def test_a_million_atari_transitions_keep_each_frame_once(owner: Any) -> None:
    memory = make(owner(1, (4, 84, 84), "uint8"), max_size=1000)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (1, 2005, 84, 84), dtype=np.uint8)
    begun = frames[:, :4]
    for t in range(2000):
        obs, after = frames[:, t : t + 4], frames[:, t + 1 : t + 5]
        ended = np.array([t % 200 == 199])  # shorter than the episodes of any game
        fresh = np.repeat(frames[:, t + 4 : t + 5], 4, 1)
        step = Step(fresh if ended[0] else after, np.zeros(1, np.float32), ended, ended & False, after, [], [])
        memory.add(obs if t % 200 else begun, np.zeros(1, np.int64), step)
        begun = fresh
    assert 84 * 84 <= size_of(memory) / len(memory) <= 1.15 * (84 * 84 + 8 + 4 + 1)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64", "int64"])
@pytest.mark.parametrize("action", [Discrete(3), Continuous(2, (0.0, 0.0), (1.0, 1.0)), MultiDiscrete((2, 3, 4))])
def test_types_and_shapes_are_kept(owner: Any, stream: Any, dtype: str, action: Any) -> None:
    me = owner(3, (2, 3), dtype, action)
    memory, env = make(me), stream(me.info)
    shape = {Discrete: (), Continuous: (2,), MultiDiscrete: (3,)}[type(action)]
    kind = np.float32 if isinstance(action, Continuous) else np.int64
    for _ in range(10):
        obs, _, step = env.step()
        memory.add(obs, np.ones((3, *shape), kind), step)
    batch = memory.sample()
    assert batch.obs.shape == batch.next_obs.shape == (16, 2, 3)
    assert batch.obs.dtype == batch.next_obs.dtype == getattr(torch, dtype)
    assert batch.action.shape == (16, *shape)
    assert batch.action.numpy().dtype == kind
    assert bool((batch.action == 1).all())
    for x in (batch.reward, batch.terminated, batch.weight):
        assert x.shape == (16,)
        assert x.dtype == torch.float32
    assert batch.index.dtype == torch.int64


def test_all_transitions_are_drawn_equally_often(owner: Any, stream: Any) -> None:
    me = owner(2)
    memory, env = make(me, batch_size=500), stream(me.info)
    for _ in range(33):
        memory.add(*env.step())
    drawn = torch.cat([memory.sample().index for _ in range(40)])
    _, counts = drawn.unique(return_counts=True)
    assert len(counts) == 40
    # 500 each, standard deviation 22
    assert 390 < counts.min() <= counts.max() < 610


def test_combined_replay_puts_the_newest_into_the_batch(owner: Any, stream: Any) -> None:
    me = owner(2)
    memory, env = make(me, use_cer=True), stream(me.info)
    for _ in range(33):
        memory.add(*env.step())
    memory.sample()
    newest = []
    for _ in range(3):
        obs, action, step = env.step()
        memory.add(obs, action, step)
        newest += told(obs, action, step)
    assert sorted(given_back(memory.sample())[-6:]) == sorted(newest)
    assert sorted(given_back(memory.sample())[-6:]) != sorted(newest)


@pytest.mark.parametrize(
    ("num_envs", "frequency", "start", "due"),
    [
        (1, 1, 0, {1: [1], 2: [2], 3: [3], 4: [4]}),
        (1, 4, 0, {4: [4], 8: [8], 12: [12]}),
        (4, 1, 0, {4: [1, 2, 3, 4], 8: [5, 6, 7, 8]}),
        (4, 1, 2, {4: [3, 4], 8: [5, 6, 7, 8]}),
        (4, 4, 4, {8: [8], 12: [12]}),
        (4, 6, 0, {8: [6], 12: [12], 20: [18], 24: [24]}),
        (3, 4, 10, {12: [12], 18: [16], 21: [20], 24: [24]}),
        (16, 4, 64, {80: [68, 72, 76, 80], 96: [84, 88, 92, 96]}),
        (7, 3, 8, {14: [9, 12], 21: [15, 18, 21]}),
    ],
)
def test_training_is_due_once_for_each_multiple_of_its_frequency(
    owner: Any, stream: Any, num_envs: int, frequency: int, start: int, due: dict[int, list[int]]
) -> None:
    me = owner(num_envs, training_frequency=frequency, training_start_step=start)
    memory, env = make(me), stream(me.info)
    seen = {}
    while memory.seen < max(due):
        memory.add(*env.step())
        assert memory.ready() == memory.ready()
        if memory.ready():
            seen[memory.seen] = list(memory.due())
            memory.sample()
            memory.sample()
            assert not memory.ready()
    assert seen == due


def walked(naive: list[list[tuple[Row, bool]]], steps: int, gamma: float) -> list[tuple[Any, ...]]:
    """What n-step targets are made of, by a walk over vector steps of (transition, whether it ended an episode)."""
    out = []
    for t, vector in enumerate(naive):
        for n, ((obs, action, *_), _) in enumerate(vector):
            ret, m = 0.0, 0
            for later in naive[t : t + steps]:
                (_, _, reward, next_obs, terminated), ended = later[n]
                ret += gamma**m * reward
                m += 1
                if ended:
                    break
            # what the successor's value counts, over gamma
            out.append((obs, action, ret, next_obs, gamma ** (m - 1) * (1 - terminated)))
    return out


@pytest.mark.parametrize("kind", ["Replay", "PrioritizedReplay", "stacks", "same obs"])
@settings(max_examples=25, deadline=None)
@given(
    num_envs=st.integers(1, 4),
    max_size=st.integers(1, 30),
    length=st.integers(1, 50),
    p_end=st.sampled_from([0.0, 0.1, 0.5]),
    steps=st.integers(1, 7),
    reset_every=st.sampled_from([None, 3, 10]),
)
def test_sums_over_n_steps_are_those_of_a_walk_over_episodes(
    owner: Any,
    stream: Any,
    *,
    kind: str,
    num_envs: int,
    max_size: int,
    length: int,
    p_end: float,
    steps: int,
    reset_every: int | None,
) -> None:
    stacked = kind == "stacks"
    me = owner(num_envs, (4, 20, 20), "uint8") if stacked else owner(num_envs)
    memory = make(me, kind if kind in KINDS else "Replay", max_size=max_size)
    env = stream(me.info, 0, p_end)
    made = list(stacked_stream(num_envs, length, 0, p_end)) if stacked else [env.step() for _ in range(length)]
    naive: list[list[tuple[Row, bool]]] = []
    if kind == "same obs":
        # nothing but the flags tells where an episode ended
        zero = np.zeros_like(made[0][0])
        made = [(zero, action, step._replace(obs=zero, final_obs=zero)) for _, action, step in made]
    for t, (seen, action, step) in enumerate(made):
        obs = seen
        if reset_every and t and t % reset_every == 0 and kind in KINDS:
            # reset from outside, in the middle of episodes
            obs = seen + 1000
            naive[-1] = [(row, True) for row, _ in naive[-1]]
        memory.add(obs, action, step)
        ended = step.terminated | step.truncated
        naive.append(list(zip(told(obs, action, step), ended.tolist(), strict=True)))
        naive = naive[-max(max_size // num_envs, 1) :]
    index = (memory._oldest() * num_envs + np.arange(len(memory))) % memory._total
    expected = walked(naive, steps, 0.9)
    found = [(o, a, r, x, 1 - d) for o, a, r, x, d in given_back(memory._take(index, steps, 0.9))]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[3] for row in found] == [row[3] for row in expected]
    for column in (2, 4):
        np.testing.assert_allclose([r[column] for r in found], [r[column] for r in expected], rtol=1e-5, atol=1e-6)
    assert set(given_back(memory.sample(steps, 0.9))) <= set(given_back(memory._take(index, steps, 0.9)))


def test_sums_over_three_steps_by_hand(owner: Any) -> None:
    memory = make(owner(1, (1,)), max_size=10)
    seen = [[float(t)] for t in range(6)]
    for t in range(5):
        obs = np.array([seen[t]], np.float32)
        yes, no = np.array([t == 2]), np.array([False])
        after = np.array([seen[t + 1]], np.float32)
        final = np.array([[99.0]], np.float32) if t == 2 else after
        memory.add(obs, np.array([0]), Step(after, np.array([2.0**t], np.float32), no, yes, final, [], []))
    taken = memory._take(np.arange(5), 3, 0.5)
    # the episode was cut off behind the third step; the memory ends behind the fifth
    assert taken.reward.tolist() == [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16]
    assert taken.next_obs.flatten().tolist() == [99, 99, 99, 5, 5]
    assert (1 - taken.terminated).tolist() == [0.25, 0.5, 1, 0.5, 1]


class Halving:
    """Halves observations and rewards; rewards are then clipped to [-3, 3]. Later it takes quarters."""

    share = 0.5

    def normalize_obs(self, obs: NDArray[Any]) -> NDArray[Any]:
        return (obs * self.share).astype(np.float32)

    def normalize_reward(self, reward: NDArray[Any]) -> NDArray[Any]:
        return np.clip(reward * self.share, -3, 3).astype(np.float32)


def normalized_by(halving: Halving, obs: NDArray[Any], step: Step) -> tuple[NDArray[Any], Step]:
    """What the agent sees of a raw step."""
    seen = step._replace(
        obs=halving.normalize_obs(step.obs),
        final_obs=halving.normalize_obs(step.final_obs),
        reward=halving.normalize_reward(step.reward),
        raw=Raw(obs, step, halving),
    )
    return halving.normalize_obs(obs), seen


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_normalized_is_kept_raw_and_normalized_when_drawn(owner: Any, kind: str) -> None:
    me, halving = owner(1, (1,)), Halving()
    me.info = EnvInfo("Stream", (1,), "float32", Discrete(5), 1, None, normalized=True)
    memory = make(me, kind, max_size=10)
    for t in range(4):
        no, yes = np.array([False]), np.array([t == 2])
        obs, after = np.array([[t]], np.uint8), np.array([[t + 1]], np.uint8)
        final = np.array([[99]], np.uint8) if t == 2 else after
        raw = Step(after, np.array([4.0 * t], np.float32), no, yes, final, [], [])
        seen, step = normalized_by(halving, obs, raw)
        memory.add(seen, np.array([0]), step)
    taken = memory._take(np.arange(4), 3, 0.5)
    assert taken.obs.dtype == taken.next_obs.dtype == torch.float32
    assert taken.obs.flatten().tolist() == [0, 0.5, 1, 1.5]
    assert taken.next_obs.flatten().tolist() == [49.5, 49.5, 49.5, 2]
    # rewards 0, 4, 8, 12 are 0, 2, 3, 3 each, and only then summed up; the episode was cut off behind the third
    assert taken.reward.tolist() == [0 + 1 + 0.75, 2 + 1.5, 3, 3]
    assert memory.received()["rewards"][0].ravel()[:4].tolist() == [0, 4, 8, 12]
    assert memory.received()["observations"][0].dtype == np.uint8
    halving.share = 0.25
    later = memory._take(np.arange(4), 3, 0.5)
    assert later.obs.flatten().tolist() == [0, 0.25, 0.5, 0.75]
    assert later.reward.tolist() == [0 + 0.5 + 0.5, 1 + 1, 2, 3]
    twin = make(me, kind, max_size=10)
    twin.load_state_dict(memory.state_dict())
    twin.add(seen, np.array([0]), step)
    memory.add(seen, np.array([0]), step)
    for ours, theirs in zip(twin.sample(3, 0.5), memory.sample(3, 0.5), strict=True):
        assert torch.equal(ours, theirs)


def test_a_memory_of_a_version_that_normalized_what_it_kept_is_refused(owner: Any, stream: Any) -> None:
    me = owner(2)
    memory = make(me)
    memory.add(*stream(me.info).step())
    state = memory.state_dict()
    del state["arrays"]["raw"]
    make(me).load_state_dict(state)
    me.info = EnvInfo("Stream", (3,), "float32", Discrete(5), 2, None, normalized=True)
    with pytest.raises(LabError, match=r"older version.*Start a new run"):
        make(me).load_state_dict(state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3,), (4, 20, 20)])
@pytest.mark.parametrize("before", [0, 5, 50])
def test_a_restored_memory_goes_on_bitwise(
    owner: Any, stream: Any, kind: str, shape: tuple[int, ...], before: int
) -> None:
    me = owner(2, shape, "float32" if len(shape) == 1 else "uint8")
    steps = list(stacked_stream(2, 90, 1)) if len(shape) > 1 else [stream(me.info).step() for _ in range(90)]
    if len(shape) == 1:
        env = stream(me.info)
        steps = [env.step() for _ in range(90)]

    def live(memory: Any, part: list[Any]) -> list[Transition]:
        out = []
        for obs, action, step in part:
            memory.add(obs, action, step)
            out.append(memory.sample())
            memory.update_priority(out[-1].index, out[-1].reward.abs())
        return out

    memory = make(me, kind, use_cer=True)
    live(memory, steps[:before])
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    fresh = make(me, kind, use_cer=True)
    live(fresh, steps[60:70])  # whatever it held before
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for one, other in zip(live(memory, steps[before:]), live(fresh, steps[before:]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_snapshot_is_not_changed_by_later_steps(owner: Any, stream: Any) -> None:
    me = owner(2)
    memory, env = make(me), stream(me.info)
    for _ in range(30):
        memory.add(*env.step())
    state, held = memory.state_dict(), contents(memory)
    for _ in range(7):
        memory.add(*env.step())
        memory.sample()
    fresh = make(me)
    fresh.load_state_dict(state)
    assert contents(fresh) == held


def test_a_batch_does_not_change_with_the_memory(owner: Any, stream: Any) -> None:
    me = owner(2)
    memory, env = make(me, max_size=6), stream(me.info)
    for _ in range(5):
        memory.add(*env.step())
    batch = memory.sample()
    before = given_back(batch)
    for _ in range(5):
        memory.add(*env.step())
        memory.sample()
    assert given_back(batch) == before


def test_sizes_may_be_written_as_floats() -> None:
    spec = Replay.Spec.model_validate({"name": "Replay", "batch_size": 64.0, "max_size": 1e6})
    assert (spec.batch_size, spec.max_size) == (64, 1_000_000)
