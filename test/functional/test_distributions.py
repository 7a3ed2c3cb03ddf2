"""Distributions against torch.distributions, and samples against their probabilities."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as theirs

from slm_lab.functional.continuous_distributions import Beta, MultivariateNormal, Normal, TanhNormal
from slm_lab.functional.discrete_distributions import Argmax, Bernoulli, Categorical, GumbelSoftmax, MultiCategorical
from slm_lab.functional.distributions import FITTING, distribution_for
from slm_lab.types import Continuous, Discrete, Mixed, MultiBinary, MultiDiscrete

BOX = Continuous(3, (-1.0,) * 3, (1.0,) * 3)
LINE = Continuous(1, (-1.0,), (1.0,))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_categorical_equals_torch() -> None:
    logits, action = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    ours, other = Categorical.from_head(logits), theirs.Categorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(action), other.log_prob(action))
    torch.testing.assert_close(ours.entropy(), other.entropy())
    assert torch.equal(ours.mode(), logits.argmax(-1))


@pytest.mark.parametrize("dist", [Categorical, GumbelSoftmax])
def test_categorical_samples_follow_its_probabilities(dist: type[Categorical]) -> None:
    made = dist.from_head(torch.tensor([0.5, 0.3, 0.2]).log().expand(40_000, 3))
    share = torch.bincount(made.sample(dist.noise((40_000,), Discrete(3), generator())), minlength=3) / 40_000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.3, 0.2]), atol=0.01, rtol=0)


def test_argmax_plays_the_best_and_shares_among_equals() -> None:
    raw = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 4.0]])
    dist = Argmax.from_head(raw)
    torch.testing.assert_close(dist.entropy(), torch.tensor([0.0, math.log(2)]))
    torch.testing.assert_close(dist.log_prob(torch.tensor([1, 2])), torch.tensor([0.0, -math.log(2)]))
    many = Argmax.from_head(raw[1].expand(10_000, 3)).sample(Argmax.noise((10_000,), Discrete(3), generator()))
    share = torch.bincount(many, minlength=3) / 10_000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.0, 0.5]), atol=0.02, rtol=0)


def test_multi_categorical_equals_independent_ones() -> None:
    space = MultiDiscrete((2, 3, 4))
    dist = distribution_for("default", space)
    assert dist.head_size(space) == 9
    raw, action = torch.randn(5, 9), torch.tensor([[0, 1, 2], [1, 2, 3], [0, 0, 0], [1, 1, 1], [0, 2, 3]])
    parts = [theirs.Categorical(logits=p) for p in raw.split((2, 3, 4), -1)]
    ours = dist.from_head(raw)
    log_probs = [p.log_prob(a) for p, a in zip(parts, action.unbind(-1), strict=True)]
    torch.testing.assert_close(ours.log_prob(action), torch.stack(log_probs).sum(0))
    torch.testing.assert_close(ours.entropy(), sum((p.entropy() for p in parts), torch.zeros(5)))
    assert torch.equal(ours.mode(), torch.stack([p.probs.argmax(-1) for p in parts], -1))


def test_multi_categorical_samples_each_place_by_itself() -> None:
    space = MultiDiscrete((2, 3))
    dist = distribution_for("MultiCategorical", space)
    raw = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.5]).log().expand(40_000, 5)
    sample = dist.from_head(raw).sample(dist.noise((40_000,), space, generator()))
    assert sample.shape == (40_000, 2)
    for place, p in ((0, [0.9, 0.1]), (1, [0.2, 0.3, 0.5])):
        share = torch.bincount(sample[:, place], minlength=len(p)) / 40_000
        torch.testing.assert_close(share, torch.tensor(p), atol=0.01, rtol=0)


def test_two_spaces_do_not_share_a_class() -> None:
    first, second = (distribution_for("default", MultiDiscrete(n)) for n in ((2, 3), (4, 1)))
    assert first.from_head(torch.zeros(1, 5)).mode().shape == (1, 2)
    torch.testing.assert_close(first.from_head(torch.zeros(1, 5)).entropy(), torch.tensor([math.log(6)]))
    torch.testing.assert_close(second.from_head(torch.zeros(1, 5)).entropy(), torch.tensor([math.log(4)]))


def test_bernoulli_equals_torch() -> None:
    logits, action = torch.randn(6, 4) * 3, torch.randint(0, 2, (6, 4))
    ours, other = Bernoulli.from_head(logits), theirs.Independent(theirs.Bernoulli(logits=logits), 1)
    torch.testing.assert_close(ours.log_prob(action), other.log_prob(action.float()))
    torch.testing.assert_close(ours.entropy(), other.entropy())
    assert torch.equal(ours.mode(), (logits > 0).long())
    assert Bernoulli.from_head(torch.tensor([[200.0]])).log_prob(torch.tensor([[0]])).item() == -200


def test_bernoulli_samples_follow_its_probabilities() -> None:
    p = torch.tensor([0.9, 0.5, 0.2])
    noise = Bernoulli.noise((40_000,), MultiBinary(3), generator())
    sample = Bernoulli.from_head(p.logit().expand(40_000, 3)).sample(noise)
    assert sample.dtype == torch.int64
    torch.testing.assert_close(sample.float().mean(0), p, atol=0.01, rtol=0)


def test_normal_equals_torch() -> None:
    raw, action = torch.randn(5, 6).clamp(max=2), torch.randn(5, 3)
    ours = Normal.from_head(raw)
    other = theirs.Independent(theirs.Normal(raw[:, :3], raw[:, 3:].exp()), 1)
    torch.testing.assert_close(ours.log_prob(action), other.log_prob(action))
    torch.testing.assert_close(ours.entropy(), other.entropy())
    assert torch.equal(ours.mode(), raw[:, :3])


def test_normal_samples_have_its_moments() -> None:
    dist = Normal.from_head(torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0, -1.0]).expand(50_000, 6))
    sample = dist.sample(Normal.noise((50_000,), BOX, generator()))
    torch.testing.assert_close(sample.mean(0), torch.tensor([1.0, -2.0, 0.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(sample.std(0).log(), torch.tensor([0.5, 0.0, -1.0]), atol=0.03, rtol=0)


def test_normal_scale_is_clamped() -> None:
    dist = Normal.from_head(torch.tensor([[0.0, 100.0], [0.0, -100.0]]))
    assert dist.log_std.tolist() == [[2.0], [-5.0]]


def test_multivariate_normal_reads_variances() -> None:
    raw, action = torch.randn(5, 6, generator=generator()).clamp(-2, 2), torch.randn(5, 3)
    ours = MultivariateNormal.from_head(raw)
    other = theirs.MultivariateNormal(raw[:, :3], torch.diag_embed(raw[:, 3:].exp()))
    torch.testing.assert_close(ours.log_prob(action), other.log_prob(action))
    torch.testing.assert_close(ours.entropy(), other.entropy())
    noise = MultivariateNormal.noise((50_000,), BOX, generator())
    sample = MultivariateNormal.from_head(raw[:1].expand(50_000, 6)).sample(noise)
    torch.testing.assert_close(sample.var(0).log(), raw[0, 3:], atol=0.03, rtol=0)


def tanh_normal(raw: Tensor) -> theirs.Distribution:
    loc, log_std = raw.chunk(2, -1)
    base = theirs.Independent(theirs.Normal(loc, log_std.exp()), 1)
    return theirs.TransformedDistribution(base, theirs.TanhTransform(cache_size=1))


def test_tanh_normal_equals_torch() -> None:
    raw, noise = torch.randn(7, 6) * 0.5, torch.randn(7, 3)
    ours = TanhNormal.from_head(raw)
    action, log_prob = ours.sample_log_prob(noise)
    torch.testing.assert_close(action, ours.sample(noise))
    torch.testing.assert_close(log_prob, tanh_normal(raw).log_prob(action), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.log_prob(action), log_prob, atol=1e-3, rtol=1e-3)
    assert torch.equal(ours.mode(), raw[:, :3].tanh())


def test_tanh_normal_density_integrates_to_one() -> None:
    a = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1]
    for raw in ([0.0, 0.0], [1.5, -1.0], [-0.3, 0.4]):
        density = TanhNormal.from_head(torch.tensor([raw], dtype=torch.float64)).log_prob(a[:, None]).exp()
        assert torch.trapezoid(density, a).item() == pytest.approx(1, abs=2e-3)


def test_tanh_normal_stays_finite_where_tanh_is_one() -> None:
    """u = 30: tanh rounds to 1, and log(1 - tanh^2) by itself would be minus infinity."""
    raw = torch.tensor([[30.0, 0.0]], requires_grad=True)
    action, log_prob = TanhNormal.from_head(raw).sample_log_prob(torch.zeros(1, 1))
    assert action.item() == 1
    # log N(u) + 2 u - 2 ln 2, as softplus(-60) is 0
    assert log_prob.item() == pytest.approx(-0.5 * math.log(2 * math.pi) + 60 - 2 * math.log(2))
    log_prob.sum().backward()
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad, torch.tensor([[2.0, -1.0]]))


def test_tanh_normal_has_no_closed_entropy() -> None:
    with pytest.raises(NotImplementedError, match="no closed form"):
        TanhNormal.from_head(torch.zeros(1, 2)).entropy()


def test_beta_equals_torch() -> None:
    raw, action = torch.randn(6, 6), torch.rand(6, 3) * 1.8 - 0.9
    ours = Beta.from_head(raw)
    assert torch.stack([ours.alpha, ours.beta]).min() > 1
    base = theirs.Independent(theirs.Beta(ours.alpha, ours.beta), 1)
    other = theirs.TransformedDistribution(base, theirs.AffineTransform(-1.0, 2.0, event_dim=1))
    torch.testing.assert_close(ours.log_prob(action), other.log_prob(action))
    torch.testing.assert_close(ours.entropy(), base.entropy() + 3 * math.log(2))
    # the mode is where the density is highest
    around = torch.linspace(-0.999, 0.999, 2001)
    peak = around[Beta.from_head(raw[:1, ::3]).log_prob(around[:, None]).argmax()]
    torch.testing.assert_close(Beta.from_head(raw[:1, ::3]).mode().squeeze(), peak, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (1.2, 5.0), (30.0, 12.0)])
def test_beta_samples_follow_its_distribution(alpha: float, beta: float) -> None:
    n = 40_000
    dist = Beta(torch.full((n, 1), alpha), torch.full((n, 1), beta))
    sample = dist.sample(Beta.noise((n,), LINE, generator()))
    assert sample.shape == (n, 1)
    assert sample.abs().max() <= 1
    drawn = (sample.squeeze(-1) + 1) / 2
    exact = theirs.Beta(torch.tensor(alpha), torch.tensor(beta))
    torch.testing.assert_close(drawn.mean(), exact.mean, atol=0.005, rtol=0)
    torch.testing.assert_close(drawn.var(), exact.variance, atol=0.002, rtol=0.03)
    # the third moment E[x^3] too: a wrong acceptance shows in the skew
    third = alpha * (alpha + 1) * (alpha + 2) / ((alpha + beta) * (alpha + beta + 1) * (alpha + beta + 2))
    torch.testing.assert_close((drawn**3).mean(), torch.tensor(third), atol=0.005, rtol=0)


SPACES = (Discrete(3), BOX, MultiDiscrete((2, 3)), MultiBinary(4))


@pytest.mark.parametrize(("space", "name"), [(s, n) for s in SPACES for n in FITTING[type(s)]])
def test_contract_of_all(space: Discrete | Continuous | MultiDiscrete | MultiBinary, name: str) -> None:
    """Shapes, gradients that are finite, and the entropy as the mean of -log p over samples."""
    dist = distribution_for(name, space)
    raw = torch.randn(1, dist.head_size(space), generator=generator()).expand(20_000, -1).clone().requires_grad_()
    made = dist.from_head(raw)
    action = made.sample(dist.noise((20_000,), space, generator())).detach()
    log_prob, entropy = made.log_prob(action), made.entropy()
    assert log_prob.shape == entropy.shape == (20_000,)
    assert made.mode().shape == action.shape
    assert made.mode().dtype == action.dtype
    assert -log_prob.mean().item() == pytest.approx(entropy[0].item(), abs=0.03)
    (grad,) = torch.autograd.grad((log_prob + entropy).sum() + 0 * raw.sum(), raw)
    assert torch.isfinite(grad).all()


def test_product_by_hand() -> None:
    """One of {0, 1, 2}, a switch, one place of two and a real: logs and entropies add up."""
    action = Mixed((Discrete(3), MultiBinary(1), MultiDiscrete((2,)), LINE))
    # p = (1/2, 1/4, 1/4); on with 3/4; p = (1/5, 4/5); mean 0.5, standard deviation 2
    logs = [math.log(p) for p in (0.5, 0.25, 0.25)]
    raw = torch.tensor([[*logs, math.log(3), math.log(0.2), math.log(0.8), 0.5, math.log(2)]])
    dist = distribution_for("default", action).from_head(raw)
    taken = torch.tensor([[1.0, 0.0, 0.0, 2.5]])
    real = -0.5 - math.log(2) - 0.5 * math.log(2 * math.pi)
    assert dist.log_prob(taken).item() == pytest.approx(math.log(1 / 4) + math.log(1 / 4) + math.log(1 / 5) + real)
    nats = 1.5 * math.log(2)
    nats += -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    nats += -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    nats += 0.5 + 0.5 * math.log(2 * math.pi) + math.log(2)
    assert dist.entropy().item() == pytest.approx(nats)
    assert dist.mode().tolist() == [[0.0, 1.0, 1.0, 0.5]]


def test_product_equals_its_parts() -> None:
    action = Mixed((Discrete(3), LINE, MultiDiscrete((2, 2)), MultiBinary(2)))
    dist = distribution_for("default", action)
    assert dist.head_size(action) == 3 + 2 + 4 + 2
    raw = torch.randn(5, 11)
    ours = dist.from_head(raw)
    parts = [
        Categorical.from_head(raw[:, :3]),
        Normal.from_head(raw[:, 3:5]),
        MultiCategorical.of((2, 2)).from_head(raw[:, 5:9]),
        Bernoulli.from_head(raw[:, 9:]),
    ]
    taken = [torch.tensor([0, 1, 2, 2, 0]), torch.randn(5, 1), torch.randint(2, (5, 2)), torch.randint(2, (5, 2))]
    joined = torch.cat([taken[0].unsqueeze(-1), *taken[1:]], -1)
    assert joined.dtype == torch.float32
    sums = sum(p.log_prob(a) for p, a in zip(parts, taken, strict=True))
    torch.testing.assert_close(ours.log_prob(joined), sums)
    torch.testing.assert_close(ours.entropy(), sum(p.entropy() for p in parts))
    modes = [p.mode() for p in parts]
    assert torch.equal(ours.mode(), torch.cat([modes[0].unsqueeze(-1), *modes[1:]], -1))
    # side by side the noise of the parts
    noise = dist.noise((5,), action, generator())
    assert noise.shape == (5, 3 + 1 + 4 + 2)
    drawn = [p.sample(n) for p, n in zip(parts, noise.split([3, 1, 4, 2], -1), strict=True)]
    assert torch.equal(ours.sample(noise), torch.cat([drawn[0].unsqueeze(-1), *drawn[1:]], -1))


def test_default_and_misfit() -> None:
    assert distribution_for("default", Discrete(2)) is Categorical
    assert distribution_for("default", BOX) is Normal
    assert issubclass(distribution_for("default", MultiDiscrete((2,))), MultiCategorical)
    assert distribution_for("default", MultiBinary(2)) is Bernoulli
    with pytest.raises(ValueError, match=r"'Normal' does not fit Discrete actions \(known: Categorical, Argmax"):
        distribution_for("Normal", Discrete(2))
    with pytest.raises(ValueError, match="'Categorical' does not fit MultiBinary"):
        distribution_for("Categorical", MultiBinary(2))


@pytest.mark.parametrize("name", ["Categorical", "Normal", "Beta", "Bernoulli", "MultiCategorical"])
def test_a_head_is_refused_for_another_space(name: str) -> None:
    found = {n: d for fitting in FITTING.values() for n, d in fitting.items()}[name]
    wrong = BOX if name not in FITTING[Continuous] else Discrete(2)
    with pytest.raises(TypeError, match=name):
        found.head_size(wrong)
