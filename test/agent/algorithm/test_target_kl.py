"""PPO's `target_kl`: an update ends with the epoch in which the policy has moved too far."""

from typing import Any

import pytest
import torch
from support.agents import Chance, make_info, make_spec
from support.specs import replace

from slm_lab.agent.agent import Agent
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec


def spec(target: float | None, **net: Any) -> Spec:
    made = make_spec("ppo", **net)
    made = replace(made, "agent.algorithm.training_epoch", 6)
    return replace(made, "agent.algorithm.target_kl", target)


def steps(agent: Agent, updates: int = 2) -> int:
    """Gradient steps of so many updates: 3 minibatches of 8 an epoch."""
    world = Chance(make_info())
    for t in range(8 * updates):
        obs = world.obs
        action = agent.act(obs)
        agent.observe(obs, action, world.step())
        agent.maybe_update(3 * (t + 1))
    return agent.algorithm.learner.steps  # type: ignore[attr-defined, no-any-return]


def test_an_update_ends_behind_the_epoch_that_went_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps(Agent(spec(None), make_info(), seed=0), 1) == 6 * 3
    assert steps(Agent(spec(1e-9), make_info(), seed=0), 1) == 1 * 3
    agent = Agent(spec(0.02), make_info(), seed=0)
    learner: Any = agent.algorithm.learner  # type: ignore[attr-defined]
    told = iter([0.01, 0.03, 0.01, 0.02, 0.03, 0.02])
    taken = []

    def step(*args: Any) -> tuple[torch.Tensor, ...]:
        taken.append(1)
        return (torch.tensor(next(told)),)

    monkeypatch.setattr(learner, "step", step)
    agent.algorithm.learn((torch.zeros(24, 1),))  # type: ignore[attr-defined]
    # means of the epochs: 0.0167, then 0.0233
    assert len(taken) == 6


def test_what_is_never_reached_changes_nothing() -> None:
    one, other = Agent(spec(None), make_info(), seed=0), Agent(spec(1e9), make_info(), seed=0)
    assert steps(one) == steps(other)
    weights, same = one.weights(), other.weights()
    assert all(torch.equal(weights[k], same[k]) for k in weights)


@pytest.mark.slow
def test_compiled_as_eager() -> None:
    one, other = (Agent(spec(0.005), make_info(), seed=0, compile=on) for on in (False, True))
    assert steps(one) == steps(other)
    assert other.algorithm.learner.compile  # type: ignore[attr-defined]
    weights, same = one.weights(), other.weights()
    for key, value in weights.items():
        torch.testing.assert_close(value, same[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [0, -0.1, True, "no"])
def test_it_must_be_a_number_above_0(value: Any) -> None:
    raw = make_spec("ppo").to_dict()
    raw["agent"]["algorithm"]["target_kl"] = value
    with pytest.raises(SpecError, match="target_kl"):
        load_spec(raw)
