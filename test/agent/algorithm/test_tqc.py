"""TQC and XQC: targets by their formulas, traps, parity and resume."""

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from support.replay import BOX, DISCRETE, World, batch, make
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.agent.net.normalization import BatchRenorm
from slm_lab.functional.distributional import truncated_quantiles
from slm_lab.functional.normalize import unit_rows_
from slm_lab.lib.errors import SpecError
from slm_lab.types import Step

ZERO = torch.zeros(())
PLAIN = {"LazyBatchRenorm1d": {"momentum": 0.1, "r_max": 1.0, "d_max": 0.0}}


def _arc(*layers: Any) -> dict[str, Any]:
    graph = {"input": "x", "modules": {"body": ["x"]}, "output": "body"}
    return {"modules": {"body": {"Sequential": list(layers)}}, "graph": graph}


NET = {
    "type": "TorchArcNet",
    "actor_arc": _arc({"LazyLinear": [16]}, "ReLU"),
    "critic_arc": _arc({"LazyLinear": [16]}, PLAIN, "ReLU", {"LazyLinear": [16]}, PLAIN, "ReLU"),
    "optim_spec": {"name": "Adam", "lr": 0.01},
    "update_type": "polyak",
    "polyak_coef": 0.1,
}
KEYS: dict[str, dict[str, Any]] = {
    "TQC": {"algorithm__num_critics": 3, "algorithm__quantiles": 4, "algorithm__drop_quantiles": 1},
    "XQC": {"algorithm__atoms": 11, "algorithm__policy_delay": 2, "net": NET},
}


def learner(name: str, **changes: Any) -> tuple[Agent, Any]:
    agent = make(BOX, **{"algorithm__name": name, **KEYS[name], **changes})
    return agent, agent.algorithm


def _policy(algo: Any, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    action, log_prob = algo.policy(obs).sample_log_prob(noise)
    return action, log_prob


@torch.no_grad()
def test_tqc_by_the_formula() -> None:
    agent, algo = learner("TQC")
    algo.target.params.flat.add_(0.3 * torch.randn_like(algo.target.params.flat))
    algo.temperature.log_alpha.fill_(math.log(0.3))
    obs, action, reward, next_obs, end, _ = data = batch(agent)
    next_noise, noise = torch.randn(2, 5, 2).unbind()
    a, log_prob = _policy(algo, next_obs, next_noise)
    members = (algo.target.net.q1, algo.target.net.q2, algo.target.net.q3)
    z = torch.cat([net(next_obs, a) for net in members], 1).sort(1).values[:, :9]
    y = reward[:, None] + 0.9 * (1 - end[:, None]) * (z - 0.3 * log_prob[:, None])
    expected = 0.0
    for net in (algo.critics.q1, algo.critics.q2, algo.critics.q3):
        theta = net(obs, action)
        for b in range(5):
            for i in range(4):
                for j in range(9):
                    u = float(y[b, j] - theta[b, i])
                    size = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
                    expected += abs((2 * i + 1) / 8 - (u < 0)) * size / (5 * 4 * 9)
    loss, _ = algo.critic_loss(*data, next_noise, noise, ZERO, ZERO)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    a, log_prob = _policy(algo, obs, noise)
    mean = torch.cat([net(obs, a) for net in (algo.critics.q1, algo.critics.q2, algo.critics.q3)], 1).mean(1)
    loss, _ = algo.policy_loss(*data, next_noise, noise, ZERO, ZERO)
    torch.testing.assert_close(loss, (0.3 * log_prob - mean).mean())


def test_the_highest_are_left_out_of_the_pool_and_not_of_each_critic() -> None:
    """The trap: a critic that is high as a whole loses more than its share."""
    z = torch.tensor([[[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]])
    assert truncated_quantiles(z, 2).tolist() == [[0, 1, 2, 10]]
    assert truncated_quantiles(z.flip(1), 0).tolist() == [[0, 1, 2, 10, 11, 12]]


@torch.no_grad()
def test_xqc_by_the_formula() -> None:
    agent, algo = learner("XQC")
    algo.target.params.flat.add_(0.3 * torch.randn_like(algo.target.params.flat))
    algo.temperature.log_alpha.fill_(math.log(0.3))
    obs, action, reward, next_obs, end, _ = data = batch(agent)
    next_noise = torch.randn(5, 2)
    a, log_prob = _policy(algo, next_obs, next_noise)
    z = torch.linspace(-5, 5, 11)
    both = torch.cat([obs, next_obs]), torch.cat([action, a])
    twin = copy.deepcopy(algo)
    twin.critics.train()
    twin.target.net.train()
    with torch.enable_grad():
        now = [net(*both)[:5].detach() for net in (twin.critics.q1, twin.critics.q2)]
        after = [net(*both)[5:].detach().softmax(-1) for net in (twin.target.net.q1, twin.target.net.q2)]
        loss, stats = algo.critic_loss(*data, next_noise, next_noise, ZERO, ZERO)
    expected = 0.0
    for b in range(5):
        p = min((x[b] for x in after), key=lambda p: float((p * z).sum()))
        m = torch.zeros(11)
        for j in range(11):
            y = float(reward[b] + 0.9 * (1 - end[b]) * (z[j] - 0.3 * log_prob[b]))
            place = (min(max(y, -5.0), 5.0) + 5) / 1.0
            low = min(int(place), 9)
            m[low] += p[j] * (low + 1 - place)
            m[low + 1] += p[j] * (place - low)
        expected -= sum(float((m * x[b].log_softmax(-1)).sum()) for x in now) / 5
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert stats["error"].shape == (5,)


def test_rows_keep_length_one_and_the_function_stays() -> None:
    agent, algo = learner("XQC")
    World(agent.info).live(agent, 20)
    assert agent.opt_step > 0
    assert len(algo._rows) == 4
    for weight in algo._rows:
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(16))
    layer, norm = torch.nn.Linear(3, 4, bias=False), BatchRenorm(4, eps=0.0, r_max=1.0, d_max=0.0)
    x = torch.randn(9, 3)
    before = norm(layer(x))
    with torch.no_grad():
        unit_rows_(layer.weight)
    torch.testing.assert_close(norm(layer(x)), before)
    agent, algo = learner("XQC", algorithm__weight_norm=False)
    assert algo._rows == []


def test_xqcs_target_moves_with_each_update_and_its_policy_with_every_second() -> None:
    agent, algo = learner("XQC")
    world = World(agent.info)
    world.live(agent, 10)
    moved = []
    for _ in range(4):
        before = algo.target.params.flat.clone(), algo.optims["net"].params.flat.clone()
        world.live(agent, 1)
        after = algo.target.params.flat, algo.optims["net"].params.flat
        moved.append(tuple(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert moved == [(True, False), (True, True)] * 2


@pytest.mark.parametrize("name", KEYS)
def test_state_round_trip_goes_on_bit_for_bit(name: str) -> None:
    agent, _ = learner(name)
    world = World(agent.info)
    world.live(agent, 18)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other, _ = learner(name, seed=9)
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(world)
    world.live(agent, 40)
    twin.live(other, 40)
    mine, its = agent.weights(), other.weights()
    assert all(torch.equal(mine[k], its[k]) for k in mine)


@pytest.mark.ci
@pytest.mark.parametrize("name", KEYS)
def test_compiled_equals_eager(name: str) -> None:
    # Adam divides by its eps where a gradient is rounding alone: that of a bias before a normalization
    optim = {"name": "Adam", "lr": 0.01, "eps": 1e-3}
    changes: dict[str, Any] = {"algorithm__policy_delay": 1, "net__optim_spec": optim}
    (plain, _), (compiled, algo) = (learner(name, compile=c, **changes) for c in (False, True))
    first, second = (World(a.info).live(a, 18) for a in (plain, compiled))
    assert algo.learner.compile
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(plain.weights(), compiled.weights(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", KEYS)
def test_what_they_refuse(name: str) -> None:
    with pytest.raises(SpecError, match=f"{name} acts in Continuous spaces, not Discrete"):
        make(DISCRETE, **{"algorithm__name": name, **KEYS[name]})
    for key, value in {"critic_subset": 1, "policy_q": "mean", "symlog": True}.items():
        with pytest.raises(SpecError, match=f"{key}.*has no meaning for critics of distributions"):
            learner(name, **{f"algorithm__{key}": value})
    with pytest.raises(SpecError, match="must be less than quantiles"):
        learner("TQC", algorithm__drop_quantiles=4)
    with pytest.raises(SpecError, match="must be greater than v_min"):
        learner("XQC", algorithm__v_max=-5.0)


@pytest.mark.parametrize("name", KEYS)
def test_they_find_the_best_action_of_one_step(name: str) -> None:
    keys: dict[str, Any] = {"fixed_alpha": 0.001, "policy_delay": 1, "training_start_step": 64}
    if name == "XQC":
        keys |= {"v_min": -2.0, "v_max": 0.0, "atoms": 51}
    changes = {f"algorithm__{key}": value for key, value in keys.items()}
    agent, _ = learner(name, memory__batch_size=32, memory__max_size=2000, **changes)
    rng, yes = np.random.default_rng(0), np.ones(2, np.bool_)
    obs = rng.normal(size=(2, 4)).astype(np.float32)
    for frame in range(2, 1102, 2):
        action = agent.act(obs)
        reward = -((action - [0.5, -0.5]) ** 2).sum(1).astype(np.float32)
        after = rng.normal(size=(2, 4)).astype(np.float32)
        agent.observe(obs, action, Step(after, reward, yes, ~yes, after, [0.0] * 2, [1] * 2))
        agent.maybe_update(frame)
        obs = after
    best = agent.act(obs, explore=False)
    assert np.abs(best - [0.5, -0.5]).max() < 0.4


def test_critics_of_one_quantile_learn() -> None:
    agent, algo = learner("TQC", algorithm__quantiles=1, algorithm__drop_quantiles=0)
    stats = World(agent.info).live(agent, 20)
    assert stats
    assert algo.opt_step > 0
