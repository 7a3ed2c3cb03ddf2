"""A task that needs a memory: the first observation shows one of four cues, the action 8 steps later must repeat it."""

import numpy as np

from slm_lab.agent.agent import Agent
from slm_lab.spec.load import load_spec
from slm_lab.types import Discrete, EnvInfo, Step

CUES = 4
DELAY = 8
N = 32
INFO = EnvInfo("Cue-v0", (CUES + 1,), "float32", Discrete(CUES), N, DELAY + 1)


class CueWorld:
    """N envs in step: `[cue one-hot, 0]` at first, then nothing but a flag, 1 when the answer is due."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.begin()

    def begin(self) -> None:
        self.t = 0
        self.cue = self.rng.integers(CUES, size=N)
        self.obs = np.zeros((N, CUES + 1), np.float32)
        self.obs[np.arange(N), self.cue] = 1

    def step(self, action: np.ndarray) -> Step:
        last = self.t == DELAY
        reward = ((action == self.cue) & last).astype(np.float32)
        self.t += 1
        final = np.zeros_like(self.obs)
        final[:, -1] = self.t == DELAY
        if last:
            self.begin()
        else:
            self.obs = final
        ended = np.full(N, last)
        done = reward.tolist() if last else []
        return Step(self.obs, reward, ended, np.zeros(N, np.bool_), final, done, [DELAY + 1] * len(done))


def cue_agent(net: str) -> Agent:
    keys = {"rnn_hidden_size": 32, "seq_len": 9} if net == "RecurrentNet" else {"hid_layers": [32]}
    raw = {
        "name": "cue",
        "agent": {
            "name": "PPO",
            "algorithm": {
                "name": "PPO",
                "gamma": 0.99,
                "lam": 0.95,
                "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
                "entropy_coef_spec": {"name": "no_decay", "start_val": 0.005},
                "time_horizon": 36,
                "minibatch_size": 288,
                "training_epoch": 4,
            },
            "memory": {"name": "OnPolicyBatchReplay"},
            "net": {"type": net, "clip_grad_val": 0.5, "optim_spec": {"name": "Adam", "lr": 0.003}, **keys},
        },
        "env": {"name": "Cue-v0", "num_envs": N, "max_frame": 1000},
        "meta": {},
    }
    return Agent(load_spec(raw), INFO, seed=0)


def play_cue(agent: Agent, world: CueWorld, steps: int, *, explore: bool) -> float:
    """Play, learning only where it explores; gives the share of right answers."""
    right: list[float] = []
    if explore:
        for _ in range(steps):
            obs = world.obs
            action = agent.act(obs)
            step = world.step(action)
            agent.observe(obs, action, step)
            right += step.episode_return
            agent.maybe_update(0)
        return float(np.mean(right)) if right else 0.0
    with agent.apart(N):
        for _ in range(steps):
            step = world.step(agent.act(world.obs, explore=False))
            right += step.episode_return
            agent.forget(step.terminated)
    return float(np.mean(right))
