"""What actor and critic think of a rollout, before they learn from it."""

import pytest
import torch
from support.agents import BOX, DISCRETE, Chance, make_info, make_spec

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm import actor_critic
from slm_lab.types import ActionSpace, Evaluated, Rollout


def play(action: ActionSpace, *, shared: bool) -> tuple[Agent, Rollout]:
    """An agent and a rollout of its own, with episodes that were cut off."""
    info = make_info(action)
    agent, env = Agent(make_spec("ppo", shared=shared), info, seed=0), Chance(info)
    obs = env.obs
    while not agent.memory.ready():
        done = agent.act(obs)
        step = env.step()
        agent.observe(obs, done, step)
        obs = step.obs
    rollout = agent.memory.sample()
    assert isinstance(rollout, Rollout)
    return agent, rollout


def evaluate(agent: Agent, rollout: Rollout) -> Evaluated:
    with torch.no_grad():
        found: Evaluated = agent.algorithm.evaluate(rollout)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=["discrete", "continuous"])
@pytest.mark.parametrize("shared", [False, True])
def test_values_and_log_probabilities_are_those_of_each_step(action: ActionSpace, shared: bool) -> None:
    agent, rollout = play(action, shared=shared)
    found = evaluate(agent, rollout)
    t, n = rollout.reward.shape
    net = agent.algorithm.net  # type: ignore[attr-defined]
    with torch.no_grad():
        for k in range(t + 1):
            policy, value = net.policy_value(rollout.obs[k])
            torch.testing.assert_close(found.value[k], value)
            if k < t:
                torch.testing.assert_close(found.log_prob[k], policy.log_prob(rollout.action[k]))
        final = net.value(rollout.final_obs)
    assert len(final) > 0
    expected = torch.zeros(t * n)
    expected[rollout.final_index] = final
    torch.testing.assert_close(found.final_value.flatten(), expected)


@pytest.mark.parametrize("numbers", [1, 8, 20, 10**6])
def test_in_parts_it_is_the_same(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, rollout = play(DISCRETE, shared=False)
    whole = evaluate(agent, rollout)
    monkeypatch.setattr(actor_critic, "AT_ONCE", numbers)
    for part, expected in zip(evaluate(agent, rollout), whole, strict=True):
        torch.testing.assert_close(part, expected)
