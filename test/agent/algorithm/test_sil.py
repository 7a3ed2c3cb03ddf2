import copy
import io
from typing import Any

import numpy as np
import pydash
import pytest
import torch

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.ppo import PPO
from slm_lab.agent.algorithm.sil import SIL
from slm_lab.env.cartpole import CartPole
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import load_spec

SIL_KEYS = {"sil_policy_loss_coef": 0.7, "sil_val_loss_coef": 0.3, "training_iter": 2, "training_batch_iter": 3}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "SIL": {"name": "SIL", "gamma": 0.9, "num_step_returns": 16, **SIL_KEYS},
    "PPOSIL": {
        "name": "PPOSIL",
        "gamma": 0.9,
        "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
        "time_horizon": 16,
        "training_epoch": 2,
        **SIL_KEYS,
    },
}
BOTH = pytest.mark.parametrize("name", ALGORITHMS)


def make(name: str, *, seed: int = 0, compile: bool = False, **changes: Any) -> Agent:
    raw: dict[str, Any] = {
        "name": "tiny",
        "agent": {
            "name": name,
            "algorithm": ALGORITHMS[name],
            "memory": {"name": "OnPolicyBatchReplay", "batch_size": 8, "max_size": 50},
            "net": {"type": "MLPNet", "hid_layers": [8], "optim_spec": {"name": "Adam", "lr": 0.01}},
        },
        "env": {"name": "CartPole-v1", "num_envs": 2, "max_frame": 1000},
        "meta": {},
    }
    raw = copy.deepcopy(raw)
    for key, value in changes.items():
        pydash.set_(raw["agent"], key.replace("__", "."), value)
    return Agent(load_spec(raw), CartPole(2).info, seed=seed, compile=compile)


def live(agent: Agent, env: CartPole, obs: Any, steps: int) -> tuple[Any, list[dict[str, float]]]:
    stats = []
    for _ in range(steps):
        action = agent.act(obs)
        step = env.step(action)
        agent.observe(obs, action, step)
        obs = step.obs.copy()
        report = agent.maybe_update(0)
        if report is not None:
            stats.append({k: v.item() for k, v in report.items()})
    return obs, stats


def sil(agent: Agent) -> SIL:
    assert isinstance(agent.algorithm, SIL)
    return agent.algorithm


@BOTH
@torch.no_grad()
def test_loss_by_the_formula(name: str) -> None:
    algo = sil(make(name))
    obs, action, ret = torch.randn(6, 4), torch.tensor([0, 1, 1, 0, 1, 0]), torch.randn(6) * 2
    log_p = algo.net.actor.net(obs)[0].log_softmax(-1)[torch.arange(6), action]
    assert algo.net.critic is not None
    gain = (ret - algo.net.critic(obs)[0].squeeze(-1)).clamp(min=0)
    loss, stats = algo.sil_loss(obs, action, ret)
    torch.testing.assert_close(loss, -0.7 * (log_p * gain).mean() + 0.3 * (gain**2).mean() / 2)
    assert torch.equal(stats["gain"], gain)


def test_steps_below_the_value_teach_nothing() -> None:
    algo = sil(make("SIL"))
    loss, _ = algo.sil_loss(torch.randn(6, 4), torch.zeros(6, dtype=torch.int64), torch.full((6,), -100.0))
    loss.backward()
    assert all(bool((o.params.grad == 0).all()) for o in algo.optims.values())


def test_the_policy_term_leaves_the_critic_alone() -> None:
    algo = sil(make("SIL", algorithm__sil_val_loss_coef=0.0))
    loss, _ = algo.sil_loss(torch.randn(6, 4), torch.zeros(6, dtype=torch.int64), torch.full((6,), 10.0))
    loss.backward()
    assert algo.optims["net"].params.grad.abs().sum() > 0
    assert algo.optims["critic_net"].params.grad.abs().sum() == 0


@BOTH
def test_both_nets_learn_from_the_past(name: str) -> None:
    agent, env = make(name), CartPole(2)
    live(agent, env, env.reset(0).copy(), 60)
    algo = sil(agent)
    before, steps = agent.weights(), agent.opt_step
    stats = algo.imitate(torch.device("cpu"))
    assert stats.keys() == {"sil_loss", "sil_gain"}
    assert all(not torch.equal(before[k], v) for k, v in agent.weights().items())
    # 2 batches, 3 steps each, 2 nets
    assert agent.opt_step == steps + 12


@BOTH
def test_reports_and_counts(name: str) -> None:
    agent, env = make(name), CartPole(2)
    _, stats = live(agent, env, env.reset(0).copy(), 64)
    assert len(stats) == 4
    assert stats[-1].keys() == set(agent.stat_names)
    own = 4 * 1 if name == "SIL" else 4 * 2
    # no episode has ended within the first rollout, or all of them learn from the past
    past = sum("sil_loss" in s for s in stats)
    assert agent.opt_step == 2 * (own + 6 * past)
    assert isinstance(agent.algorithm, PPO) == (name == "PPOSIL")


@BOTH
def test_it_learns_as_without_it_where_its_coefficients_are_zero(name: str) -> None:
    """SGD has no state: steps of a zero loss then change nothing, and the on-policy half is that of the parent."""
    plain_keys = {k: v for k, v in ALGORITHMS[name].items() if k not in SIL_KEYS}
    plain_keys["name"] = "ActorCritic" if name == "SIL" else "PPO"
    sgd = {"type": "MLPNet", "hid_layers": [8], "optim_spec": {"name": "SGD", "lr": 0.01}}
    # one more batch would move the shared generator: none is drawn before the first update
    first = make(name, net=sgd, algorithm__sil_policy_loss_coef=0.0, algorithm__sil_val_loss_coef=0.0)
    second = make(name, net=sgd, algorithm=plain_keys)
    for agent in (first, second):
        env = CartPole(2)
        live(agent, env, env.reset(0).copy(), 16)
    a, b = first.weights(), second.weights()
    assert all(torch.equal(a[k], b[k]) for k in b)


@BOTH
def test_state_round_trip_goes_on_bit_for_bit(name: str) -> None:
    agent, other = (make(name, seed=s, memory__sil_replay_name="PrioritizedReplay") for s in (0, 5))
    env = CartPole(2)
    obs, _ = live(agent, env, env.reset(0).copy(), 53)
    file = io.BytesIO()
    torch.save({"agent": agent.state_dict(), "env": env.state_dict()}, file)
    file.seek(0)
    tree = torch.load(file, weights_only=True)
    twin = CartPole(2)
    twin.reset(1)
    twin.load_state_dict(tree["env"])
    other.load_state_dict(tree["agent"])
    (obs_a, a), (obs_b, b) = live(agent, env, obs.copy(), 100), live(other, twin, obs.copy(), 100)
    assert a == b
    assert (obs_a == obs_b).all()
    mine, its = agent.weights(), other.weights()
    assert all(torch.equal(mine[k], its[k]) for k in mine)
    assert agent.opt_step == other.opt_step


def test_compiled_equals_eager() -> None:
    agents = [make("SIL", compile=c) for c in (False, True)]
    for agent in agents:
        env = CartPole(2)
        live(agent, env, env.reset(0).copy(), 64)
    assert sil(agents[1]).sil_learner.compile
    torch.testing.assert_close(agents[0].weights(), agents[1].weights(), atol=1e-4, rtol=1e-3)


def test_episodic_memory() -> None:
    agent, env = (
        make("SIL", memory__name="OnPolicyReplay", algorithm__num_step_returns=None, algorithm__training_frequency=3),
        CartPole(2),
    )
    _, stats = live(agent, env, env.reset(0).copy(), 150)
    assert stats
    # whole episodes: the past is there from the first update on
    assert all("sil_loss" in s for s in stats)
    assert np.isfinite([v for s in stats for v in s.values()]).all()


def test_a_memory_without_returns_is_refused() -> None:
    with pytest.raises(SpecError, match="'OnPolicyCrossEntropy' keeps no returns, SIL needs them"):
        make("SIL", memory={"name": "OnPolicyCrossEntropy"})
