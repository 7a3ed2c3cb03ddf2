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
SAC = {"name": "SoftActorCritic", "training_frequency": 4, "training_start_step": 40}
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
    "sac": {"algorithm": SAC, "memory": REPLAY},
    "sac_per": {
        "algorithm": {**SAC, "num_step_returns": 3, "num_critics": 3, "critic_subset": 2, "policy_q": "mean"},
        "memory": PER,
        "env": {"way": "part", "frame_op": "concat", "frame_op_len": 2, "normalize_obs": True},
    },
    "crossq": {"algorithm": {**SAC, "name": "CrossQ", "symlog": True}, "memory": REPLAY},
    "random": {"algorithm": {"name": "Random"}, "memory": REPLAY},
    "random_places": {"algorithm": {"name": "Random"}, "memory": REPLAY, "env": {"nvec": [2, 3]}},
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
    case = {"algorithm": {"name": "TD3"}, "memory": REPLAY}
    with pytest.raises(SpecError, match=r"env\.action_mask: TD3 does not support it \(these can: .*Rainbow.*SoftActor"):
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


@pytest.mark.parametrize("name", ["SoftActorCritic", "CrossQ"])
def test_values_and_entropies_of_sac_are_sums_over_what_is_allowed(name: str) -> None:
    case = {"algorithm": {**SAC, "name": name, "gamma": 0.9}, "memory": REPLAY}
    spec = load_spec(raw(case))
    env = make_env(spec.env)
    algo: Any = Agent(spec, env.info, seed=0).algorithm
    algo.temperature.log_alpha.data.fill_(np.log(0.3))
    masks = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
    obs, next_obs = (torch.cat([torch.randn(4, 3), m], -1) for m in (masks, masks.roll(1, 0)))
    action, reward = torch.tensor([2, 1, 3, 1]), torch.tensor([1.0, -1.0, 0.5, 2.0])
    end, weight, zero = torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.ones(4), torch.zeros(())
    data = (obs, action, reward, next_obs, end, weight, torch.tensor(1.2), zero)
    judge = algo.critics if algo.target is None else algo.target.net

    def by_hand(critics: Any, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """V, H and the number of allowed actions of one observation."""
        ids = row[3:].nonzero().flatten()
        logits = algo.policy.net(row[None])[0][0, ids]
        log_p = logits - logits.exp().sum().log()
        q = torch.stack([net(row[None])[0][0, ids] for net in (critics.q1, critics.q2)]).amin(0)
        entropy = -(log_p.exp() * log_p).sum()
        return (log_p.exp() * q).sum() + 0.3 * entropy, entropy, len(ids)

    value = torch.stack([by_hand(judge, row)[0] for row in next_obs])
    y = reward + 0.9 * (1 - end) * value
    q = [net(obs)[0][torch.arange(4), action] for net in (algo.critics.q1, algo.critics.q2)]
    loss, stats = algo.critic_loss(*data)
    torch.testing.assert_close(loss, sum(((x - y) ** 2).mean() for x in q))
    assert stats["q"].abs() < 100

    values, entropies, counts = zip(*(by_hand(algo.critics, row) for row in obs), strict=True)
    loss, stats = algo.policy_loss(*data)
    torch.testing.assert_close(loss, -torch.stack(values).mean())
    torch.testing.assert_close(stats["entropy"], torch.stack(entropies).mean())
    loss.backward()
    grads = [p.grad for p in algo.policy.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    # a nat and a fifth is asked for where all four actions are allowed, and nothing where there is no choice
    wanted = torch.tensor([1.2 * np.log(k) / np.log(4) for k in counts], dtype=torch.float32)
    torch.testing.assert_close(algo.temperature.log_alpha.grad, (torch.stack(entropies) - wanted).mean().detach()[None])


@pytest.mark.parametrize("name", ["SoftActorCritic", "CrossQ"])
def test_masked_sac_is_the_same_compiled(name: str) -> None:
    spec = load_spec(raw({"algorithm": {**SAC, "name": name, "training_start_step": 8}, "memory": REPLAY}))
    agents: list[Any] = []
    for compiled in (False, True):
        env = make_env(spec.env)
        agent = Agent(spec, env.info, seed=0, compile=compiled)
        obs, action = env.reset(0), np.zeros(2, np.int64)
        for frame in range(2, 42, 2):
            # what is done does not depend on the agent: rounding must not lead it elsewhere
            action[:] = obs[:, 3:].argmax(1)
            agent.act(obs)
            step = env.step(action)
            agent.observe(obs, action, step)
            obs = step.obs
            agent.maybe_update(frame)
        agents.append(agent)
    plain, fast = agents
    assert fast.algorithm.learner.compile
    assert fast.algorithm.actor.compile
    assert fast.opt_step > 0
    torch.testing.assert_close(plain.weights(), fast.weights(), atol=1e-4, rtol=1e-3)


def test_a_target_entropy_in_nats_is_taken_as_it_is() -> None:
    spec = load_spec(raw({"algorithm": {**SAC, "target_entropy": 0.2}, "memory": REPLAY}))
    algo: Any = Agent(spec, make_env(spec.env).info, seed=0).algorithm
    obs = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]])
    rest = (torch.zeros(1, dtype=torch.int64), torch.zeros(1), obs, torch.zeros(1), torch.ones(1))
    loss, _ = algo.policy_loss(obs, *rest, algo.schedules["target_entropy"].tensor, torch.zeros(()))
    loss.backward()
    assert algo.temperature.log_alpha.grad.item() == pytest.approx(-0.2)


assert gates.Gates
