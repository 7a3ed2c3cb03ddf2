"""Distributions against torch.distributions, and samples against their probabilities."""

import pytest
import torch

from slm_lab.functional.distributions import Categorical, Normal, distribution_for
from slm_lab.types import Continuous, Discrete, MultiBinary

BOX = Continuous(3, (-1.0,) * 3, (1.0,) * 3)


def test_categorical_equals_torch() -> None:
    logits, action = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    ours, theirs = Categorical.from_head(logits), torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), logits.argmax(-1))


def test_categorical_samples_follow_its_probabilities() -> None:
    dist = Categorical.from_head(torch.tensor([0.5, 0.3, 0.2]).log().expand(40_000, 3))
    noise = Categorical.noise((40_000,), Discrete(3), torch.Generator().manual_seed(0))
    share = torch.bincount(dist.sample(noise), minlength=3) / 40_000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.3, 0.2]), atol=0.01, rtol=0)


def test_normal_equals_torch() -> None:
    raw, action = torch.randn(5, 6).clamp(max=2), torch.randn(5, 3)
    ours = Normal.from_head(raw)
    theirs = torch.distributions.Independent(torch.distributions.Normal(raw[:, :3], raw[:, 3:].exp()), 1)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), raw[:, :3])


def test_normal_samples_have_its_moments() -> None:
    dist = Normal.from_head(torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0, -1.0]).expand(50_000, 6))
    sample = dist.sample(Normal.noise((50_000,), BOX, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(sample.mean(0), torch.tensor([1.0, -2.0, 0.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(sample.std(0).log(), torch.tensor([0.5, 0.0, -1.0]), atol=0.03, rtol=0)


def test_normal_scale_is_clamped() -> None:
    dist = Normal.from_head(torch.tensor([[0.0, 100.0], [0.0, -100.0]]))
    assert dist.log_std.tolist() == [[2.0], [-5.0]]


def test_default_and_misfit() -> None:
    assert distribution_for("default", Discrete(2)) is Categorical
    assert distribution_for("default", BOX) is Normal
    with pytest.raises(ValueError, match=r"'Normal' does not fit Discrete actions \(known: Categorical\)"):
        distribution_for("Normal", Discrete(2))
    with pytest.raises(ValueError, match="'default' does not fit MultiBinary"):
        distribution_for("default", MultiBinary(2))
