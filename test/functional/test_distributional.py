"""Distributions of returns by hand: the projection with its traps, and what each loss has its minimum at."""

import math

import torch
from torch import Tensor

from slm_lab.functional.distributional import (
    categorical_loss,
    categorical_mean,
    categorical_projection,
    make_support,
    quantile_fractions,
    quantile_huber_loss,
)
from slm_lab.functional.targets import td_target

SUPPORT = make_support(-2.0, 2.0, 5)


def bellman(reward: list[float], terminated: list[float], prob: Tensor, gamma: float) -> Tensor:
    """The target of C51 for a batch."""
    value = td_target(torch.tensor(reward)[:, None], torch.tensor(terminated)[:, None], SUPPORT, gamma)
    return categorical_projection(value, prob, SUPPORT)


def naive(value: list[float], prob: list[float], support: list[float]) -> list[float]:
    """Atom by atom, as the definition says, in double precision."""
    width, m = support[1] - support[0], [0.0] * len(support)
    for x, p in zip(value, prob, strict=True):
        place = (min(max(x, support[0]), support[-1]) - support[0]) / width
        low = min(int(place), len(support) - 2)
        m[low] += p * (low + 1 - place)
        m[low + 1] += p * (place - low)
    return m


def test_each_atom_is_shared_by_its_neighbours() -> None:
    prob = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]])
    # 0.5 + 0.5 * (-2, -1, 0, 1, 2) = -0.5, 0, 0.5, 1, 1.5
    expected = [[0.0, 0.05, 0.05 + 0.2 + 0.2, 0.2 + 0.2 + 0.05, 0.05]]
    torch.testing.assert_close(bellman([0.5], [0.0], prob, 0.5), torch.tensor(expected))


def test_mass_exactly_on_an_atom_stays_there() -> None:
    prob = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]])
    # floor and ceil are equal at each of these
    assert torch.equal(bellman([0.0], [0.0], prob, 1.0), prob)
    torch.testing.assert_close(bellman([1.0], [0.0], prob, 1.0), torch.tensor([[0.0, 0.1, 0.2, 0.4, 0.3]]))


def test_what_lies_beyond_an_end_is_put_there() -> None:
    prob = torch.full((2, 5), 0.2)
    expected = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(bellman([100.0, -100.0], [0.0, 0.0], prob, 1.0), expected)


def test_after_a_terminal_step_the_reward_is_all_there_is() -> None:
    prob = torch.full((3, 5), 0.2)
    expected = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.75, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(bellman([1.0, 0.25, 2.0], [1.0, 1.0, 1.0], prob, 0.9), expected)


def test_projection_is_the_definition_and_keeps_mass_and_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    for low, high, atoms in ((-10.0, 10.0, 51), (0.0, 1.0, 2), (-0.3, 7.1, 101)):
        support = make_support(low, high, atoms)
        value = low + (high - low) * (1.4 * torch.rand(16, 33, generator=generator) - 0.2)
        prob = torch.rand(16, 33, generator=generator).softmax(-1)
        projected = categorical_projection(value, prob, support)
        expected = [naive(v, p, support.tolist()) for v, p in zip(value.tolist(), prob.tolist(), strict=True)]
        torch.testing.assert_close(projected, torch.tensor(expected), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(projected.sum(-1), torch.ones(16))
        mean = (prob * value.clamp(low, high)).sum(-1)
        torch.testing.assert_close((projected * support).sum(-1), mean, atol=1e-4, rtol=1e-4)


def test_mean_of_a_categorical() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0, math.log(4.0)]])
    torch.testing.assert_close(categorical_mean(logits, SUPPORT), torch.tensor([0.75]))


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[0.5, 0.5], [1.0, 0.0]], requires_grad=True)
    loss = categorical_loss(logits, target)
    torch.testing.assert_close(loss, torch.tensor([-0.5 * math.log(0.25 * 0.75), math.log(2.0)]))
    loss.sum().backward()
    # softmax less the target
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.25], [-0.5, 0.5]]))
    assert target.grad is None


def test_quantile_huber_loss_by_hand() -> None:
    quantile, target = torch.tensor([[0.0, 1.0]], requires_grad=True), torch.tensor([[2.0, 0.5, -1.0]])
    fraction = torch.tensor([0.25, 0.75])
    # u of theta 0: 2, 0.5, -1; of theta 1: 1, -0.5, -2
    first = (0.25 * 1.5 + 0.25 * 0.125 + 0.75 * 0.5) / 3
    second = (0.75 * 0.5 + 0.25 * 0.125 + 0.25 * 1.5) / 3
    torch.testing.assert_close(quantile_huber_loss(quantile, target, fraction), torch.tensor([first + second]))
    absolute = (0.25 * 2 + 0.25 * 0.5 + 0.75 * 1 + 0.75 * 1 + 0.25 * 0.5 + 0.25 * 2) / 3
    torch.testing.assert_close(quantile_huber_loss(quantile, target, fraction, 0.0), torch.tensor([absolute]))
    quantile_huber_loss(quantile, target, fraction).sum().backward()
    expected = [[-(0.25 * 1 + 0.25 * 0.5 - 0.75 * 1) / 3, -(0.75 * 1 - 0.25 * 0.5 - 0.25 * 1) / 3]]
    torch.testing.assert_close(quantile.grad, torch.tensor(expected))


def test_quantile_regression_finds_the_quantiles() -> None:
    target = torch.arange(100.0)[None]
    fraction, theta = quantile_fractions(4), torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.SGD([theta], lr=100.0)
    for _ in range(300):
        optimizer.zero_grad()
        quantile_huber_loss(theta, target, fraction, 0.1).sum().backward()
        optimizer.step()
    # a mean would be 49.5 four times
    torch.testing.assert_close(theta.detach(), torch.tensor([[12.0, 37.0, 62.0, 87.0]]), atol=1.5, rtol=0)


def test_a_reward_that_is_no_number_stays_one_row() -> None:
    value = torch.tensor([[float("nan")] * 3, [float("inf"), -float("inf"), 1.0]])
    made = categorical_projection(value, torch.full((2, 3), 1 / 3), torch.tensor([0.0, 1.0, 2.0]))
    assert made[0].isnan().any()
    torch.testing.assert_close(made[1], torch.tensor([1 / 3, 1 / 3, 1 / 3]))
