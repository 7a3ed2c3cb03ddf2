"""Two agents on one set of parameters: each one's gradients reach the shared vector, at the point where it computed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.agents import Chance, make_info, make_spec
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.random import Random
from slm_lab.lib.errors import SpecError

needs_compiler = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")
LR = 0.1
SGD = {"name": "SGD", "lr": LR}


def make_agent(seed: int = 0, *, compile: bool = False, algorithm: str = "a2c_gae", **net: Any) -> Agent:
    return Agent(make_spec(algorithm, **net), make_info(), seed=seed, init_seed=7, compile=compile)


def in_memory(agent: Agent) -> dict[str, Tensor]:
    return {k: t.clone() for k, t in agent.shared().items()}


def play(agent: Agent, seed: int) -> None:
    """Up to the moment before an update."""
    env = Chance(agent.info, seed)
    for _ in range(agent.training_frequency):
        obs = env.obs
        agent.observe(obs, agent.act(obs), env.step())


def flat(agent: Agent) -> Tensor:
    """What the agent's nets compute with."""
    return torch.cat([p.detach().flatten() for net in agent.algorithm.nets.values() for p in net.parameters()])


def step_alone(seed: int, **net: Any) -> Tensor:
    """By how much an agent on its own moves in the update after `play`."""
    agent = make_agent(seed, **net)
    start = flat(agent).clone()
    play(agent, seed)
    agent.maybe_update(24)
    return flat(agent) - start


def test_initial_weights_follow_the_init_seed() -> None:
    assert torch.equal(flat(make_agent(1)), flat(make_agent(2)))
    spec = make_spec("a2c_gae")
    assert not torch.equal(flat(Agent(spec, make_info(), seed=1)), flat(Agent(spec, make_info(), seed=2)))


@pytest.mark.parametrize(
    ("algorithm", "compile"),
    [("a2c_gae", False), ("reinforce", False), pytest.param("a2c_gae", True, marks=needs_compiler)],
)
def test_with_copies_stale_gradients_add_up(
    algorithm: str, compile: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two start at p and compute their gradients there: p - lr g_1(p) - lr g_2(p), though they step in turn."""
    monkeypatch.setenv("SLM_LAB_CACHE", str(tmp_path))
    net = {"optim_spec": SGD, "algorithm": algorithm}
    first, second = (make_agent(seed, compile=compile, **net) for seed in (1, 2))
    start = flat(first).clone()
    common = in_memory(first)
    for agent, seed in ((first, 1), (second, 2)):
        agent.share_(common, copy=True)
        play(agent, seed)
    moves = [step_alone(seed, **net) for seed in (1, 2)]
    assert all(move.norm() > 1e-3 for move in moves)
    first.maybe_update(24)
    torch.testing.assert_close(flat(first) - start, moves[0])
    assert torch.equal(flat(second), start)
    second.maybe_update(24)
    torch.testing.assert_close(flat(second) - start, moves[0] + moves[1])
    # the first still computes with what was there after its own step
    torch.testing.assert_close(flat(first) - start, moves[0])
    together = torch.cat([common[f"{k}.flat"] for k in second.algorithm.nets])
    assert torch.equal(together, flat(second))


def test_without_copies_all_compute_with_what_any_learned() -> None:
    """The second one's gradient is of the parameters that the first one's step left."""
    first, second = (make_agent(seed, optim_spec=SGD) for seed in (1, 2))
    common = in_memory(first)
    for agent in (first, second):
        agent.share_(common, copy=False)
    start = flat(second).clone()
    play(first, 1)
    play(second, 2)
    first.maybe_update(24)
    between = flat(second).clone()
    torch.testing.assert_close(between - start, step_alone(1, optim_spec=SGD))
    second.maybe_update(24)
    assert torch.equal(flat(first), flat(second))
    moved = flat(second) - between
    assert moved.norm() > 1e-3
    assert not torch.allclose(moved, step_alone(2, optim_spec=SGD))


@pytest.mark.parametrize("copy", [False, True], ids=["shared", "synced"])
def test_moments_are_common_too(copy: bool) -> None:
    first, second = make_agent(1), make_agent(2)
    common = in_memory(first)
    for agent, seed in ((first, 1), (second, 2)):
        agent.share_(common, copy=copy)
        play(agent, seed)
        agent.maybe_update(24)
    assert {k.split(".")[1] for k in common} == {"flat", "step", "exp_avg", "exp_avg_sq"}
    assert common["net.step"] == common["critic_net.step"] == 2
    assert common["net.exp_avg"].norm() > 0


@pytest.mark.parametrize("copy", [False, True], ids=["shared", "synced"])
def test_ppo_takes_all_its_steps_on_the_common_parameters(copy: bool) -> None:
    agent, alone = make_agent(1, algorithm="ppo"), make_agent(1, algorithm="ppo")
    common = in_memory(agent)
    agent.share_(common, copy=copy)
    for a in (agent, alone):
        play(a, 1)
        a.maybe_update(24)
    assert agent.opt_step == alone.opt_step == 2 * 2 * 3
    assert torch.equal(flat(agent), flat(alone))
    assert torch.equal(torch.cat([common["net.flat"], common["critic_net.flat"]]), flat(alone))


def test_an_optimizer_that_keeps_its_state_to_itself_is_refused() -> None:
    agent = make_agent(optim_spec={"name": "Adagrad", "lr": 0.1})
    with pytest.raises(SpecError, match=r"Adagrad can't be distributed \(known: Adam, AdamW, RMSprop, SGD\)"):
        agent.shared()


def test_running_statistics_are_refused() -> None:
    agent = make_agent()
    agent.algorithm.nets["extra"] = torch.nn.BatchNorm1d(3)
    with pytest.raises(SpecError, match="running statistics"):
        agent.shared()


def test_random_learns_nothing_to_share() -> None:
    assert not Random.on_policy
