"""SARSA, the DQN family and Random: targets by hand, exploration, timing, parity and resume."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from support.values import EPSILON, PER, RAW, World, batch, live, make
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import load_spec
from slm_lab.types import (
    ActionSpace,
    Continuous,
    Discrete,
    EnvInfo,
    MultiBinary,
    MultiDiscrete,
    Rollout,
    Step,
    Transition,
)

FAMILY = ("VanillaDQN", "DQN", "DoubleDQN")


def errors(agent: Agent, data: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        error: Tensor = agent.algorithm.loss(*data)[1]["error"]  # type: ignore[attr-defined]
        return error


def test_the_family_differs_in_its_targets() -> None:
    data = batch()
    agents = {name: make(name) for name in FAMILY}
    for agent in agents.values():
        agent.algorithm.optims["net"].params.flat.add_(torch.randn(132, generator=torch.Generator().manual_seed(2)))
    obs, action, reward, next_obs, terminated, _ = data
    algorithm: Any = agents["DQN"].algorithm
    with torch.no_grad():
        q, online, target = algorithm.net(obs)[0], algorithm.net(next_obs)[0], algorithm.target.net(next_obs)[0]
    rows = torch.arange(6)
    expected = {
        "VanillaDQN": online.max(1).values,
        "DQN": target.max(1).values,
        "DoubleDQN": target[rows, online.argmax(1)],
    }
    for name, value in expected.items():
        y = reward + 0.9 * (1 - terminated) * value
        torch.testing.assert_close(errors(agents[name], data), y - q[rows, action])
    open_rows = terminated == 0
    for one, other in (("VanillaDQN", "DQN"), ("DQN", "DoubleDQN"), ("DoubleDQN", "VanillaDQN")):
        assert not torch.allclose(errors(agents[one], data)[open_rows], errors(agents[other], data)[open_rows])


@pytest.mark.parametrize(
    ("spec", "each"),
    [
        ({"name": "MSELoss"}, lambda e: e**2),
        ({"name": "SmoothL1Loss"}, lambda e: torch.where(e.abs() < 1, 0.5 * e**2, e.abs() - 0.5)),
        ({"name": "HuberLoss", "delta": 0.1}, lambda e: torch.where(e.abs() < 0.1, 0.5 * e**2, 0.1 * e.abs() - 0.005)),
    ],
)
def test_weights_count_for_each_sample(spec: dict[str, Any], each: Any) -> None:
    agent = make(net__loss_spec=spec)
    weight = torch.tensor([1.0, 0.0, 0.5, 0.25, 2.0, 0.0])
    data = (*batch()[:5], weight)
    loss = agent.algorithm.loss(*data)[0]  # type: ignore[attr-defined]
    torch.testing.assert_close(loss, (weight * each(errors(agent, data))).mean())


def test_gradients_do_not_flow_through_the_target() -> None:
    for name in FAMILY:
        algorithm: Any = make(name, net__loss_spec={"name": "MSELoss"}).algorithm
        data = batch()
        (q_grad,) = torch.autograd.grad(algorithm.loss(*data)[0], [algorithm.net.body[0].weight])
        error = errors(make(name), data)
        taken = algorithm.net(data[0])[0].gather(1, data[1][:, None]).squeeze(1)
        (by_hand,) = torch.autograd.grad((-2 * error * taken).mean(), [algorithm.net.body[0].weight])
        torch.testing.assert_close(q_grad, by_hand)


def test_priorities_are_the_errors() -> None:
    agent = make(memory=PER)
    live(agent, World(), 10)
    memory: Any = agent.memory
    seen = {}
    keep = memory.update_priority

    def spy(index: Tensor, error: Tensor) -> None:
        seen["index"], seen["error"] = index.clone(), error.clone()
        keep(index, error)

    memory.update_priority = spy
    state = agent.state_dict()
    live(agent, World(1), 2, frame=20)
    fresh = make(memory=PER)
    fresh.load_state_dict(state)
    world = World(1)
    for _ in range(2):
        obs = world.obs
        fresh.observe(obs, fresh.act(obs), world.step())
    drawn: Transition = fresh.memory.sample()
    assert torch.equal(drawn.index, seen["index"])
    torch.testing.assert_close(errors(fresh, (*drawn[:5], drawn.weight)), seen["error"])


def test_gradient_steps_are_batches_times_steps_on_each() -> None:
    agent = make(algorithm__training_iter=3, algorithm__training_batch_iter=2, algorithm__training_start_step=10)
    _, stats = live(agent, World(), 10)
    # 2 frames a step: trained at 12, 16 and 20, not at 4 and 8
    assert len(stats) == 3
    assert agent.opt_step == 18


def test_n_step_targets_by_hand() -> None:
    agent = make(algorithm__num_step_returns=3, algorithm__training_start_step=0, memory__batch_size=64)
    world: Any = World()
    rows = []
    for t in range(3):
        obs = world.obs
        none = np.zeros(2, np.bool_)
        step = world.step()._replace(terminated=np.array([t == 1, False]), truncated=none)
        agent.observe(obs, agent.act(obs), step)
        rows.append((obs, step))
    algorithm: Any = agent.algorithm
    drawn: Transition = agent.memory.sample(3, 0.9)  # type: ignore[call-arg]
    at = {t: (drawn.obs == torch.from_numpy(rows[t][0][1])).all(1).nonzero()[0] for t in range(3)}
    r = [float(step.reward[1]) for _, step in rows]
    with torch.no_grad():
        v = algorithm.target.net(torch.from_numpy(rows[2][1].final_obs[1:]))[0].max()
        q = algorithm.net(drawn.obs)[0].gather(1, drawn.action[:, None]).squeeze(1)
    y = errors(agent, (*drawn[:5], torch.ones(64))) + q
    torch.testing.assert_close(y[at[0]], (r[0] + 0.9 * r[1] + 0.81 * r[2] + 0.729 * v).view(1))
    torch.testing.assert_close(y[at[2]], (r[2] + 0.9 * v).view(1))
    first = (drawn.obs == torch.from_numpy(rows[0][0][0])).all(1).nonzero()[0]
    torch.testing.assert_close(y[first], torch.tensor([rows[0][1].reward[0] + 0.9 * rows[1][1].reward[0]]))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("DQN", {"training_iter": 2}),
        ("DQN", {"training_frequency": 5}),
        ("DoubleDQN", {"training_batch_iter": 2}),
        ("VanillaDQN", {}),
        ("SoftActorCritic", {}),
        ("SoftActorCritic", {"training_frequency": 1, "policy_delay": 3}),
        ("CrossQ", {"training_frequency": 6, "training_iter": 2}),
    ],
)
@pytest.mark.parametrize("start", [64, 66])
def test_updates_do_not_depend_on_the_number_of_envs(name: str, more: dict[str, Any], start: int) -> None:
    """Gradient steps, and moves of a target net that is renewed every 12 frames."""
    raw = copy.deepcopy(RAW)
    keys = {"training_frequency": 4, "training_start_step": start, "name": name, "gamma": 0.9}
    raw["agent"]["algorithm"] = keys | more
    if name in FAMILY:
        raw["agent"]["algorithm"]["explore_var_spec"] = EPSILON
    raw["agent"]["net"]["update_frequency"] = 12
    counts = set()
    for n in (1, 2, 8, 16):
        agent = Agent(load_spec(raw), EnvInfo("Fake-v0", (3,), "float32", Discrete(4), n, None), seed=0)
        algorithm: Any = agent.algorithm
        moves, obs, none = 0, np.zeros((n, 3), np.float32), np.zeros(n, np.bool_)
        if algorithm.target is not None:
            move = algorithm.target.move_

            def counted(params: Any, move: Any = move) -> None:
                nonlocal moves
                moves += 1
                move(params)

            algorithm.target.move_ = counted
        for t in range(240 // n):
            step = Step(obs, np.full(n, t, np.float32), none, none, obs, [], [])
            agent.observe(obs, agent.act(obs), step)
            agent.maybe_update((t + 1) * n)
        counts.add((agent.opt_step, moves))
    assert len(counts) == 1
    assert min(counts)[0] > 0


def test_training_starts_behind_the_first_batch() -> None:
    assert make(memory__batch_size=8).training_start_step == 8
    assert make(algorithm__training_start_step=0).training_start_step == 0


@pytest.mark.parametrize("name", ["SARSA", "PQN", *FAMILY, "QRDQN"])
def test_exploration_falls_with_every_vector_step(name: str) -> None:
    agent = make(name)
    world = World()
    for i in range(60):
        frame = 2 * i
        assert agent.variables()["explore_var"] == pytest.approx(max(1 - 0.9 * frame / 100, 0.1))
        live(agent, world, 1, frame)


@pytest.mark.parametrize("name", ["SARSA", "PQN", *FAMILY])
def test_acting_without_exploration_takes_the_best_action(name: str) -> None:
    agent = make(name)
    obs = World().obs
    q = agent.algorithm.net(torch.from_numpy(obs))[0]  # type: ignore[attr-defined]
    for _ in range(20):
        assert agent.act(obs, explore=False).tolist() == q.argmax(1).tolist()
    assert len({tuple(agent.act(obs).tolist()) for _ in range(50)}) > 5
    assert agent.act(obs[:1], explore=False).shape == (1,)


@pytest.mark.parametrize("name", ["SARSA", "PQN", *FAMILY, "QRDQN"])
def test_a_saved_policy_explores_as_at_the_end(name: str) -> None:
    agent = make(name)
    agent.load_policy_state(agent.policy_state())
    assert agent.variables()["explore_var"] == pytest.approx(0.1)


def test_boltzmann_follows_its_temperature() -> None:
    agent = make(
        algorithm__action_policy="boltzmann",
        algorithm__action_pdtype="Categorical",
        algorithm__explore_var_spec={"name": "linear_decay", "start_val": 5.0, "end_val": 1e-4, "end_step": 100},
    )
    obs = World().obs
    best = agent.act(obs, explore=False).tolist()
    assert any(agent.act(obs).tolist() != best for _ in range(50))
    agent.algorithm.set_frame(100)
    assert all(agent.act(obs).tolist() == best for _ in range(50))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"algorithm__action_policy": "boltzmann", "algorithm__explore_var_spec": None}, "stays above 0"),
        ({"algorithm__action_policy": "boltzmann", "algorithm__action_pdtype": "Argmax"}, "not Argmax"),
        ({"algorithm__action_policy": "greedy"}, "action_policy"),
        ({"algorithm__action_pdtype": "Normal"}, "action_pdtype"),
        ({"action": MultiBinary(2)}, r"agent\.algorithm\.name: DQN needs discrete actions"),
        ({"memory": {"name": "OnPolicyBatchReplay"}}, "needs a replay memory"),
    ],
)
def test_what_can_not_be_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        make(**changes)


def rollout(t: int = 3, n: int = 2) -> Rollout:
    g = torch.Generator().manual_seed(3)
    no = torch.zeros(t, n, dtype=torch.bool)
    terminated, truncated = no.clone(), no.clone()
    terminated[0, 1] = truncated[1, 0] = True
    return Rollout(
        torch.randn(t + 1, n, 3, generator=g),
        torch.randint(4, (t, n), generator=g),
        torch.randn(t, n, generator=g),
        terminated,
        truncated,
        torch.tensor([2]),
        torch.randn(1, 3, generator=g),
    )


def test_sarsa_bootstraps_from_the_action_really_taken_next() -> None:
    agent = make("SARSA", algorithm__explore_var_spec=None)
    algorithm: Any = agent.algorithm
    r = rollout()
    with torch.no_grad():
        q, final = algorithm.net(r.obs.flatten(0, 1))[0].view(4, 2, 4), algorithm.net(r.final_obs)[0]
        found = algorithm.targets(r)
    for t in range(3):
        for n in range(2):
            if r.terminated[t, n]:
                value = torch.tensor(0.0)
            elif r.truncated[t, n]:
                value = final[0].max()  # no exploration: the policy takes the best action there
            elif t == 2:
                value = q[3, n].max()
            else:
                value = q[t + 1, n, r.action[t + 1, n]]
            torch.testing.assert_close(found[t, n], r.reward[t, n] + 0.9 * value)


def test_sarsa_chooses_the_last_action_by_its_policy() -> None:
    algorithm: Any = make("SARSA", algorithm__explore_var_spec={"name": "no_decay", "start_val": 1.0}).algorithm
    r = rollout()
    with torch.no_grad():
        q = algorithm.net(r.obs[3])[0]
        last = torch.stack([algorithm.targets(r)[2] for _ in range(300)])
    possible = r.reward[2][:, None] + 0.9 * q
    for n in range(2):
        near = (last[:, n, None] - possible[n]).abs() < 1e-5
        assert near.any(1).all()
        assert (near.float().mean(0) > 0.15).all()


@pytest.mark.parametrize("name", ["SARSA", *FAMILY])
def test_the_memory_of_whole_episodes_fits_where_it_may(name: str) -> None:
    if name != "SARSA":
        with pytest.raises(SpecError):
            make(name, memory={"name": "OnPolicyReplay"})
        return
    agent = make(name, memory={"name": "OnPolicyReplay"}, algorithm__training_frequency=2)
    _, stats = live(agent, World(), 60)
    assert len(stats) > 3


CASES = {
    "sarsa": {"name": "SARSA"},
    "vanilla": {"name": "VanillaDQN", "memory__use_cer": True},
    "dqn": {"name": "DQN", "net__update_type": "polyak", "net__polyak_coef": 0.1, "algorithm__training_iter": 2},
    "ddqn_per": {
        "name": "DoubleDQN",
        "net__update_frequency": 8,
        "net__clip_grad_val": 0.5,
        "memory": PER | {"beta_spec": {"name": "linear_decay", "start_val": 0.4, "end_val": 1.0, "end_step": 100}},
    },
    "dueling": {"name": "DoubleDQN", "net__type": "DuelingMLPNet", "net__loss_spec": {"name": "SmoothL1Loss"}},
    "c51": {"name": "DoubleDQN", "algorithm__atoms": 11, "algorithm__v_min": -3.0, "algorithm__v_max": 3.0},
    "qrdqn": {"name": "QRDQN", "algorithm__quantiles": 5, "memory": PER},
    "noisy": {"name": "DQN", "net__noisy_std": 0.5},
    "rainbow": {
        "name": "Rainbow",
        "memory": PER,
        "algorithm__atoms": 11,
        "algorithm__v_min": -3.0,
        "algorithm__v_max": 3.0,
    },
    "pqn": {"name": "PQN", "net__layer_norm": True},
    "random": {"name": "Random", "algorithm": {"name": "Random"}},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("before", [3, 31])
def test_a_restored_agent_goes_on_bitwise(case: str, before: int) -> None:
    agent, fresh = make(**CASES[case]), make(**CASES[case], seed=5)
    world = World()
    live(agent, world, before)
    live(fresh, World(9), 7)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(world)
    one, other = live(agent, world, 40, 2 * before), live(fresh, twin, 40, 2 * before)
    assert one[0] == other[0]
    assert [{k: v.item() for k, v in s.items()} for s in one[1]] == [
        {k: v.item() for k, v in s.items()} for s in other[1]
    ]
    weights, same = agent.weights(), fresh.weights()
    assert all(torch.equal(weights[k], same[k]) for k in weights)


SLOW = [
    pytest.param(case, marks=pytest.mark.slow)
    for case in ("vanilla", "dqn", "ddqn_per", "dueling", "c51", "qrdqn", "pqn")
]


@pytest.mark.parametrize("case", ["sarsa", "rainbow", *SLOW])
def test_compiled_equals_eager(case: str) -> None:
    one, other = make(**CASES[case]), make(**CASES[case], compile=True)
    # acts are the same as long as the nets agree
    live(one, World(), 40)
    live(other, World(), 40)
    assert one.opt_step == other.opt_step > 3
    assert other.algorithm.learner.compile  # type: ignore[attr-defined]
    weights, same = one.weights(), other.weights()
    for key, value in weights.items():
        torch.testing.assert_close(value, same[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "memory", [{"name": "OnPolicyBatchReplay"}, {"name": "Replay", "batch_size": 4, "max_size": 50}]
)
@pytest.mark.parametrize(
    "action", [Discrete(3), Continuous(2, (-3.0, -3.0), (3.0, 3.0)), MultiDiscrete((2, 5)), MultiBinary(3)]
)
def test_random_acts_in_every_space_and_learns_nothing(memory: dict[str, Any], action: ActionSpace) -> None:
    agent = make("Random", action, algorithm={"name": "Random"}, memory=memory)
    drawn = np.concatenate([agent.act(World().obs) for _ in range(300)])
    if isinstance(action, Continuous):
        assert drawn.dtype == np.float32
        assert drawn.shape == (600, 2)
        assert -1 <= drawn.min() < -0.9 < 0.9 < drawn.max() <= 1
    else:
        sizes = [3] if isinstance(action, Discrete) else action.nvec if isinstance(action, MultiDiscrete) else [2] * 3
        for column, size in zip(drawn.reshape(600, -1).T, sizes, strict=True):
            assert sorted(set(column.tolist())) == list(range(size))
    live(agent, World(), 10)
    assert agent.opt_step == 0
    assert agent.weights() == {}


def test_evaluating_random_does_not_change_how_it_goes_on() -> None:
    one, other = make("Random", algorithm={"name": "Random"}), make("Random", algorithm={"name": "Random"})
    other.act(World().obs, explore=False)
    assert live(one, World(), 5)[0] == live(other, World(), 5)[0]
