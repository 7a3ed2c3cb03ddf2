"""Several steps at once are the same as one by one, in every memory that training uses."""

from typing import Any

import numpy as np
import pytest
import torch

from slm_lab.agent.memory.onpolicy import OnPolicyBatchReplay
from slm_lab.agent.memory.prioritized import PrioritizedReplay
from slm_lab.agent.memory.replay import Replay
from slm_lab.types import Played, Step

KEYS: dict[type, dict[str, Any]] = {
    OnPolicyBatchReplay: {},
    Replay: {"batch_size": 16, "max_size": 30},
    PrioritizedReplay: {"batch_size": 16, "max_size": 30, "alpha": 0.6, "epsilon": 1e-4},
}


def played(steps: list[tuple[Any, Any, Step]]) -> Played:
    obs, action, step = zip(*steps, strict=True)
    parts = (np.stack([getattr(s, k) for s in step]) for k in ("reward", "terminated", "truncated", "final_obs"))
    return Played(np.stack([*obs, step[-1].obs]), np.stack(action), *parts)


@pytest.mark.parametrize("cls", KEYS)
@pytest.mark.parametrize(("shape", "dtype"), [((3,), "float32"), ((4, 5, 5), "uint8")])
@pytest.mark.parametrize("frequency", [1, 7, 40])
def test_extend_is_add_after_add(
    cls: Any, shape: tuple[int, ...], dtype: str, frequency: int, owner: Any, stream: Any
) -> None:
    who = owner(num_envs=2, obs_shape=shape, obs_dtype=dtype, training_frequency=frequency, training_start_step=5)
    whole, single = (cls(cls.Spec(name=cls.__name__, **KEYS[cls]), who) for _ in range(2))
    envs, rng = stream(who.info, seed=3), np.random.default_rng(frequency)
    batches = 0
    for _ in range(40):
        count = int(rng.integers(1, whole.room + 1))
        steps = []
        for _ in range(count):
            assert not single.ready()
            obs, action, step = envs.step()
            steps.append((obs.copy(), action, step))
            single.add(obs, action, step)
        whole.extend(played(steps))
        assert whole.ready() == single.ready()
        if not whole.ready():
            continue
        batches += 1
        ours, theirs = whole.sample(), single.sample()
        for name, value in ours._asdict().items():
            assert torch.equal(value, getattr(theirs, name)), name
        if cls is not OnPolicyBatchReplay:
            error = torch.from_numpy(rng.random(len(ours.index)))
            whole.update_priority(ours.index, error)
            single.update_priority(theirs.index, error)
    assert batches > 3


def test_there_is_room_for_no_more_than_what_is_kept(owner: Any) -> None:
    memory = Replay(Replay.Spec(name="Replay", batch_size=2, max_size=6), owner(num_envs=2, training_frequency=1000))
    assert memory.room == 3


@pytest.mark.parametrize(("rounds", "steps", "batches"), [(5, 3, 1), (4, 1, 2)])
@pytest.mark.parametrize("before", [4, 13, 37])
def test_batches_drawn_ahead_are_those_drawn_later(
    before: int, rounds: int, steps: int, batches: int, owner: Any, stream: Any
) -> None:
    who = owner(num_envs=2, obs_shape=(3,), training_frequency=2 * steps)
    ahead, later = (Replay(Replay.Spec(name="Replay", batch_size=16, max_size=30), who) for _ in range(2))
    envs = stream(who.info, seed=3)

    def step() -> tuple[Any, Any, Step]:
        obs, action, made = envs.step()
        return obs.copy(), action, made

    for _ in range(before):
        made = step()
        ahead.add(*made)
        later.add(*made)
    assert ahead.goes_on(made[2].obs)
    assert not ahead.goes_on(made[2].obs + 1)
    stored, missing = ahead.draw_ahead(rounds, steps, batches)
    coming: list[tuple[Any, Any, Step]] = []
    for k in range(rounds):
        for _ in range(steps):
            coming.append(step())
            later.add(*coming[-1])
        for i in range(batches):
            batch, at = later.sample(), k * batches + i
            for b, place in enumerate(missing[k, i]):
                row = at * 16 + b
                if place < 0:
                    found = [stored[j][row] for j in range(5)]
                else:
                    obs, action, made = coming[place // 2]
                    e = place % 2
                    found = [obs[e], action[e], made.reward[e], made.final_obs[e], made.terminated[e]]
                for name, value in zip(("obs", "action", "reward", "next_obs", "terminated"), found, strict=True):
                    assert np.array_equal(getattr(batch, name)[b], np.asarray(value)), name
    assert (missing >= 0).any()
    ahead.extend(played(coming))
    ahead.drew()
    assert not ahead.ready()
    assert all(torch.equal(a, b) for a, b in zip(ahead.sample()[:5], later.sample()[:5], strict=True))
