"""What only building and a first step tell of a spec."""

import gymnasium as gym
import pytest

from slm_lab.experiment.build import build
from slm_lab.spec.load import load_spec

KEY = "env.reward_weights"


@pytest.fixture(autouse=True)
def _registered():
    gym.register("Pays-v0", "support.paying:Pays")
    yield
    gym.registry.pop("Pays-v0", None)


@pytest.mark.parametrize(
    ("keys", "faults"),
    [
        ({"pay": [0.5]}, []),
        ({"pay": [1, 2], "reward_weights": [1, 2]}, []),
        (
            {"pay": [1, 2]},
            ["env.reward_weights: missing: Pays-v0 pays 2 rewards at once, and an agent needs one sum: [1, 1] say"],
        ),
        (
            {"pay": [1, 2], "reward_weights": [1]},
            ["env.reward_weights: Pays-v0 pays 2 rewards, and these are 1 weights"],
        ),
    ],
)
def test_rewards_are_looked_at_in_a_first_step(keys, faults):
    spec = load_spec(
        {
            "name": "pays",
            "agent": {
                "name": "x",
                "algorithm": {"name": "ActorCritic", "lam": 0.9, "training_frequency": 4},
                "memory": {"name": "OnPolicyBatchReplay"},
                "net": {"type": "auto"},
            },
            "env": {"name": "Pays-v0", "num_envs": 2, "max_frame": 100, "vectorization": "sync", **keys},
            "meta": {"version": 6},
        }
    )
    assert build(spec).faults == faults
