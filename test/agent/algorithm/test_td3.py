"""TD3, and DDPG by its keys: losses by their formulas, delays, noise, parity and resume."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from support.replay import BOX, DISCRETE, World, batch, make

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.td3 import TD3
from slm_lab.lib.errors import SpecError

DDPG = {"algorithm__num_critics": 1, "algorithm__policy_delay": 1, "algorithm__target_noise": 0.0}


def td3(**changes: Any) -> tuple[Agent, TD3]:
    agent = make(BOX, **{"algorithm__name": "TD3", **changes})
    assert isinstance(agent.algorithm, TD3)
    return agent, agent.algorithm


@torch.no_grad()
def test_losses_by_the_formulas() -> None:
    agent, algo = td3()
    for target in (algo.target, algo.policy_target):
        target.params.flat.add_(0.1 * torch.randn_like(target.params.flat))
    obs, action, reward, next_obs, end, _ = data = batch(agent)
    noise = torch.randn(5, 2) * 4
    assert (0.2 * noise).abs().max() > 0.5
    mean = algo.policy_target.net.net(next_obs)[0].tanh()
    a = (mean + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
    v = torch.minimum(algo.target.net.q1(next_obs, a), algo.target.net.q2(next_obs, a))
    y = reward + 0.9 * (1 - end) * v
    qs = [q(obs, action) for q in (algo.critics.q1, algo.critics.q2)]
    loss, stats = algo.critic_loss(*data, noise)
    torch.testing.assert_close(loss, ((qs[0] - y) ** 2).mean() + ((qs[1] - y) ** 2).mean())
    torch.testing.assert_close(stats["error"], (torch.minimum(*qs) - y).abs())
    loss, _ = algo.policy_loss(*data, noise)
    torch.testing.assert_close(loss, -algo.critics.q1(obs, algo.policy.net(obs)[0].tanh()).mean())


@torch.no_grad()
def test_ddpg_by_keys() -> None:
    agent, algo = td3(**DDPG)
    assert [name for name, _ in algo.critics.named_children()] == ["q1"]
    obs, action, reward, next_obs, end, _ = data = batch(agent)
    q = algo.critics.q1
    y = reward + 0.9 * (1 - end) * q(next_obs, algo.policy(next_obs))
    loss, _ = algo.critic_loss(*data, torch.full((5, 2), 9.0))
    torch.testing.assert_close(loss, ((q(obs, action) - y) ** 2).mean())


def test_policy_and_both_targets_wait_for_the_delay() -> None:
    agent, algo = td3(algorithm__policy_delay=3)
    world = World(agent.info)
    world.live(agent, 10)
    flats = {k: o.params.flat for k, o in algo.optims.items()}
    flats |= {"target": algo.target.params.flat, "policy_target": algo.policy_target.params.flat}
    changed = []
    for _ in range(6):
        before = {k: v.clone() for k, v in flats.items()}
        world.live(agent, 1)
        changed.append({k for k, v in flats.items() if not torch.equal(v, before[k])})
    assert changed == [{"critic_net"}, {"critic_net"}, set(flats)] * 2
    assert agent.opt_step == 6 + 2


def test_the_policys_gradient_leaves_the_critics_alone() -> None:
    """The trap: a policy that ascends Q by changing Q."""
    agent, algo = td3(algorithm__policy_delay=1, net__critic_optim_spec={"name": "SGD", "lr": 0.0})
    before = algo.critics.q1.net.body[0].weight.clone()
    World(agent.info).live(agent, 20)
    assert torch.equal(algo.critics.q1.net.body[0].weight, before)
    assert algo.learner.steps > 0


def test_acting() -> None:
    agent, algo = td3(algorithm__explore_var_spec={"name": "no_decay", "start_val": 0.3})
    obs = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    start = np.stack([agent.act(obs) for _ in range(10)])
    greedy = agent.act(obs, explore=False)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(greedy), algo.policy.net(torch.from_numpy(obs))[0].tanh())
    noisy = np.stack([agent.act(obs) for _ in range(2000)])
    assert np.abs(noisy).max() <= 1
    assert np.abs(noisy.mean(0) - greedy).max() < 0.05
    assert noisy.std(0).max() == pytest.approx(0.3, abs=0.03)
    assert start.std() > 0.4
    agent.load_policy_state(agent.policy_state())
    assert np.abs(agent.act(obs) - greedy).max() < 1.2


@pytest.mark.parametrize("changes", [{}, DDPG | {"algorithm__num_step_returns": 3}], ids=["td3", "ddpg"])
def test_state_round_trip_goes_on_bit_for_bit(changes: dict[str, Any]) -> None:
    agent, _ = td3(**changes)
    world = World(agent.info)
    world.live(agent, 18)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other, _ = td3(seed=9, **changes)
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(world)
    world.live(agent, 60)
    twin.live(other, 60)
    mine, its = agent.weights(), other.weights()
    assert all(torch.equal(mine[k], its[k]) for k in mine)
    assert agent.opt_step == other.opt_step


def test_compiled_equals_eager() -> None:
    (plain, _), (compiled, algo) = (td3(compile=c) for c in (False, True))
    first, second = (World(a.info).live(a, 20) for a in (plain, compiled))
    assert algo.learner.compile
    assert algo.turns.critics.compile
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(plain.weights(), compiled.weights(), atol=1e-4, rtol=1e-3)


def test_what_it_refuses() -> None:
    with pytest.raises(SpecError, match="TD3 acts in Continuous spaces, not Discrete"):
        make(DISCRETE, algorithm__name="TD3")
    with pytest.raises(SpecError, match="action_pdtype"):
        td3(algorithm__action_pdtype="Normal")
