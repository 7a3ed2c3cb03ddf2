"""`Policy.act` on what an env itself shows does what training and evaluation do."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support import gates

from slm_lab import api

NET = {
    "type": "MLPNet",
    "hid_layers": [16],
    "hid_layers_activation": "tanh",
    "optim_spec": {"name": "Adam", "lr": 0.01},
}
PPO = {
    "name": "PPO",
    "gamma": 0.9,
    "lam": 0.9,
    "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
    "time_horizon": 32,
    "minibatch_size": 32,
    "training_epoch": 4,
}
SAC = {"name": "SoftActorCritic", "gamma": 0.9, "training_frequency": 4, "training_start_step": 300}
REPLAY = {"name": "Replay", "batch_size": 32, "max_size": 5000}


@pytest.fixture(autouse=True)
def _registered():
    names = ("Shifted", "Target", "Room")
    for name in names:
        gym.register(f"{name}-v0", f"support.tiny:{name}")
    yield
    for name in names:
        gym.registry.pop(f"{name}-v0", None)


def train(folder: Path, env: str, frames: int, algorithm: dict[str, Any] = PPO, **keys: Any) -> api.Policy:
    memory = {"name": "OnPolicyBatchReplay"} if algorithm is PPO else REPLAY
    done = api.run(
        {
            "name": "policy",
            "agent": {"name": "x", "algorithm": algorithm, "memory": memory, "net": NET},
            "env": {"name": env, "num_envs": 2, "max_frame": frames, "vectorization": "sync", **keys},
            "meta": {"version": 6, "log_frequency": frames // 4, "compile": "off"},
        },
        out=folder,
        device="cpu",
    )
    return api.load_agent(done.folder)


def score(policy: api.Policy, name: str, episodes: int) -> float:
    env = gym.make(name)
    paid = []
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        paid.append(float(env.step(policy.act(obs))[1]))
    return float(np.mean(paid))


def test_normalized_observations(tmp_path: Path) -> None:
    policy = train(tmp_path, "Shifted-v0", 3000, normalize_obs=True)
    assert np.mean(policy.evaluate(100)) > 0.9
    assert score(policy, "Shifted-v0", 100) > 0.9


def test_integers_in_and_integers_from_a_start_out(tmp_path: Path) -> None:
    policy = train(tmp_path, "Room-v0", 1500)
    assert score(policy, "Room-v0", 30) == 1.0
    assert policy.act([3, 4, 7]).tolist() == [8, 7, 8]


@pytest.mark.parametrize("name", ["SoftActorCritic", "CrossQ", "TQC", "TD3"])
def test_random_actions_of_the_beginning_are_over(name: str, tmp_path: Path) -> None:
    policy = train(tmp_path, "Target-v0", 40, {**SAC, "name": name})
    # of the 300 random actions 40 were taken; whatever was learned, the policy is now 0.3 of [-2, 2], give or take 0.1
    net = policy._agent.algorithm.nets["net"]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        head = list(net.parameters())[-1]
        head.copy_(torch.tensor([0.15, -3.0])[: len(head)])
    draws = np.array([policy.act([0.0, 1.0], explore=True)[0] for _ in range(60)])
    # uniform ones would have a mean near 0 and a deviation near 1.15
    assert draws.mean() == pytest.approx(0.3, abs=0.1)
    assert 0.05 < draws.std() < 0.3
    assert float(policy.act([0.0, 1.0])[0]) == pytest.approx(2 * np.tanh(0.15), abs=1e-4)


def test_behind_a_wrapper_the_policy_makes_the_env(tmp_path: Path) -> None:
    policy = train(tmp_path, "Shifted-v0", 128, wrappers=[{"name": "support.tiny:Longer"}], max_t=5)
    bare, _ = gym.make("Shifted-v0").reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(2,\), must be .*trained with env.wrappers; make_env\(\)"):
        policy.act(bare)
    env = policy.make_env()
    obs, _ = env.reset(seed=0)
    assert obs.tolist() == [*bare.tolist(), 1]
    obs, _, _, _, _ = env.step(policy.act(obs))
    assert policy.act(obs) in (0, 1)


def test_behind_a_mask_the_policy_makes_the_env(tmp_path: Path) -> None:
    assert gates.Gates
    policy = train(tmp_path, "Gates-v0", 128, action_mask=True, max_t=5)
    with pytest.raises(ValueError, match=r"obs.*missing.*trained with env.action_mask; make_env\(\)"):
        policy.act(gym.make("Gates-v0").reset(seed=0)[0])
    env = policy.make_env()
    obs, _ = env.reset(seed=0)
    ended = over = False
    while not (ended or over):
        # one that is closed raises an error
        obs, _, ended, over, _ = env.step(policy.act(obs, explore=True))
