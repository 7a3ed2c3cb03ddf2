"""On-policy memories against a plain list of all that happened."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_lab.agent.memory import episodic
from slm_lab.agent.memory.episodic import OnPolicyCrossEntropy, OnPolicyReplay
from slm_lab.agent.memory.onpolicy import OnPolicyBatchReplay
from slm_lab.types import Rollout

KINDS = {c.__name__: c for c in (OnPolicyBatchReplay, OnPolicyReplay, OnPolicyCrossEntropy)}


def make(owner: Any, kind: str, **keys: Any) -> Any:
    cls = KINDS[kind]
    return cls(cls.Spec(name=kind, **keys), owner)


def live(memory: Any, steps: list[Any]) -> list[Rollout]:
    """Rollouts handed over on the way, as copies."""
    out = []
    for one in steps:
        memory.add(*one)
        if memory.ready():
            out.append(Rollout(*(x.clone() for x in memory.sample())))
            assert not memory.ready()
    return out


def rows(rollout: Rollout) -> list[tuple[float, ...]]:
    """One tuple a transition: obs, action, reward, true successor (of a terminated one: 0), the two ends."""
    t, n = rollout.reward.shape
    after = rollout.obs[1:].flatten(0, 1).clone()
    after[rollout.final_index] = rollout.final_obs
    after[rollout.terminated.flatten()] = 0
    obs = rollout.obs[:-1].flatten(0, 1)
    columns = (obs[:, 0], rollout.action.flatten(), rollout.reward.flatten(), after[:, 0])
    ends = (rollout.terminated.flatten(), rollout.truncated.flatten())
    return [tuple(float(c[i]) for c in (*columns, *ends)) for i in range(t * n)]


def told(steps: list[Any]) -> list[list[list[tuple[float, ...]]]]:
    """Per step, the episodes that ended in it, as `rows` would give them."""
    n = len(steps[0][0])
    under_way: list[list[tuple[float, ...]]] = [[] for _ in range(n)]
    out = []
    for obs, action, s in steps:
        ended = []
        for i in range(n):
            after = 0.0 if s.terminated[i] else float(s.final_obs[i, 0])
            end = (float(s.terminated[i]), float(s.truncated[i]))
            under_way[i].append((float(obs[i, 0]), float(action[i]), float(s.reward[i]), after, *end))
            if any(end):
                ended.append(under_way[i])
                under_way[i] = []
        out.append(ended)
    return out


@settings(max_examples=40, deadline=None)
@given(
    num_envs=st.integers(1, 4),
    needed=st.integers(1, 5),
    p_end=st.sampled_from([0.05, 0.3, 1.0]),
    seed=st.integers(0, 1000),
)
def test_whole_episodes_are_handed_over_end_to_end(
    owner: Any, stream: Any, num_envs: int, needed: int, p_end: float, seed: int
) -> None:
    me = owner(num_envs, training_frequency=needed)
    env = stream(me.info, seed, p_end)
    steps = [env.step() for _ in range(200)]
    expected, waiting = [], []
    for ended in told(steps):
        waiting += ended
        if len(waiting) >= needed:
            expected.append([row for episode in waiting for row in episode])
            waiting = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodic, "FIRST_SIZE", 4)
        memory = make(me, "OnPolicyReplay")
        assert [rows(r) for r in live(memory, steps)] == expected


@settings(max_examples=30, deadline=None)
@given(num_envs=st.integers(1, 4), horizon=st.integers(1, 9), p_end=st.sampled_from([0.0, 0.3, 1.0]))
def test_a_batch_is_every_step_in_order(owner: Any, stream: Any, num_envs: int, horizon: int, p_end: float) -> None:
    me = owner(num_envs, training_frequency=horizon)
    env = stream(me.info, 0, p_end)
    steps = [env.step() for _ in range(40)]
    out = live(make(me, "OnPolicyBatchReplay"), steps)
    assert len(out) == 40 // horizon
    every = [
        (float(o[i, 0]), float(a[i]), float(s.reward[i]), 0.0 if s.terminated[i] else float(s.final_obs[i, 0]))
        for o, a, s in steps[: horizon * len(out)]
        for i in range(num_envs)
    ]
    assert [row[:4] for r in out for row in rows(r)] == every


def test_cross_entropy_keeps_the_best_episodes(owner: Any, stream: Any) -> None:
    me = owner(2, training_frequency=6)
    env = stream(me.info, 3)
    steps = [env.step() for _ in range(100)]
    everything = live(make(me, "OnPolicyReplay"), steps)
    for quantile, all_of_them in ((0.5, False), (1.0, True)):
        kept = live(make(me, "OnPolicyCrossEntropy", cross_entropy=quantile), steps)
        for full, best in zip(everything, kept, strict=True):
            if all_of_them:
                assert rows(best) == rows(full)
                continue
            parts = np.split(np.array(rows(full)), np.flatnonzero((full.terminated | full.truncated)[:, 0]) + 1)[:-1]
            bar = np.quantile([p[:, 2].sum() for p in parts], 0.5)
            wanted = [p for p in parts if p[:, 2].sum() >= bar - 1e-6]
            assert 0 < len(wanted) < len(parts)
            np.testing.assert_array_equal(np.array(rows(best)), np.concatenate(wanted))


def test_rewards_that_are_no_numbers_reach_the_update(owner: Any, stream: Any) -> None:
    me = owner(1, training_frequency=2)
    env = stream(me.info, 3)
    memory = make(me, "OnPolicyCrossEntropy", cross_entropy=0.5)
    while not memory.ready():
        obs, action, step = env.step()
        memory.add(obs, action, step._replace(reward=np.full_like(step.reward, np.nan)))
    assert memory.sample().reward.isnan().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [0, 3, 50])
def test_a_restored_memory_goes_on_bitwise(owner: Any, stream: Any, kind: str, before: int) -> None:
    me = owner(3, training_frequency=7)
    env = stream(me.info)
    steps = [env.step() for _ in range(100)]
    memory, fresh = make(me, kind), make(me, kind)
    live(memory, steps[:before])
    live(fresh, steps[20:25])
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    pairs = list(zip(live(memory, steps[before:]), live(fresh, steps[before:]), strict=True))
    assert pairs
    for one, other in pairs:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_images_stay_bytes(owner: Any, stream: Any, kind: str) -> None:
    me = owner(2, (1, 4, 4), "uint8", training_frequency=4)
    env = stream(me.info)
    rollout = live(make(me, kind), [env.step() for _ in range(30)])[0]
    assert rollout.obs.dtype == rollout.final_obs.dtype == torch.uint8
    assert rollout.obs.shape[2:] == rollout.final_obs.shape[1:] == (1, 4, 4)
    assert rollout.final_index.dtype == torch.int64
