import io

import pytest
import torch

from slm_lab.agent.memory.returns import ReturnReplay, WithReturnReplaySpec
from slm_lab.types import Rollout

NONE = torch.zeros(0)


def make(**keys: object) -> ReturnReplay:
    spec = WithReturnReplaySpec.model_validate({"name": "OnPolicyBatchReplay", "batch_size": 64, **keys})
    return ReturnReplay(spec, 0.5, torch.Generator().manual_seed(0))


def rollout(
    reward: list[list[float]], terminated: list[list[int]], truncated: list[list[int]] | None = None
) -> Rollout:
    """[T, N] each; the observation of step t of env n is 10 t + n, the action its negative."""
    r, end = torch.tensor(reward), torch.tensor(terminated, dtype=torch.bool)
    cut = torch.zeros_like(end) if truncated is None else torch.tensor(truncated, dtype=torch.bool)
    t, n = r.shape
    obs = (10 * torch.arange(t + 1)[:, None] + torch.arange(n)).float()[..., None]
    index = cut.flatten().nonzero().squeeze(-1)
    return Rollout(obs, -obs[:-1], r, end, cut, index, torch.zeros(len(index), 1))


def contents(memory: ReturnReplay) -> set[tuple[float, float, float]]:
    """What batches bring up: obs, action, return."""
    seen = set()
    for _ in range(20):
        b = memory.sample()
        seen |= set(zip(b.obs.squeeze(-1).tolist(), b.action.squeeze(-1).tolist(), b.ret.tolist(), strict=True))
    return seen


def test_returns_are_of_whole_episodes_and_across_rollouts() -> None:
    """gamma 1/2. Env 0 ends at t = 1 with rewards 1, 2; then 4 | 8 ends in the next rollout. Env 1 ends there too."""
    memory = make()
    memory.add(rollout([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]], [[0, 0], [1, 0], [0, 0]]), NONE)
    assert len(memory) == 2
    assert contents(memory) == {(0, 0, 2), (10, -10, 2)}
    memory.add(rollout([[8.0, 1.0], [16.0, 8.0]], [[1, 0], [0, 1]]), NONE)
    # 4 + 8/2; env 1: 1 1 1 1 8
    assert len(memory) == 2 + 2 + 5
    env_0 = {(0, 0, 2), (10, -10, 2), (20, -20, 8), (0, 0, 8)}
    env_1 = {(1, -1, 2.375), (11, -11, 2.75), (21, -21, 3.5), (1, -1, 5), (11, -11, 8)}
    assert contents(memory) == env_0 | env_1


def test_what_a_time_limit_cut_off_is_worth_the_final_value() -> None:
    memory = make()
    memory.add(rollout([[1.0, 1.0], [1.0, 1.0]], [[0, 0], [1, 0]], [[0, 0], [0, 1]]), torch.tensor([10.0]))
    assert contents(memory) == {(0, 0, 1.5), (10, -10, 1), (1, -1, 4), (11, -11, 6)}


def test_several_episodes_of_one_env_in_one_rollout() -> None:
    memory = make()
    memory.add(rollout([[1.0], [2.0], [4.0], [8.0]], [[1], [0], [1], [0]]), NONE)
    assert contents(memory) == {(0, 0, 1), (10, -10, 4), (20, -20, 4)}


def test_the_oldest_go_first() -> None:
    memory = make(max_size=3)
    for reward in (1.0, 2.0):
        memory.add(rollout([[reward], [reward]], [[1], [1]]), NONE)
    assert len(memory) == 3
    assert contents(memory) == {(10, -10, 1), (0, 0, 2), (10, -10, 2)}
    memory.add(rollout([[5.0]] * 7, [[1]] * 7), NONE)
    assert contents(memory) == {(40, -40, 5), (50, -50, 5), (60, -60, 5)}


def test_combined_experience_replay_shows_the_newest() -> None:
    memory = make(max_size=10_000, batch_size=4, use_cer=True)
    memory.add(rollout([[0.0]] * 1000, [[1]] * 1000), NONE)
    memory.sample()
    memory.add(rollout([[7.0], [8.0]], [[1], [1]]), NONE)
    assert {7.0, 8.0} <= set(memory.sample().ret.tolist())
    assert memory.sample().ret.tolist() == [0, 0, 0, 0]


def test_prioritized_draws_by_gain() -> None:
    memory = make(sil_replay_name="PrioritizedReplay", alpha=1.0, epsilon=0.0, batch_size=1000)
    memory.add(rollout([[0.0], [1.0], [2.0]], [[1], [1], [1]]), NONE)
    # new ones share the highest priority
    share = torch.bincount(memory.sample().ret.long(), minlength=3) / 1000
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    memory.update_priority(torch.tensor([0, 1, 2]), torch.tensor([0.0, 1.0, 3.0]))
    share = torch.bincount(memory.sample().ret.long(), minlength=3) / 1000
    torch.testing.assert_close(share, torch.tensor([0.0, 0.25, 0.75]), atol=0.01, rtol=0)
    memory.add(rollout([[3.0]], [[1]]), NONE)
    share = torch.bincount(memory.sample().ret.long(), minlength=4) / 1000
    torch.testing.assert_close(share, torch.tensor([0.0, 1 / 7, 3 / 7, 3 / 7]), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ["Replay", "PrioritizedReplay"])
def test_state_round_trip(name: str) -> None:
    memory, other = (make(sil_replay_name=name, max_size=5) for _ in range(2))
    memory.add(rollout([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]], [[0, 1], [1, 0], [0, 0]]), NONE)
    batch = memory.sample()
    memory.update_priority(batch.place, batch.ret)
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    other._generator.set_state(memory._generator.get_state())
    for m in (memory, other):
        m.add(rollout([[8.0, 1.0], [16.0, 8.0]], [[1, 0], [0, 1]]), NONE)
    a, b = memory.sample(), other.sample()
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
