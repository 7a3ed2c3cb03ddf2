import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from support.replay import BOTH, BOX, DISCRETE, World, batch, make
from torch import Tensor
from torch import distributions as theirs

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.sac import SoftActorCritic
from slm_lab.lib.errors import SpecError
from slm_lab.types import ActionSpace, MultiBinary


def sac(agent: Agent) -> SoftActorCritic:
    assert isinstance(agent.algorithm, SoftActorCritic)
    return agent.algorithm


ZERO = torch.zeros(())


@torch.no_grad()
def test_discrete_losses_by_the_formulas() -> None:
    agent = make(DISCRETE)
    algo = sac(agent)
    for p in algo.target.net.parameters():
        p.add_(0.1 * torch.randn_like(p))
    assert algo.temperature is not None
    algo.temperature.log_alpha.fill_(math.log(0.3))
    obs, action, reward, next_obs, end, _ = data = batch(agent)
    p = theirs.Categorical(logits=algo.policy.net(next_obs)[0]).probs
    q1, q2 = (net(next_obs)[0] for net in (algo.target.net.q1, algo.target.net.q2))
    v = (p * (torch.minimum(q1, q2) - 0.3 * p.log())).sum(-1)
    y = reward + 0.9 * (1 - end) * v
    q = [net(obs)[0][torch.arange(5), action] for net in (algo.critics.q1, algo.critics.q2)]
    loss, stats = algo.critic_loss(*data, ZERO, ZERO)
    torch.testing.assert_close(loss, ((q[0] - y) ** 2).mean() + ((q[1] - y) ** 2).mean())
    torch.testing.assert_close(stats["error"], (torch.minimum(*q) - y).abs())

    p = theirs.Categorical(logits=algo.policy.net(obs)[0]).probs
    q = torch.minimum(algo.critics.q1(obs)[0], algo.critics.q2(obs)[0])
    loss, stats = algo.policy_loss(*data, ZERO, ZERO)
    torch.testing.assert_close(loss, (p * (0.3 * p.log() - q)).sum(-1).mean())
    torch.testing.assert_close(stats["entropy"], -(p * p.log()).sum(-1).mean())


@torch.no_grad()
def test_continuous_losses_by_the_formulas() -> None:
    agent = make(BOX)
    algo = sac(agent)
    for p in algo.target.net.parameters():
        p.add_(0.1 * torch.randn_like(p))
    assert algo.temperature is not None
    algo.temperature.log_alpha.fill_(math.log(0.3))
    obs, action, reward, next_obs, end, _ = data = batch(agent)
    next_noise, noise = torch.randn(2, 5, 2).unbind()

    def policy(obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_std = algo.policy.net(obs)[0].chunk(2, -1)
        normal = theirs.Independent(theirs.Normal(loc, log_std.clamp(-5, 2).exp()), 1)
        u = loc + log_std.clamp(-5, 2).exp() * noise
        return u.tanh(), normal.log_prob(u) - (1 - u.tanh() ** 2).log().sum(-1)

    def q(net: Any, obs: Tensor, action: Tensor) -> Tensor:
        return net.net(torch.cat([obs, action], -1))[0].squeeze(-1)

    a, log_prob = policy(next_obs, next_noise)
    v = torch.minimum(q(algo.target.net.q1, next_obs, a), q(algo.target.net.q2, next_obs, a)) - 0.3 * log_prob
    y = reward + 0.9 * (1 - end) * v
    loss, _ = algo.critic_loss(*data, next_noise, noise, ZERO, ZERO)
    parts = [((q(net, obs, action) - y) ** 2).mean() for net in (algo.critics.q1, algo.critics.q2)]
    torch.testing.assert_close(loss, parts[0] + parts[1])

    a, log_prob = policy(obs, noise)
    lower = torch.minimum(q(algo.critics.q1, obs, a), q(algo.critics.q2, obs, a))
    loss, stats = algo.policy_loss(*data, next_noise, noise, ZERO, ZERO)
    torch.testing.assert_close(loss, (0.3 * log_prob - lower).mean())
    torch.testing.assert_close(stats["entropy"], -log_prob.mean())


def test_the_critics_differ_and_their_targets_begin_as_copies() -> None:
    algo = sac(make(BOX))
    (w1, w2) = (net.net.body[0].weight for net in (algo.critics.q1, algo.critics.q2))
    assert not torch.equal(w1, w2)
    assert torch.equal(algo.target.params.flat, algo.optims["critic_net"].params.flat)


def test_importance_weights_weigh_the_critics_loss() -> None:
    agent = make(DISCRETE)
    data = batch(agent)
    one = sac(agent).critic_loss(*data, ZERO, ZERO)[0]
    data[-1] = torch.full((5,), 0.25)
    assert sac(agent).critic_loss(*data, ZERO, ZERO)[0].item() == pytest.approx(0.25 * one.item())


@BOTH
@pytest.mark.parametrize(("target", "rises"), [(50.0, True), (-50.0, False)])
def test_temperature_follows_the_target_entropy_up_to_its_bounds(
    action: ActionSpace, target: float, rises: bool
) -> None:
    agent = make(action, algorithm__target_entropy=target, algorithm__log_alpha_min=-0.1, algorithm__log_alpha_max=0.1)
    stats = World(agent.info).live(agent, 14)
    alphas = [s["alpha"].item() for s in stats]
    assert alphas[0] == 1
    assert alphas == sorted(alphas, reverse=not rises)
    assert alphas[2] != alphas[1]
    World(agent.info).live(agent, 40)
    temperature = sac(agent).temperature
    assert temperature is not None
    assert temperature.log_alpha.item() == pytest.approx(0.1 if rises else -0.1)


def test_no_weight_decay_on_the_temperature() -> None:
    spec = {"name": "AdamW", "lr": 0.02, "weight_decay": 0.5}
    algo = sac(make(DISCRETE, net__optim_spec=spec))
    assert algo.optims["net"].kwargs == {"weight_decay": 0.5}
    assert algo.optims["temperature"].kwargs == {}
    assert algo.optims["temperature"].base_lr == 0.02
    assert sac(make(DISCRETE, net__optim_spec=spec, algorithm__alpha_lr=0.5)).optims["temperature"].base_lr == 0.5


def test_auto_target_entropy() -> None:
    assert sac(make(BOX)).variables()["target_entropy"] == -2
    assert sac(make(DISCRETE)).variables()["target_entropy"] == pytest.approx(0.6 * math.log(3))
    assert sac(make(DISCRETE, algorithm__target_entropy=0.4)).variables()["target_entropy"] == 0.4
    algo = sac(make(DISCRETE, algorithm__entropy_anneal={"start_ratio": 0.6, "end_ratio": 0.2, "frames": 100}))
    for frame, ratio in ((0, 0.6), (50, 0.4), (100, 0.2), (500, 0.2)):
        algo.set_frame(frame)
        assert algo.variables()["target_entropy"] == pytest.approx(ratio * math.log(3))


def test_fixed_alpha_is_used_and_falls() -> None:
    agent = make(DISCRETE, algorithm__fixed_alpha=0.5, algorithm__alpha_anneal_frames=100)
    stats = World(agent.info).live(agent, 60)
    assert "temperature" not in agent.algorithm.nets
    assert stats[0]["alpha"].item() == pytest.approx(0.5 * (1 - 20 / 100), abs=0.03)
    assert stats[-1]["alpha"].item() == 0
    assert stats[-1].keys() == {"loss", "q", "policy_loss", "entropy", "alpha", "grad_norm"}
    with pytest.raises(KeyError):
        agent.variables()["target_entropy"]


def test_random_actions_come_first() -> None:
    agent = make(BOX, algorithm__training_start_step=2000)
    with torch.no_grad():
        # a policy that would be known by its actions
        sac(agent).optims["net"].params.flat.zero_()
        sac(agent).policy.net.heads["policy"].bias.copy_(torch.tensor([3.0, 3.0, -5.0, -5.0]))
    obs = np.zeros((2, 4), np.float32)
    first = np.stack([agent.act(obs) for _ in range(1000)]).reshape(-1)
    assert np.abs(first).max() <= 1
    assert abs(first.mean()) < 0.05
    assert first.std() == pytest.approx(1 / math.sqrt(3), abs=0.02)
    assert agent.act(obs) == pytest.approx(np.full((2, 2), math.tanh(3)), abs=0.01)
    assert agent.act(obs, explore=False) == pytest.approx(np.full((2, 2), math.tanh(3)), abs=1e-6)


def test_greedy_actions_neither_count_nor_are_random() -> None:
    agent = make(DISCRETE, algorithm__training_start_step=100)
    obs = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    greedy = [agent.act(obs, explore=False) for _ in range(100)]
    assert all((a == greedy[0]).all() for a in greedy)
    assert sac(agent).acted == 0
    drawn = np.stack([agent.act(obs) for _ in range(50)])
    assert set(drawn.ravel()) == {0, 1, 2}


def test_defaults_that_depend_on_other_keys() -> None:
    assert sac(make(DISCRETE, algorithm__training_start_step=None)).training_start_step == 1000
    assert make(DISCRETE, algorithm__training_start_step=None, memory__batch_size=4096).training_start_step == 4096


def test_training_begins_behind_the_start_step_and_counts_its_steps() -> None:
    agent = make(DISCRETE, algorithm__training_iter=3, algorithm__training_frequency=4)
    world = World(agent.info)
    assert world.live(agent, 10) == []
    stats = world.live(agent, 8)
    # behind frame 20: at 24, 28, 32, 36
    assert len(stats) == 4
    assert agent.opt_step == 4 * 3 * 3
    assert set(stats[0]) == set(agent.stat_names)


@BOTH
def test_policy_delay(action: ActionSpace) -> None:
    agent = make(action, algorithm__policy_delay=3)
    world, algo = World(agent.info), sac(agent)
    world.live(agent, 10)
    flats = {k: o.params.flat for k, o in algo.optims.items()} | {"target": algo.target.params.flat}
    changed = []
    for _ in range(6):
        before = {k: v.clone() for k, v in flats.items()}
        world.live(agent, 1)
        changed.append({k for k, v in flats.items() if not torch.equal(v, before[k])})
    assert changed == [{"critic_net"}, {"critic_net"}, {"critic_net", "net", "temperature", "target"}] * 2
    assert agent.opt_step == 6 + 2 + 2


@pytest.mark.parametrize("delay", [2, 3])
@pytest.mark.parametrize("frequency", [2, 4, 6])
@pytest.mark.parametrize("start", [20, 22])
def test_a_move_that_is_due_waits_for_the_policy(delay: int, frequency: int, start: int) -> None:
    agent = make(
        DISCRETE,
        algorithm__policy_delay=delay,
        algorithm__training_start_step=start,
        net__update_frequency=frequency,
    )
    world, algo = World(agent.info), sac(agent)
    moves = 0
    for _ in range(60):
        before, steps = algo.target.params.flat.clone(), algo.learner.steps
        world.live(agent, 1)
        if not torch.equal(before, algo.target.params.flat):
            assert algo.learner.steps > steps
            moves += 1
    # a frame counter that moves by two: as often as both allow
    assert moves >= (120 - start) // (2 * delay * frequency)


def test_targets_follow_by_polyak_when_due() -> None:
    agent = make(DISCRETE, net__update_frequency=6)
    world, algo = World(agent.info), sac(agent)
    world.live(agent, 10)
    moved = []
    for _ in range(6):
        before = algo.target.params.flat.clone()
        world.live(agent, 1)
        if not torch.equal(before, algo.target.params.flat):
            moved.append(world.frame)
            online = algo.optims["critic_net"].params.flat
            torch.testing.assert_close(algo.target.params.flat, 0.9 * before + 0.1 * online)
    # the first update, at 22, has passed 6, 12 and 18
    assert moved == [22, 24, 30]


def test_polyak_moves_once_for_each_batch() -> None:
    agent = make(DISCRETE, algorithm__training_iter=4, net__optim_spec={"name": "SGD", "lr": 0.0})
    algo = sac(agent)
    algo.target.params.flat.zero_()
    World(agent.info).live(agent, 11)
    torch.testing.assert_close(algo.target.params.flat, algo.optims["critic_net"].params.flat * (1 - 0.9**4))


@BOTH
def test_state_round_trip_goes_on_bit_for_bit(action: ActionSpace) -> None:
    agent = make(action, algorithm__policy_delay=2)
    world = World(agent.info)
    world.live(agent, 17)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other = make(action, seed=9, algorithm__policy_delay=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(world)
    first, second = world.live(agent, 200), twin.live(other, 200)
    assert [{k: v.item() for k, v in s.items()} for s in first] == [{k: v.item() for k, v in s.items()} for s in second]
    assert (world.obs == twin.obs).all()
    mine, its = agent.weights(), other.weights()
    assert all(torch.equal(mine[k], its[k]) for k in mine)
    assert (agent.opt_step, agent.variables()) == (other.opt_step, other.variables())


@BOTH
def test_compiled_equals_eager(action: ActionSpace) -> None:
    plain, compiled = (make(action, compile=c) for c in (False, True))
    first, second = (World(a.info).live(a, 25) for a in (plain, compiled))
    assert sac(compiled).learner.compile
    assert sac(compiled).actor.compile
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(plain.weights(), compiled.weights(), atol=1e-4, rtol=1e-3)


@BOTH
def test_images(action: ActionSpace) -> None:
    conv = {
        "type": "ConvNet",
        "conv_hid_layers": [[4, 3, 2, 0, 1]],
        "fc_hid_layers": [8],
        "update_type": "polyak",
        "polyak_coef": 0.1,
    }
    agent = make(action, (2, 8, 8), net=conv)
    world = World(agent.info)
    stats = world.live(agent, 20)
    assert all(torch.isfinite(v) for s in stats for v in s.values())
    if action is BOX:
        # what the critic thinks of an action depends on the image: no sum of the two
        critic = sac(agent).critics.q1
        obs = torch.randint(0, 256, (2, 2, 8, 8), dtype=torch.uint8)
        a, b = torch.full((2, 2), -0.9), torch.full((2, 2), 0.9)
        gain = (critic(obs, b) - critic(obs, a)).detach()
        assert abs(gain[0] - gain[1]) > 1e-4


def test_what_it_refuses() -> None:
    with pytest.raises(SpecError, match="acts in Discrete and Continuous spaces, not MultiBinary"):
        make(MultiBinary(2))
    with pytest.raises(SpecError, match=r"'Beta' is no policy of SoftActorCritic \(known: default, Normal"):
        make(BOX, algorithm__action_pdtype="Beta")
    with pytest.raises(SpecError, match="log_alpha_min must not be greater than log_alpha_max"):
        make(BOX, algorithm__log_alpha_min=3.0)
    with pytest.raises(SpecError, match="needs a replay memory"):
        make(BOX, memory={"name": "OnPolicyBatchReplay"})


@torch.no_grad()
@BOTH
def test_an_ensemble_whose_targets_take_a_subset(action: ActionSpace) -> None:
    """REDQ: the target takes the lowest of M drawn critics, the policy the mean of all N."""
    agent = make(action, algorithm__num_critics=4, algorithm__critic_subset=2, algorithm__policy_q="mean")
    algo = sac(agent)
    obs, _, _, next_obs, *_ = batch(agent)
    noise = None if action is DISCRETE else torch.randn(5, 2)
    algo.target.params.flat.add_(0.3 * torch.randn_like(algo.target.params.flat))
    opinions = [
        algo.soft_value(copy_of(algo.target.net, i), next_obs, noise, torch.tensor(0.0))[0] for i in range(1, 5)
    ]
    if action is BOX:
        drawn = algo.soft_value(algo.target.net, next_obs, noise, torch.tensor(0.0), torch.tensor([3, 1]))[0]
        torch.testing.assert_close(drawn, torch.minimum(opinions[3], opinions[1]))
        mine = [algo.soft_value(copy_of(algo.critics, i), obs, noise, torch.tensor(0.0))[0] for i in range(1, 5)]
        value, _ = algo.soft_value(algo.critics, obs, noise, torch.tensor(0.0))
        torch.testing.assert_close(value, torch.stack(mine).mean(0))
    seen = set()
    step = algo.learner.step

    def spy(data: Any, *rest: Any) -> Any:
        seen.add(tuple(sorted(data[-1].tolist())))
        return step(data, *rest)

    algo.learner.step = spy
    World(agent.info).live(agent, 60)
    assert seen == {(i, j) for i in range(4) for j in range(i + 1, 4)}


def copy_of(critics: Any, member: int) -> Any:
    """These critics, all of which are the one of that number."""
    twin = copy.deepcopy(critics)
    for i in range(1, 5):
        setattr(twin, f"q{i}", getattr(twin, f"q{member}"))
    return twin


def test_targets_may_move_more_often_than_the_policy_learns() -> None:
    agent = make(BOX, algorithm__policy_delay=4, algorithm__target_delay=2, algorithm__training_iter=4)
    world, algo = World(agent.info), sac(agent)
    moves = 0
    move = algo.target.move_

    def counted(params: Any) -> None:
        nonlocal moves
        moves += 1
        move(params)

    algo.target.move_ = counted
    world.live(agent, 15)
    assert (moves, algo.learner.steps, algo.turns.critics.steps) == (10, 5, 15)
