"""What only building and a first step tell of a spec."""

import gymnasium as gym
import pytest
from support.specs import TINY, replace

from slm_lab.agent.net.actor_critic import DeterministicPolicy, Policy
from slm_lab.env.make import make_env
from slm_lab.experiment.trial import build as module
from slm_lab.experiment.trial.build import build, explain_idle
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


@pytest.mark.parametrize(("name", "cls"), [("SoftActorCritic", Policy), ("TD3", DeterministicPolicy)])
def test_the_net_is_asked_also_where_the_first_actions_are_random(name, cls, monkeypatch):
    def forward(self, obs):
        raise RuntimeError("the parts do not fit")

    monkeypatch.setattr(cls, "forward", forward)
    algorithm = {"name": name, "training_start_step": 50, "training_frequency": 1, "training_iter": 1}
    spec = load_spec(
        {
            "name": "random_first",
            "agent": {
                "name": "x",
                "algorithm": algorithm,
                "memory": {"name": "Replay", "batch_size": 4, "max_size": 100},
                "net": {"type": "auto"},
            },
            "env": {"name": "Pendulum-v1", "num_envs": 2, "max_frame": 100},
            "meta": {"version": 6},
        }
    )
    line = forward.__code__.co_firstlineno + 1
    assert build(spec).faults == [f"RuntimeError: the parts do not fit ({__file__}, line {line}, in forward)"]


def test_the_reason_of_an_idle_key_is_found_with_one_env(monkeypatch):
    made = []
    monkeypatch.setattr(module, "make_env", lambda *a, **k: made.append(make_env(*a, **k)) or made[-1])
    spec = replace(load_spec(TINY), "agent.net.polyak_coef", 0.5)
    name, net, memory = spec.agent.algorithm.name, spec.agent.net.type, spec.agent.memory.name
    why = f"has no effect: {name} with the net {net} and the memory {memory} does not use it"
    assert explain_idle(spec, {"agent.net.polyak_coef": ""}) == [f"agent.net.polyak_coef: {why}"]
    assert len(made) == 1
