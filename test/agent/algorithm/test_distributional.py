"""C51, QR-DQN, noisy DQN and Rainbow: losses by hand, chance, parts left out, and what can't be."""

from typing import Any

import numpy as np
import pytest
import torch
from support.values import EPSILON, PER, RAW, World, batch, live, make
from torch import Tensor

from slm_lab.agent.algorithm.return_head import CategoricalHead, QuantileHead
from slm_lab.agent.net.noisy import LayerNoise, NoisyLinear
from slm_lab.functional.distributional import categorical_projection, make_support
from slm_lab.lib.errors import SpecError

C51: dict[str, Any] = {"algorithm__atoms": 5, "algorithm__v_min": -2.0, "algorithm__v_max": 2.0}
RAINBOW: dict[str, Any] = {"name": "Rainbow", "memory": PER, **C51}
PARTS = ("double", "prioritized", "dueling", "multi_step", "distributional", "noisy")
SUPPORT = make_support(-2.0, 2.0, 5)


def shaken(agent: Any) -> Any:
    """The algorithm, with a net that differs from its target net."""
    flat = agent.algorithm.optims["net"].params.flat
    flat.add_(torch.randn(len(flat), generator=torch.Generator().manual_seed(2)))
    return agent.algorithm


def raw_outputs(algorithm: Any, data: tuple[Tensor, ...], each: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the net for s and s', and of the target net for s', [B, n, K]."""
    with torch.no_grad():
        outs = algorithm.net(data[0])[0], algorithm.net(data[3])[0], algorithm.target.net(data[3])[0]
        return tuple(x.view(6, 4, each) for x in outs)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["DQN", "DoubleDQN"])
def test_c51_learns_the_projected_distribution_of_the_best_action(name: str) -> None:
    data = (*batch()[:5], torch.tensor([1.0, 0.0, 0.5, 0.25, 2.0, 0.0]))
    algorithm = shaken(make(name, **C51))
    raw, online, target = raw_outputs(algorithm, data, 5)
    _, action, reward, _, terminated, weight = data
    chooser = online if name == "DoubleDQN" else target
    total = torch.tensor(0.0)
    for i in range(6):
        best = (chooser[i].softmax(-1) * SUPPORT).sum(-1).argmax()
        value = reward[i] + 0.9 * (1 - terminated[i]) * SUPPORT
        m = categorical_projection(value[None], target[i, best].softmax(-1)[None], SUPPORT)[0]
        log_p = raw[i, action[i]].log_softmax(-1)
        total += weight[i] * -(m * log_p).sum() / 6
        kl = sum(float(m[k]) * (float(m[k].log()) - float(log_p[k])) for k in range(5) if m[k] > 0)
        error = algorithm.loss(*data)[1]["error"][i]
        torch.testing.assert_close(error, torch.tensor(kl), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(algorithm.loss(*data)[0], total)


def test_qrdqn_regresses_quantiles_of_the_best_action() -> None:
    data = (*batch()[:5], torch.tensor([1.0, 0.0, 0.5, 0.25, 2.0, 0.0]))
    algorithm = shaken(make("QRDQN", algorithm__quantiles=3, algorithm__kappa=0.5))
    raw, _, target = raw_outputs(algorithm, data, 3)
    _, action, reward, _, terminated, weight = data
    total = 0.0
    for i in range(6):
        y = reward[i] + 0.9 * (1 - terminated[i]) * target[i, target[i].mean(-1).argmax()]
        theta = raw[i, action[i]]
        for k, tau in enumerate((1 / 6, 3 / 6, 5 / 6)):
            for u in (y - theta[k]).tolist():
                huber = 0.5 * u * u if abs(u) <= 0.5 else 0.5 * (abs(u) - 0.25)
                total += float(weight[i]) * abs(tau - (u < 0)) * huber / 3 / 6
        error = algorithm.loss(*data)[1]["error"][i]
        torch.testing.assert_close(error, y.mean() - theta.mean())
    torch.testing.assert_close(algorithm.loss(*data)[0], torch.tensor(total))


@pytest.mark.parametrize("head", [CategoricalHead(-2.0, 2.0, 5), QuantileHead(5, 1.0)])
def test_gradients_reach_the_actions_taken_alone(head: CategoricalHead | QuantileHead) -> None:
    raw = torch.randn(3, 20, requires_grad=True)
    best = torch.randn(3, 5, requires_grad=True)
    action = torch.tensor([0, 3, 1])
    loss, _, _ = head.loss(raw, action, torch.ones(3), torch.zeros(3), best.detach(), 0.9)
    loss.sum().backward()
    assert raw.grad is not None
    touched = raw.grad.view(3, 4, 5).abs().sum(-1) > 0
    assert torch.equal(touched, torch.eye(4, dtype=torch.bool)[action])


def test_greedy_actions_have_the_highest_mean() -> None:
    for changes in ({"name": "DQN", **C51}, {"name": "QRDQN", "algorithm__quantiles": 5}):
        agent = make(**changes)
        algorithm: Any = agent.algorithm
        obs = World().obs
        raw = algorithm.net(torch.from_numpy(obs))[0].view(2, 4, 5)
        mean = (raw.softmax(-1) * SUPPORT).sum(-1) if "algorithm__atoms" in changes else raw.mean(-1)
        assert agent.act(obs, explore=False).tolist() == mean.argmax(-1).tolist()


def noisy_layers(net: torch.nn.Module) -> list[NoisyLinear]:
    return [m for m in net.modules() if isinstance(m, NoisyLinear)]


def test_noise_explores_in_place_of_epsilon_and_greedy_acts_have_none() -> None:
    agent = make("DQN", net__noisy_std=3.0)
    obs = World().obs
    assert "explore_var" not in {k for k, v in agent.variables().items() if v}
    assert len({tuple(agent.act(obs).tolist()) for _ in range(50)}) > 3
    assert len({tuple(agent.act(obs, explore=False).tolist()) for _ in range(20)}) == 1


def test_every_gradient_step_has_noise_of_its_own_for_net_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make("DQN", net__noisy_std=0.5, algorithm__training_batch_iter=2)
    algorithm: Any = agent.algorithm
    live(agent, World(), 10)
    seen: list[tuple[Tensor, Tensor]] = []
    step = algorithm.learner.step

    def spy(*args: Any) -> Any:
        nets = (algorithm.net, algorithm.target.net)
        seen.append(tuple(noisy_layers(net)[0].noise_in.clone() for net in nets))  # type: ignore[arg-type]
        return step(*args)

    monkeypatch.setattr(algorithm.learner, "step", spy)
    live(agent, World(1), 2, 20)
    assert len(seen) == 2
    drawn = [x for pair in seen for x in pair]
    assert all(x.any() for x in drawn)
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


@pytest.mark.parametrize("without", [(), *((part,) for part in PARTS), PARTS])
def test_parts_of_rainbow_can_be_left_out(without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(**RAINBOW, algorithm__without=list(without))
    algorithm: Any = shaken(agent)
    told = []
    keep = agent.memory.update_priority  # type: ignore[attr-defined]
    monkeypatch.setattr(agent.memory, "update_priority", lambda i, e: told.append(keep(i, e)))
    drawn: list[tuple[int, float]] = []
    draw = agent.memory.sample

    def sample(n: int, gamma: float) -> Any:
        drawn.append((n, gamma))
        return draw(n, gamma)  # type: ignore[call-arg]

    monkeypatch.setattr(agent.memory, "sample", sample)
    live(agent, World(), 12)
    assert algorithm.opt_step > 0
    assert set(drawn) == {(1 if "multi_step" in without else 3, 0.9)}
    assert bool(told) == ("prioritized" not in without)
    dueling = hasattr(algorithm.net.heads["q"], "advantage")
    assert dueling == ("dueling" not in without)
    assert bool(LayerNoise(algorithm.net, torch.Generator())) == ("noisy" not in without)
    assert (algorithm.explorer.var.spec is not None) == ("noisy" in without)
    each = 1 if "distributional" in without else 5
    assert algorithm.head.each == each
    next_obs = batch()[3]
    with torch.no_grad():
        raw, judge = algorithm.net(next_obs)[0], algorithm.target.net(next_obs)[0]
        chosen = algorithm.head.q(judge if "double" in without else raw).argmax(-1)
        expected = judge.view(6, 4, each)[torch.arange(6), chosen]
        torch.testing.assert_close(algorithm.next_return(next_obs).view(6, each), expected)


def test_a_mean_needs_no_bounds_of_the_return() -> None:
    agent = make(name="Rainbow", memory=PER, algorithm__without=["distributional"])
    live(agent, World(), 12)
    assert agent.algorithm.opt_step > 0


def test_without_priorities_every_transition_is_as_likely() -> None:
    agent = make(**RAINBOW, algorithm__without=["prioritized"])
    live(agent, World(), 30)
    memory: Any = agent.memory
    leaves = memory._tree.leaves
    assert set(np.unique(leaves)) == {0.0, 1.0}
    assert memory.sample().weight.tolist() == [1.0] * 8


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"algorithm__atoms": 51}, "v_min: missing"),
        ({**C51, "algorithm__v_min": 2.0}, "must be less than v_max"),
        ({**C51, "algorithm__atoms": 1}, "atoms"),
        ({"name": "QRDQN", "algorithm__quantiles": 0}, "quantiles"),
        ({"name": "SARSA", "net__noisy_std": 0.5}, "SARSA draws no noise for it, these do: .*Rainbow"),
        ({"name": "DQN", "net__noisy_std": -0.5}, "noisy_std"),
        ({**RAINBOW, "algorithm__without": ["dobule"]}, "did you mean 'double'"),
        ({**RAINBOW, "memory": RAW["agent"]["memory"]}, "Rainbow needs PrioritizedReplay"),
        (
            {**RAINBOW, "net": {"type": "TorchArcNet", "arc": {"modules": {}, "graph": {}}}},
            "TorchArcNet can't be dueling and noisy",
        ),
    ],
)
def test_what_can_not_be_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        make(**changes)


def test_exploration_of_the_spec_is_used_where_nothing_else_explores() -> None:
    algorithm: Any = make(**RAINBOW, algorithm__without=["noisy"]).algorithm
    assert algorithm.explorer.var.value == EPSILON["start_val"]
