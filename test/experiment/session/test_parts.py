"""Observations of images and vectors, from the env to every kind of net and memory."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.twofold import Twofold

from slm_lab import api
from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.learner import NonFiniteLoss
from slm_lab.env.make import make_env
from slm_lab.lib.stateful import State

PPO = {
    "name": "PPO",
    "gamma": 0.0,
    "lam": 0.9,
    "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
    "time_horizon": 8,
    "minibatch_size": 16,
    "training_epoch": 2,
}
ON_POLICY = {"name": "OnPolicyBatchReplay"}
REPLAY = {"name": "Replay", "batch_size": 8, "max_size": 40}
EXPLORE = {"name": "linear_decay", "start_val": 1.0, "end_val": 0.05, "start_step": 0, "end_step": 2000}
DQN = {"name": "DQN", "gamma": 0.5, "training_frequency": 4, "training_start_step": 8, "explore_var_spec": EXPLORE}
SAC = {"name": "SoftActorCritic", "gamma": 0.5, "training_frequency": 4, "training_iter": 1, "training_start_step": 8}
AUTO = {"type": "auto", "fc_hid_layers": [8], "hid_layers": [8], "joint_hid_layers": [8]}
STACK = {"frame_op": "stack", "frame_op_len": 2}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "ppo": (PPO, ON_POLICY, AUTO, {"normalize_obs": True}),
    "ppo_shared_mlp": (PPO, ON_POLICY, {"type": "MLPNet", "hid_layers": [8], "shared": True}, {}),
    "ppo_frames": (PPO, ON_POLICY, AUTO, {"frame_op": "concat", "frame_op_len": 3}),
    "ppo_recurrent": (PPO, ON_POLICY, {"type": "RecurrentNet", "rnn_hidden_size": 8, "seq_len": 4}, {}),
    "reinforce": ({"name": "Reinforce", "training_frequency": 2}, {"name": "OnPolicyReplay"}, AUTO, {}),
    "dqn": (DQN, REPLAY, AUTO, {"vectorization": "async"}),
    "dqn_per": (
        DQN,
        {"name": "PrioritizedReplay", "alpha": 0.6, "epsilon": 0.01, **REPLAY} | {"name": "PrioritizedReplay"},
        AUTO,
        {},
    ),
    "dqn_window": (DQN, REPLAY, {"type": "RecurrentWindowNet", "rnn_hidden_size": 8, "seq_len": 2}, STACK),
    "sac": (SAC, REPLAY, AUTO, {}),
    "sac_continuous": (SAC, REPLAY, AUTO, {"continuous": True}),
}


@pytest.fixture(autouse=True)
def _registered():
    gym.register("Twofold-v0", "support.twofold:Twofold")
    yield
    gym.registry.pop("Twofold-v0", None)


def make_spec(case: str, net: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    algorithm, memory, usual, env = CASES[case]
    return {
        "name": "parts",
        "agent": {"name": "x", "algorithm": algorithm, "memory": memory, "net": net or usual},
        "env": {"name": "Twofold-v0", "num_envs": 2, "max_frame": 200, "vectorization": "sync", **env, **keys},
        "meta": {"version": 6, "compile": "off", "log_frequency": 100},
    }


class Run:
    """An agent in its envs."""

    def __init__(self, spec: dict[str, Any], compile: bool = False) -> None:
        loaded = api.load_spec(spec)
        self.env = make_env(loaded.env)
        self.agent = Agent(loaded, self.env.info, seed=1, compile=compile)
        self.frame = 0
        self.env.reset(3)

    def go(self, steps: int) -> "Run":
        for _ in range(steps):
            obs = self.env.obs
            action = self.agent.act(obs)
            step = self.env.step(action)
            self.agent.observe(obs, action, step)
            self.frame += 2
            self.agent.maybe_update(self.frame)
        return self

    def state(self) -> State:
        return {"env": self.env.state_dict(), "agent": self.agent.state_dict(), "frame": self.frame}

    def load(self, state: State) -> "Run":
        self.env.load_state_dict(state["env"])
        self.agent.load_state_dict(state["agent"])
        self.frame = state["frame"]
        return self


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_goes_on_exactly(case: str) -> None:
    spec = make_spec(case)
    whole = Run(spec).go(29)
    state = whole.state()
    first = whole.agent.weights()
    whole.go(23)
    resumed = Run(spec).load(state).go(23)
    assert np.array_equal(whole.env.obs, resumed.env.obs)
    mine, its = whole.agent.weights(), resumed.agent.weights()
    assert all(torch.equal(mine[name], its[name]) for name in mine)
    assert any(not torch.equal(mine[name], first[name]) for name in mine)
    for run in (whole, resumed):
        run.env.close()


@pytest.mark.ci
def test_compiled_updates_are_those_of_eager_mode() -> None:
    eager, compiled = Run(make_spec("ppo")).go(20), Run(make_spec("ppo"), compile=True).go(20)
    assert compiled.agent.compiled
    mine, its = eager.agent.weights(), compiled.agent.weights()
    assert all(torch.allclose(mine[name], its[name], atol=1e-4) for name in mine)
    for run in (eager, compiled):
        run.env.close()


@pytest.mark.parametrize("case", ["ppo", "dqn"])
def test_a_vector_that_is_not_finite_is_the_reason_that_is_given(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(make_spec(case, vectorization="sync", normalize_obs=False))
    monkeypatch.setattr(Twofold, "noise", np.nan)
    with pytest.raises(NonFiniteLoss, match="observations that came from the env are not finite"):
        run.go(40)


@pytest.mark.parametrize("case", ["ppo", "ppo_frames", "dqn_window", "sac_continuous"])
def test_a_saved_policy_acts_on_what_the_env_shows(case: str, tmp_path: Path) -> None:
    done = api.run(make_spec(case), out=tmp_path, device="cpu")
    policy = api.load_agent(done.folder)
    env = gym.make("Twofold-v0", continuous=case == "sac_continuous")
    ret, (obs, _), over = 0.0, env.reset(seed=5), False
    seen = []
    while not over:
        seen.append(obs)
        action = policy.act(obs)
        assert env.action_space.contains(action)
        obs, reward, over, _, _ = env.step(action)
        ret += float(reward)
    policy.reset()
    assert policy.act([seen[0], seen[0]]).shape[0] == 2
    assert 0 <= ret <= 4


WIDE = {"fc_hid_layers": [16], "hid_layers": [16], "joint_hid_layers": [32]}
LEARN: dict[str, dict[str, Any]] = {
    "ppo": {"net": WIDE},
    "ppo_shared_mlp": {"net": {"hid_layers": [32]}},
    "dqn": {"net": WIDE, "algorithm": {"gamma": 0.0}, "memory": {"batch_size": 64, "max_size": 4000}},
}
"""What a case needs to learn in a few thousand frames."""
LEARN_PPO = {
    "time_horizon": 16,
    "minibatch_size": 64,
    "training_epoch": 4,
    "entropy_coef_spec": {"name": "no_decay", "start_val": 0.01},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LEARN)
def test_both_parts_are_read(case: str, tmp_path: Path) -> None:
    net = {**CASES[case][2], **LEARN[case]["net"], "optim_spec": {"name": "Adam", "lr": 0.005}}
    n = 4 if case == "dqn" else 16
    spec = make_spec(case, net, max_frame=6000, num_envs=n, vectorization="sync")
    agent = spec["agent"]
    agent["algorithm"] = {**agent["algorithm"], **LEARN[case].get("algorithm", LEARN_PPO)}
    agent["memory"] = {**agent["memory"], **LEARN[case].get("memory", {})}
    done = api.run(spec, out=tmp_path, device="cpu")
    # with one of them alone half of the actions are right
    assert np.mean(api.load_agent(done.folder).evaluate(50)) > 3.6
