"""Value targets and advantages in units of their own: normalize_v_targets, normalize_advantages, symlog."""

import math
from typing import Any

import pytest
import torch
from support.agents import Chance, make_info, make_spec
from support.specs import replace
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.scales import AdvantageScale, TargetScale
from slm_lab.functional.normalize import merge_moments, quantile_range, symlog

CPU = torch.device("cpu")


def test_symlog() -> None:
    x = torch.tensor([-(math.e**2 - 1), -0.001, 0.0, 0.001, math.e - 1])
    torch.testing.assert_close(symlog(x), torch.tensor([-2.0, -0.0009995, 0.0, 0.0009995, 1.0]), rtol=1e-4, atol=1e-7)
    x = torch.tensor([0.0, 3.0], requires_grad=True)
    symlog(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad[1] == 0.25


def test_moments_of_parts_are_those_of_the_whole() -> None:
    parts = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * n + n for n in (1, 5, 40)]
    moments = torch.zeros(3)
    for part in parts:
        moments = merge_moments(moments, part)
    whole = torch.cat(parts)
    torch.testing.assert_close(moments, torch.stack([torch.tensor(46.0), whole.mean(), whole.var(correction=0)]))


def test_target_scale() -> None:
    scale = TargetScale(CPU)
    tensor = scale.tensor
    scale.update(torch.tensor([0.0, 1.0]))
    assert tensor == 1  # their deviation, 0.5, is less
    scale.update(torch.tensor([20.0, 19.0]))
    assert tensor == pytest.approx(torch.tensor([0.0, 1.0, 20.0, 19.0]).std(correction=0))
    other = TargetScale(CPU)
    other.load_state_dict(scale.state_dict())
    for each in (scale, other):
        each.update(torch.tensor([5.0]))
    assert other.tensor == tensor


def test_advantage_scale() -> None:
    scale = AdvantageScale(CPU)
    advantage = torch.linspace(-10, 10, 101)
    assert quantile_range(advantage) == pytest.approx(18)
    torch.testing.assert_close(scale.scale(advantage, 3), advantage / 18)
    other = AdvantageScale(CPU)
    other.load_state_dict(scale.state_dict())
    # two steps: the average has moved by 1 - 0.99^2 of the way from 18 to 36
    expected = 2 * advantage / (18 + 18 * (1 - 0.99**2))
    for each in (scale, other):
        torch.testing.assert_close(each.scale(2 * advantage, 2), expected)
    small = AdvantageScale(CPU)
    torch.testing.assert_close(small.scale(advantage / 100, 1), advantage / 100)


def make(name: str, **algorithm: Any) -> Agent:
    spec = make_spec(name)
    for key, value in algorithm.items():
        spec = replace(spec, f"agent.algorithm.{key}", value)
    return Agent(spec, make_info(), seed=0)


def play(agent: Agent, steps: int, chance: Chance) -> None:
    obs = chance.obs
    for t in range(steps):
        action = agent.act(obs)
        step = chance.step()
        agent.observe(obs, action, step)
        obs = step.obs
        agent.maybe_update(3 * (t + 1))


def batch(n: int = 8) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    obs, value, advantage, ret = (torch.randn(size, generator=g) * 5 for size in ((n, 4), (n,), (n,), (n,)))
    return obs, torch.randint(3, (n,), generator=g), -torch.rand(n, generator=g), value, advantage, ret


@pytest.mark.parametrize("name", ["a2c_gae", "a2c_nstep", "ppo"])
def test_value_errors_in_units_of_the_targets(name: str) -> None:
    plain: Any = make(name).algorithm
    scaled: Any = make(name, normalize_v_targets=True).algorithm
    scaled.target_scale.tensor.fill_(2.0)
    assert len(scaled.coefs()) == len(plain.coefs()) + 1
    _, expected = plain.loss(*batch(), *plain.coefs())
    _, stats = scaled.loss(*batch(), *scaled.coefs())
    # the squared error of half the values is a quarter
    torch.testing.assert_close(stats["value_loss"], expected["value_loss"] / 4)
    torch.testing.assert_close(stats["policy_loss"], expected["policy_loss"])


def test_ppo_compares_values_by_their_symlog() -> None:
    algorithm: Any = make("ppo", symlog=True).algorithm
    data = batch()
    _, stats = algorithm.loss(*data, *algorithm.coefs())
    value = algorithm.net.value(data[0])
    torch.testing.assert_close(stats["value_loss"], ((symlog(value) - symlog(data[5])) ** 2).mean())


def test_ppo_leaves_scaled_advantages_as_they_are() -> None:
    algorithm: Any = make("ppo", normalize_advantages="percentile").algorithm
    data = batch()
    with torch.no_grad():
        log_prob = algorithm.net.policy(data[0]).log_prob(data[1])
    _, stats = algorithm.loss(*data[:2], log_prob, *data[3:], *algorithm.coefs())
    # the ratio is 1
    torch.testing.assert_close(stats["policy_loss"], -data[4].mean())


@pytest.mark.parametrize("name", ["a2c_gae", "ppo"])
def test_scales_are_part_of_the_state(name: str) -> None:
    keys: dict[str, Any] = {"normalize_v_targets": True}
    if name == "ppo":
        keys |= {"normalize_advantages": "percentile", "symlog": True, "clip_vloss": True}
    first, second = make(name, **keys), make(name, **keys)
    chance = Chance(make_info())
    play(first, 16, chance)
    second.load_state_dict(first.state_dict())
    ends = []
    for agent in (first, second):
        play(agent, 16, Chance(make_info(), seed=3))
        ends.append(agent.weights())
    for key, weight in ends[0].items():
        assert torch.equal(weight, ends[1][key]), key


def test_sac_compares_q_values_by_their_symlog() -> None:
    losses = []
    for on in (False, True):
        algorithm: Any = sac(symlog=on)
        g = torch.Generator().manual_seed(0)
        obs, next_obs = torch.randn((2, 8, 4), generator=g).unbind()
        data = (
            obs,
            torch.randint(3, (8,), generator=g),
            torch.full((8,), 1000.0),
            next_obs,
            torch.ones(8),
            torch.ones(8),
        )
        coefs = (torch.tensor(0.5), torch.tensor(0.1))
        loss, stats = algorithm.critic_loss(*data, *coefs)
        q1, q2 = algorithm.critics(obs, data[1])
        reward = torch.tensor(1000.0)
        how = symlog if on else (lambda x: x)
        torch.testing.assert_close(loss, ((how(q1) - how(reward)) ** 2 + (how(q2) - how(reward)) ** 2).mean())
        assert stats["error"].min() > 900
        losses.append(loss.item())
    assert losses[1] < 200 < losses[0]


def sac(**algorithm: Any) -> Any:
    spec = make_spec("a2c_gae")
    agent = {
        **spec.to_dict()["agent"],
        "algorithm": {"name": "SoftActorCritic"} | algorithm,
        "memory": {"name": "Replay", "batch_size": 8, "max_size": 64},
    }
    return Agent(replace(spec, "agent", agent), make_info(), seed=0).algorithm
