"""Priorities: the sum tree against plain arrays, and what is drawn how often."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_lab.agent.memory.prioritized import PrioritizedReplay
from slm_lab.agent.memory.sum_tree import SumTree


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 400), seed=st.integers(0, 10_000), sparse=st.booleans())
def test_the_tree_finds_what_a_running_sum_finds(size: int, seed: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    tree, naive = SumTree(size), np.zeros(size)
    for _ in range(4):
        index = rng.integers(0, size, 20)
        # whole numbers, so that sums are exact
        weight = rng.integers(0, 5, 20).astype(np.float64)
        if sparse:
            index, weight = index[:1], np.ones(1)
        tree.update(index, weight)
        naive[index] = weight
    assert np.array_equal(tree.leaves, naive)
    assert tree.total == naive.sum()
    if tree.total:
        mass = rng.random(50) * tree.total
        assert np.array_equal(tree.find(mass), np.searchsorted(naive.cumsum(), mass, side="right"))


@settings(max_examples=50, deadline=None)
@given(size=st.integers(2, 5000), seed=st.integers(0, 10_000), scale=st.sampled_from([1e-12, 1.0, 1e9]))
def test_rounding_never_leads_to_a_leaf_of_weight_0(size: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    tree = SumTree(size)
    index = rng.permutation(size)[: max(size // 3, 1)]
    tree.update(index, rng.random(len(index)) ** 8 * scale + 1e-12)
    edges = np.concatenate([[0.0, tree.total, np.nextafter(tree.total, 0)], tree.leaves.cumsum()])
    found = tree.find(np.minimum(edges, tree.total))
    assert (tree.leaves[found] > 0).all()


def test_a_loaded_tree_equals_the_one_it_was_saved_from() -> None:
    rng = np.random.default_rng(0)
    one, other = SumTree(1000), SumTree(1000)
    for _ in range(30):
        one.update(rng.integers(0, 1000, 64), rng.random(64))
    other.load(one.leaves)
    assert all(np.array_equal(a, b) for a, b in zip(one.levels, other.levels, strict=True))


def make(owner: Any, **keys: Any) -> PrioritizedReplay:
    spec = {"name": "PrioritizedReplay", "batch_size": 64, "max_size": 20, "alpha": 0.6, "epsilon": 1e-4, **keys}
    return PrioritizedReplay(PrioritizedReplay.Spec.model_validate(spec), owner)


def filled(owner: Any, stream: Any, steps: int = 10, **keys: Any) -> PrioritizedReplay:
    me = owner(2)
    memory, env = make(me, **keys), stream(me.info)
    for _ in range(steps):
        memory.add(*env.step())
    return memory


def test_transitions_are_drawn_in_proportion_to_their_priority(owner: Any, stream: Any) -> None:
    memory = filled(owner, stream, batch_size=1000)
    error = torch.arange(20, dtype=torch.float32)
    memory.update_priority(torch.arange(20), error)
    drawn = torch.cat([memory.sample().index for _ in range(20)])
    share = np.bincount(drawn.numpy(), minlength=20) / len(drawn)
    expected = (error.numpy() + 1e-4) ** 0.6
    np.testing.assert_allclose(share, expected / expected.sum(), atol=2e-3)


def test_each_stratum_of_the_mass_gives_one_transition(owner: Any, stream: Any) -> None:
    memory = filled(owner, stream, batch_size=20)
    memory.update_priority(torch.arange(20), torch.ones(20))
    for _ in range(5):
        assert memory.sample().index.tolist() == list(range(20))


def test_new_transitions_have_the_highest_priority_so_far(owner: Any, stream: Any) -> None:
    memory = filled(owner, stream)
    memory.update_priority(torch.tensor([3]), torch.tensor([-50.0]))
    memory.update_priority(torch.tensor([3]), torch.tensor([0.5]))
    memory.add(*stream(memory.info).step())
    newest = [20, 21]
    np.testing.assert_allclose(memory._tree.leaves[newest], (50 + 1e-4) ** 0.6)


def test_what_has_left_the_memory_is_not_drawn(owner: Any, stream: Any) -> None:
    memory = filled(owner, stream, steps=37)
    assert np.count_nonzero(memory._tree.leaves) == 20
    first = memory._oldest() * 2
    held = {(first + i) % memory._total for i in range(20)}
    assert {int(i) for _ in range(20) for i in memory.sample().index} <= held


def test_a_memory_of_errors_0_is_still_drawn_from(owner: Any, stream: Any) -> None:
    memory = filled(owner, stream, epsilon=0)
    memory.update_priority(torch.arange(20), torch.zeros(20))
    assert len(memory.sample().index.unique()) > 10


def test_importance_weights_by_hand(owner: Any, stream: Any) -> None:
    memory = filled(
        owner,
        stream,
        alpha=1.0,
        epsilon=0,
        beta_spec={"name": "linear_decay", "start_val": 0.0, "end_val": 1.0, "end_step": 40},
    )
    error = torch.cat([torch.full((10,), 1.0), torch.full((10,), 3.0)])
    memory.update_priority(torch.arange(20), error)
    # 20 transitions were seen: beta is 0.5; P = 1/40 and 3/40, size * P = 1/2 and 3/2
    assert memory.beta == pytest.approx(0.5)
    batch = memory.sample()
    expected = torch.where(batch.index < 10, 1.0, (1 / 3) ** 0.5)
    torch.testing.assert_close(batch.weight, expected)


def test_weights_are_ones_without_beta(owner: Any, stream: Any) -> None:
    memory = filled(owner, stream)
    memory.update_priority(torch.arange(20), torch.arange(20.0))
    assert bool((memory.sample().weight == 1).all())
