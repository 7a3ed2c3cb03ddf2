"""`Policy.act` on what an env itself shows does what training and evaluation do."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from slm_lab import api
from slm_lab.agent.algorithm.sac import SoftActorCritic

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


@pytest.mark.parametrize("name", ["SoftActorCritic", "CrossQ"])
def test_random_actions_of_the_beginning_are_over(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = train(tmp_path, "Target-v0", 400, {**SAC, "name": name})
    monkeypatch.setattr(SoftActorCritic, "_random_action", lambda self, n: pytest.fail("a random action"))
    draws = np.array([policy.act([0.0, 1.0], explore=True)[0] for _ in range(10)])
    assert len(set(draws.tolist())) > 1
    assert np.abs(draws).max() <= 2
