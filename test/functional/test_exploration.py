"""How often which action is tried."""

import pytest
import torch

from slm_lab.functional.exploration import Boltzmann, EpsilonGreedy
from slm_lab.types import Continuous, Discrete

N = 40_000
Q = torch.tensor([0.0, 2.0, 1.0, -1.0])


def counts(way: type[EpsilonGreedy] | type[Boltzmann], explore_var: float) -> torch.Tensor:
    noise = way.noise((N,), Discrete(4), torch.Generator().manual_seed(0))
    return torch.bincount(way.choose(Q.expand(N, 4), torch.tensor(explore_var), noise), minlength=4) / N


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.3, 1.0])
def test_epsilon_greedy(epsilon: float) -> None:
    expected = torch.full((4,), epsilon / 4)
    expected[1] += 1 - epsilon
    torch.testing.assert_close(counts(EpsilonGreedy, epsilon), expected, atol=0.01, rtol=0)


def test_epsilon_0_never_explores_even_where_the_noise_is_0() -> None:
    assert EpsilonGreedy.choose(Q.expand(3, 4), torch.tensor(0.0), torch.zeros(3)).tolist() == [1, 1, 1]


def test_every_env_decides_for_itself() -> None:
    noise = EpsilonGreedy.noise((1000, 8), Discrete(4), torch.Generator().manual_seed(0))
    explores = (noise < 0.5).float()
    assert abs(explores.mean() - 0.5) < 0.02
    # were it drawn once for all, all eight would do the same
    assert (explores.mean(1) == explores[:, 0]).float().mean() < 0.05


@pytest.mark.parametrize("tau", [0.5, 1.0, 5.0])
def test_boltzmann(tau: float) -> None:
    torch.testing.assert_close(counts(Boltzmann, tau), (Q / tau).softmax(-1), atol=0.01, rtol=0)


def test_only_discrete_actions_can_be_tried_like_this() -> None:
    with pytest.raises(TypeError, match="discrete"):
        Boltzmann.noise((1,), Continuous(1, (0.0,), (1.0,)), torch.Generator())
