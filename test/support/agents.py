"""Small specs and envs for tests of the agent: no env package is needed, a rollout is a few arrays."""

from typing import Any

import numpy as np

from slm_lab.spec.model import Spec
from slm_lab.types import ActionSpace, Continuous, Discrete, EnvInfo, Step

ALGORITHMS: dict[str, dict[str, Any]] = {
    "reinforce": {"name": "Reinforce", "gamma": 0.9, "training_frequency": 8},
    "a2c_gae": {"name": "ActorCritic", "gamma": 0.9, "lam": 0.8, "training_frequency": 8},
    "a2c_nstep": {"name": "ActorCritic", "gamma": 0.9, "num_step_returns": 8},
    "a2c_mc": {"name": "ActorCritic", "gamma": 0.9, "training_frequency": 8},
    "ppo": {
        "name": "PPO",
        "gamma": 0.9,
        "lam": 0.8,
        "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
        "time_horizon": 8,
        "minibatch_size": 8,
        "training_epoch": 2,
    },
}
ENTROPY = {"name": "linear_decay", "start_val": 0.05, "end_val": 0.0, "start_step": 0, "end_step": 100}


def make_spec(algorithm: str, **net: Any) -> Spec:
    """A spec around one of `ALGORITHMS`; keyword arguments change the net, or with a `type` are another."""
    return Spec.model_validate(
        {
            "name": "test",
            "agent": {
                "name": "test",
                "algorithm": ALGORITHMS[algorithm] | {"entropy_coef_spec": ENTROPY},
                "memory": {"name": "OnPolicyBatchReplay"},
                "net": {"hid_layers_activation": "tanh", "clip_grad_val": 0.5}
                | {"optim_spec": {"name": "Adam", "lr": 0.01}}
                | ({} if "type" in net else {"type": "MLPNet", "hid_layers": [16]})
                | net,
            },
            "env": {"name": "none", "num_envs": 3, "max_frame": 1000},
            "meta": {},
        }
    )


DISCRETE: ActionSpace = Discrete(3)
BOX: ActionSpace = Continuous(2, (-1.0, -1.0), (1.0, 1.0))


def make_info(action: ActionSpace = DISCRETE, num_envs: int = 3) -> EnvInfo:
    return EnvInfo("none", (4,), "float32", action, num_envs, 20)


class Chance:
    """An env without a world: random observations, rewards and ends."""

    def __init__(self, info: EnvInfo, seed: int = 0) -> None:
        self.info = info
        self.rng = np.random.default_rng(seed)
        self.obs = self._obs()

    def _obs(self) -> np.ndarray:
        return self.rng.normal(size=(self.info.num_envs, *self.info.obs_shape)).astype(np.float32)

    def step(self) -> Step:
        draw = self.rng.random(self.info.num_envs)
        terminated, truncated = draw < 0.1, draw > 0.9
        final = self._obs()
        self.obs = np.where((terminated | truncated)[:, None], self._obs(), final)
        ended = [1.0] * int((terminated | truncated).sum())
        reward = self.rng.normal(size=self.info.num_envs).astype(np.float32)
        return Step(self.obs, reward, terminated, truncated, final, ended, [1] * len(ended))
