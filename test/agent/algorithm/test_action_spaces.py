"""On-policy algorithms in every kind of action space: a bandit whose best action is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from slm_lab.agent.agent import Agent
from slm_lab.agent.net.actor_critic import Policy
from slm_lab.agent.net.mlp import MLPNet, MLPNetSpec
from slm_lab.functional.continuous_distributions import MultivariateNormal, Normal, TanhNormal
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import load_spec
from slm_lab.types import ActionSpace, Continuous, Discrete, EnvInfo, Mixed, MultiBinary, MultiDiscrete, Step

N = 16
BOX = Continuous(2, (-1.0, -1.0), (1.0, 1.0))
BEST = np.array([0.4, -0.6])


def near(action: Any) -> Any:
    return -((action.clip(-1, 1) - BEST) ** 2).sum(-1)


CASES: list[tuple[str, ActionSpace, Callable[[Any], Any], float]] = [
    ("default", Discrete(4), lambda a: a == 2, 1),
    ("GumbelSoftmax", Discrete(4), lambda a: a == 2, 1),
    ("default", BOX, near, -0.05),
    ("MultivariateNormal", BOX, near, -0.05),
    ("Beta", BOX, near, -0.05),
    ("default", MultiDiscrete((2, 3)), lambda a: (a[:, 0] == 1).astype(float) + (a[:, 1] == 2), 2),
    ("default", MultiBinary(3), lambda a: (a == np.array([1, 0, 1])).sum(-1), 3),
    (
        "default",
        Mixed((Discrete(3), BOX, MultiDiscrete((2, 2)), MultiBinary(2))),
        lambda a: 1.0 * (a[:, 0] == 2) + near(a[:, 1:3]) + (a[:, 3:] == np.array([1, 0, 0, 1])).sum(-1),
        4.7,
    ),
]


def make(pdtype: str, action: ActionSpace) -> Agent:
    raw = {
        "name": "bandit",
        "agent": {
            "name": "PPO",
            "algorithm": {
                "name": "PPO",
                "action_pdtype": pdtype,
                "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
                "time_horizon": 16,
                "training_epoch": 4,
            },
            "memory": {"name": "OnPolicyBatchReplay"},
            "net": {
                "type": "MLPNet",
                "hid_layers": [16],
                "optim_spec": {"name": "Adam", "lr": 0.01},
                "lr_scheduler_spec": {"name": "LinearToZero", "frame": 10_000},
            },
        },
        "env": {"name": "Bandit-v0", "num_envs": N, "max_frame": 10_000},
        "meta": {},
    }
    return Agent(load_spec(raw), EnvInfo("Bandit-v0", (3,), "float32", action, N, 1), seed=0)


@pytest.mark.parametrize(("pdtype", "action", "reward", "goal"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_ppo_finds_the_best_action(pdtype: str, action: ActionSpace, reward: Callable[[Any], Any], goal: float) -> None:
    agent = make(pdtype, action)
    obs = np.ones((N, 3), np.float32)
    end, no = np.ones(N, np.bool_), np.zeros(N, np.bool_)
    for frame in range(0, 10_000, N):
        chosen = agent.act(obs)
        gain = reward(chosen).astype(np.float32)
        agent.observe(obs, chosen, Step(obs, gain, end, no, obs, gain.tolist(), [1] * N))
        agent.maybe_update(frame)
    assert reward(agent.act(obs, explore=False)).mean() >= goal


def test_a_distribution_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'Normal' does not fit Tuple or Dict actions \(known: Product\)"):
        make("Normal", Mixed((BOX, MultiBinary(2))))
    with pytest.raises(SpecError, match=r"'Normal' does not fit MultiBinary actions \(known: Bernoulli\)"):
        make("Normal", MultiBinary(2))


@pytest.mark.parametrize("dist", [Normal, MultivariateNormal, TanhNormal])
def test_a_free_log_std_is_one_whatever_the_head_would_give(dist: type[Normal]) -> None:
    spec = MLPNetSpec.model_validate({"type": "MLPNet", "hid_layers": [4], "log_std_init": -1.0})
    policy: Any = Policy(MLPNet, spec, (3,), dist, BOX)(torch.zeros(5, 3))
    assert torch.equal(policy.log_std, torch.full((5, 2), -1.0))


@pytest.mark.parametrize("start", [-6.0, 3.0])
def test_a_free_log_std_beyond_the_bounds_of_a_head_has_a_gradient_that_brings_it_back(start: float) -> None:
    spec = MLPNetSpec.model_validate({"type": "MLPNet", "hid_layers": [4], "log_std_init": start})
    net = Policy(MLPNet, spec, (3,), Normal, BOX)
    policy: Any = net(torch.zeros(5, 3))
    assert torch.equal(policy.log_std, torch.full((5, 2), start))
    policy.entropy().mean().backward()
    assert net.log_std is not None
    assert torch.equal(net.log_std.grad, torch.ones(2))
