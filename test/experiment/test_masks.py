"""`env.action_mask`: no algorithm takes, bootstraps from or gives entropy to an action that is not allowed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import gates

from slm_lab import api
from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.functional.discrete_distributions import Categorical, MultiCategorical
from slm_lab.functional.exploration import MaskedEpsilonGreedy
from slm_lab.functional.masks import LOWEST, fill_masked, is_allowed, pick_allowed
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import EnvSpec

EPSILON = {"name": "no_decay", "start_val": 0.5}
REPLAY = {"name": "Replay", "batch_size": 8, "max_size": 200}
PER = {"name": "PrioritizedReplay", "batch_size": 8, "max_size": 200, "alpha": 0.6, "epsilon": 0.01}
Q = {"explore_var_spec": EPSILON, "training_frequency": 4}
PPO = {
    "name": "PPO",
    "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
    "entropy_coef_spec": {"name": "no_decay", "start_val": 0.1},
    "time_horizon": 8,
    "minibatch_size": 8,
    "training_epoch": 2,
}
RNN = {"type": "RecurrentNet", "rnn_hidden_size": 6, "seq_len": 4}
CASES: dict[str, dict[str, Any]] = {
    "reinforce": {"algorithm": {"name": "Reinforce", "training_frequency": 8}},
    "a2c": {"algorithm": {"name": "ActorCritic", "lam": 0.9, "training_frequency": 8}},
    "ppo": {"algorithm": PPO},
    "ppo_method": {"algorithm": PPO, "env": {"way": "method", "normalize_obs": True}},
    "ppo_part": {"algorithm": PPO, "env": {"way": "part", "frame_op": "concat", "frame_op_len": 2}},
    "ppo_places": {"algorithm": PPO, "env": {"nvec": [2, 3]}},
    "ppo_rnn": {"algorithm": PPO, "net": RNN},
    "ppo_image": {"algorithm": PPO, "net": {"type": "auto"}, "env": {"image": True}},
    "sarsa": {"algorithm": {"name": "SARSA", **Q}},
    "dqn": {"algorithm": {"name": "DQN", **Q}, "memory": REPLAY},
    "ddqn_boltzmann": {
        "algorithm": {"name": "DoubleDQN", **Q, "action_policy": "boltzmann", "num_step_returns": 3},
        "memory": PER,
        "net": {"type": "DuelingMLPNet", "hid_layers": [8]},
    },
    "qrdqn": {"algorithm": {"name": "QRDQN", **Q, "quantiles": 5}, "memory": REPLAY},
    "rainbow": {"algorithm": {"name": "Rainbow", **Q, "atoms": 11, "v_min": 0, "v_max": 20}, "memory": PER},
    "pqn": {"algorithm": {"name": "PQN", "explore_var_spec": EPSILON, "time_horizon": 8, "minibatch_size": 8}},
    "pqn_rnn": {
        "algorithm": {"name": "PQN", "explore_var_spec": EPSILON, "time_horizon": 8, "minibatch_size": 8},
        "net": RNN,
    },
}


def raw(case: dict[str, Any], **env: Any) -> dict[str, Any]:
    return {
        "name": "gates",
        "agent": {
            "name": "gates",
            "algorithm": case["algorithm"],
            "memory": case.get("memory", {"name": "OnPolicyBatchReplay"}),
            "net": case.get("net", {"type": "MLPNet", "hid_layers": [8]}),
        },
        "env": {"name": "Gates-v0", "num_envs": 2, "max_frame": 160, "action_mask": True, **case.get("env", {}), **env},
        "meta": {"compile": "off", "log_frequency": 80, "rigorous_eval": 1, "eval_frequency": 80},
    }


@pytest.mark.parametrize("case", CASES)
def test_nothing_forbidden_is_ever_done(case: str, tmp_path: Path) -> None:
    done = api.run(load_spec(raw(CASES[case])), out=tmp_path, device="cpu")
    assert not done.crashed
    assert done.metrics["frame"] == 160


def test_without_the_mask_something_forbidden_is_done(tmp_path: Path) -> None:
    done = api.run(load_spec(raw(CASES["ppo"], action_mask=False)), out=tmp_path, device="cpu")
    assert done.crashed


def test_an_env_that_allows_nothing_is_an_error_with_its_step() -> None:
    env = make_env(EnvSpec(name="Gates-v0", max_frame=100, action_mask=True, closed=2))
    obs = env.reset(0)
    env.step(obs[:, 3:].argmax(1))
    with pytest.raises(LabError, match=r"Gates-v0 allows no action at all at step 2"):
        env.step(env.obs[:, 3:].argmax(1))


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"name": "Pendulum-v1"}, "masks are for Discrete and MultiDiscrete actions"),
        ({"name": "MountainCar-v0"}, r"MountainCar-v0 offers no mask"),
    ],
)
def test_where_there_is_no_mask(env: dict[str, Any], why: str) -> None:
    with pytest.raises(LabError, match=why):
        make_env(EnvSpec(max_frame=100, action_mask=True, **env)).reset(0)


def test_algorithms_that_do_not_follow_it_refuse_it(tmp_path: Path) -> None:
    case = {"algorithm": {"name": "SoftActorCritic"}, "memory": REPLAY}
    with pytest.raises(SpecError, match=r"env\.action_mask: SoftActorCritic can't follow it \(these can: .*Rainbow"):
        api.run(load_spec(raw(case)), out=tmp_path, device="cpu")


def test_a_mask_is_neither_normalized_nor_lost_where_an_episode_ends() -> None:
    env = make_env(EnvSpec(name="Gates-v0", num_envs=3, max_frame=900, action_mask=True, normalize_obs=True))
    obs, ended = env.reset(0), 0
    for _ in range(60):
        step = env.step(obs[:, 3:].argmax(1))
        for seen in (step.obs, step.final_obs):
            assert set(np.unique(seen[:, 3:])) <= {0.0, 1.0}
        assert (step.final_obs[step.terminated][:, 3:] == 1).all()
        assert step.obs[:, 3:].any(1).all()
        ended += int(step.terminated.sum())
        obs = step.obs
    assert ended > 0


def test_masked_logits_by_hand() -> None:
    allowed = torch.tensor([[True, False, True], [False, True, False]])
    logits = torch.tensor([[0.0, 5.0, 0.0], [1.0, 2.0, 3.0]], requires_grad=True)
    dist = Categorical.from_head(fill_masked(logits, allowed))
    torch.testing.assert_close(dist.log_p.exp(), torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]))
    entropy = dist.entropy()
    torch.testing.assert_close(entropy, torch.tensor([0.6931472, 0.0]))
    (entropy.sum() + dist.log_prob(torch.tensor([0, 1])).sum()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[~allowed].any()
    places = MultiCategorical.of((2, 2)).from_head(
        fill_masked(torch.zeros(1, 4), torch.tensor([[True, True, False, True]]))
    )
    torch.testing.assert_close(places.entropy(), torch.tensor([0.6931472]))


def test_exploration_is_uniform_over_what_is_allowed() -> None:
    allowed = torch.tensor([[False, True, True, False, True]]).expand(3000, 5)
    u = (torch.arange(3000) + 0.5) / 3000
    assert torch.bincount(pick_allowed(allowed, u), minlength=5).tolist() == [0, 1000, 1000, 0, 1000]
    q = fill_masked(torch.tensor([[9.0, 1.0, 2.0, 9.0, 0.0]]).expand(3000, 5), allowed)
    assert is_allowed(q).equal(allowed)
    assert q.min() == LOWEST
    chosen = MaskedEpsilonGreedy.choose(q, torch.tensor(0.3), u)
    assert torch.bincount(chosen, minlength=5).tolist() == [0, 300, 2400, 0, 300]


def test_several_numbers_of_an_action_are_masked_together() -> None:
    found = fill_masked(torch.arange(6.0)[None], torch.tensor([[True, False]]), 3)
    assert found.tolist() == [[0.0, 1.0, 2.0, LOWEST, LOWEST, LOWEST]]


@pytest.mark.parametrize("keys", [None, ["seen"], ["seen", "action_mask"]])
def test_a_part_of_that_name_masks_nothing_unless_asked(keys: list[str] | None) -> None:
    env = make_env(EnvSpec(name="Gates-v0", max_frame=100, way="part", obs_keys=keys))
    assert not env.info.masked
    names = [part.name for part in env.observations.parts]
    assert names == (["seen"] if keys == ["seen"] else ["action_mask", "seen"])
    asked = make_env(EnvSpec(name="Gates-v0", max_frame=100, way="part", obs_keys=keys, action_mask=True))
    assert asked.info.masked
    assert [part.name for part in asked.observations.parts] == ["seen", "action_mask"]


def test_a_mask_that_is_seen_alone_still_masks() -> None:
    spec = load_spec(raw(CASES["ppo"], way="part", vectorization="sync", obs_keys=["action_mask"]))
    env = make_env(spec.env)
    assert (env.info.masked, env.info.obs_shape) == (True, (4,))
    obs = env.reset(0)
    obs[:] = [0, 0, 1, 0]
    agent = Agent(spec, env.info, seed=0)
    assert {int(a) for _ in range(20) for a in agent.act(obs)} == {2}


@pytest.mark.parametrize("frames", [1, 3])
def test_a_policy_that_is_not_masked_chooses_everything(frames: int) -> None:
    stack = {} if frames == 1 else {"frame_op": "concat", "frame_op_len": frames}
    for asked in (False, True):
        spec = load_spec(raw(CASES["ppo"], way="part", vectorization="sync", action_mask=asked, **stack))
        env = make_env(spec.env)
        agent = Agent(spec, env.info, seed=0)
        obs = env.reset(0)
        allowed = obs[:, -4:] if asked else obs[:, 4 * (frames - 1) : 4 * frames]
        allowed[:] = [0, 0, 1, 0]
        drawn = {int(a) for _ in range(100) for a in agent.act(obs)}
        assert drawn == ({2} if asked else {0, 1, 2, 3})


@pytest.mark.parametrize("way", ["info", "method", "part"])
def test_an_unused_mask_is_reported(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("slm_lab.env.masks.note", told.append)
    make_env(EnvSpec(name="Gates-v0", max_frame=100, way=way)).reset(0)
    assert told
    assert "env.action_mask true uses it" in told[0]


assert gates.Gates
