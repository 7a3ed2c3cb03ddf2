import copy
import io
import math
from typing import Any

import pytest
import torch
from support.replay import BOTH, BOX, DISCRETE, World, batch, make
from torch import Tensor
from torch import distributions as theirs

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.crossq import CrossQ
from slm_lab.agent.algorithm.delayed import Batch
from slm_lab.agent.algorithm.sac import Rest
from slm_lab.agent.net.normalization import BatchRenorm
from slm_lab.types import ActionSpace

GRAPH = {"input": "x", "modules": {"body": ["x"]}, "output": "body"}
ZERO = torch.zeros(())


def arc(*layers: Any) -> dict[str, Any]:
    return {"modules": {"body": {"Sequential": list(layers)}}, "graph": GRAPH}


RENORM = {"LazyBatchRenorm1d": {"momentum": 0.1, "eps": 0.001, "warmup_steps": 5}}
NET = {
    "type": "TorchArcNet",
    "actor_arc": arc({"LazyLinear": [16]}, "ReLU"),
    "critic_arc": arc({"LazyLinear": [16]}, RENORM, "ReLU", {"LazyLinear": [16]}, RENORM, "ReLU"),
    "optim_spec": {"name": "Adam", "lr": 0.01},
}


def crossq(action: ActionSpace, **changes: Any) -> tuple[Agent, CrossQ]:
    agent = make(action, **{"algorithm__name": "CrossQ", "net": NET, **changes})
    assert isinstance(agent.algorithm, CrossQ)
    return agent, agent.algorithm


def layers(algo: CrossQ) -> list[BatchRenorm]:
    return [m for m in algo.critics.modules() if isinstance(m, BatchRenorm)]


def counts(algo: CrossQ) -> list[int]:
    return [int(layer.num_batches_tracked) for layer in layers(algo)]


def mixed(algo: CrossQ) -> CrossQ:
    """A copy whose critics are in train mode, for passes of a test's own."""
    twin = copy.deepcopy(algo)
    twin.critics.train()
    return twin


def test_there_is_no_target_net() -> None:
    agent, algo = crossq(BOX)
    assert algo.target is None
    assert "target" not in algo.state_dict()
    assert not any("target" in name for name in agent.weights())
    assert set(algo.optims) == {"net", "critic_net", "temperature"}


def test_continuous_critic_loss_by_the_formula() -> None:
    agent, algo = crossq(BOX)
    assert algo.temperature is not None
    with torch.no_grad():
        algo.temperature.log_alpha.fill_(math.log(0.3))
    obs, action, reward, next_obs, end, _ = data = batch(agent)
    next_noise, noise = torch.randn(2, 5, 2).unbind()
    loc, log_std = algo.policy.net(next_obs)[0].detach().chunk(2, -1)
    u = loc + log_std.clamp(-5, 2).exp() * next_noise
    normal = theirs.Independent(theirs.Normal(loc, log_std.clamp(-5, 2).exp()), 1)
    log_prob = normal.log_prob(u) - (1 - u.tanh() ** 2).log().sum(-1)
    twin = mixed(algo)
    both = torch.cat([torch.cat([obs, action], -1), torch.cat([next_obs, u.tanh()], -1)])
    q1, q2 = (critic.net(both)[0].squeeze(-1) for critic in (twin.critics.q1, twin.critics.q2))
    y = (reward + 0.9 * (1 - end) * (torch.minimum(q1[5:], q2[5:]) - 0.3 * log_prob)).detach()
    loss, stats = algo.critic_loss(*data, next_noise, noise, ZERO, ZERO)
    torch.testing.assert_close(loss, ((q1[:5] - y) ** 2).mean() + ((q2[:5] - y) ** 2).mean())
    torch.testing.assert_close(stats["error"], (torch.minimum(q1[:5], q2[:5]) - y).abs())


def test_discrete_critic_loss_by_the_formula() -> None:
    agent, algo = crossq(DISCRETE)
    assert algo.temperature is not None
    with torch.no_grad():
        algo.temperature.log_alpha.fill_(math.log(0.3))
    obs, action, reward, next_obs, end, _ = data = batch(agent)
    p = theirs.Categorical(logits=algo.policy.net(next_obs)[0].detach()).probs
    twin = mixed(algo)
    q1, q2 = (critic(torch.cat([obs, next_obs]))[0] for critic in (twin.critics.q1, twin.critics.q2))
    v = (p * (torch.minimum(q1[5:], q2[5:]) - 0.3 * p.log())).sum(-1)
    y = (reward + 0.9 * (1 - end) * v).detach()
    taken = [q[torch.arange(5), action] for q in (q1[:5], q2[:5])]
    loss, _ = algo.critic_loss(*data, ZERO, ZERO)
    torch.testing.assert_close(loss, ((taken[0] - y) ** 2).mean() + ((taken[1] - y) ** 2).mean())


def values(algo: Any, obs: Tensor, action: Tensor, next_obs: Tensor, noise: Tensor | None) -> tuple[Tensor, ...]:
    given = Batch(obs, action, ZERO, next_obs, ZERO, ZERO)
    found: tuple[Tensor, ...] = algo.critic_values(given, Rest(noise, None, None, ZERO, ZERO), torch.tensor(0.1))
    return found


@BOTH
def test_present_and_next_are_normalized_by_what_they_have_in_common(action: ActionSpace) -> None:
    """Two passes, each by statistics of its own, say something else."""
    agent, algo = crossq(action)
    obs, taken, _, next_obs, *_ = batch(agent)
    noise = None if action is DISCRETE else torch.zeros(5, 2)
    apart = [mixed(algo) for _ in range(2)]
    q1, q2, next_value = values(algo, obs, taken, next_obs + 3, noise)
    alone = apart[0].critics(obs, taken)
    assert (q1 - alone[0]).abs().max() > 0.01
    assert (q2 - alone[1]).abs().max() > 0.01
    value, _ = apart[1].soft_value(apart[1].critics, next_obs + 3, noise, torch.tensor(0.1))
    assert (next_value - value).abs().max() > 0.01
    assert counts(algo) == [1] * 4
    shifted = values(algo, obs, taken, next_obs + 30, noise)
    # what comes next moves what is said of the present
    assert (shifted[0] - q1).abs().max() > 0.01


@BOTH
def test_the_next_value_is_a_constant(action: ActionSpace) -> None:
    agent, algo = crossq(action)
    obs, taken, _, next_obs, *_ = batch(agent)
    noise = None if action is DISCRETE else torch.zeros(5, 2)
    q1, q2, next_value = values(algo, obs, taken, next_obs, noise)
    assert (q1.requires_grad, q2.requires_grad, next_value.requires_grad) == (True, True, False)


@BOTH
def test_the_policy_learns_from_critics_in_eval_mode(action: ActionSpace) -> None:
    agent, algo = crossq(action)
    World(agent.info).live(agent, 20)
    before = counts(algo)
    assert before[0] > 5
    data = batch(agent)
    rest = [ZERO, ZERO] if action is DISCRETE else [torch.zeros(5, 2), torch.zeros(5, 2), ZERO, ZERO]
    whole, _ = algo.policy_loss(*data, *rest)
    halves = [
        algo.policy_loss(*[x[rows] if x.dim() else x for x in (*data, *rest)])[0] for rows in (slice(0, 2), slice(2, 5))
    ]
    # each row by itself, whatever else is in the batch
    torch.testing.assert_close(whole, (2 * halves[0] + 3 * halves[1]) / 5)
    assert counts(algo) == before
    assert not algo.critics.training


def test_policy_delay_and_one_batch_of_statistics_an_update() -> None:
    agent, algo = crossq(BOX, algorithm__policy_delay=3)
    world = World(agent.info)
    world.live(agent, 10)
    flats = {k: o.params.flat for k, o in algo.optims.items()}
    changed = []
    for _ in range(6):
        before = {k: v.clone() for k, v in flats.items()}
        world.live(agent, 1)
        changed.append({k for k, v in flats.items() if not torch.equal(v, before[k])})
    assert changed == [{"critic_net"}, {"critic_net"}, {"critic_net", "net", "temperature"}] * 2
    assert agent.opt_step == 6 + 2 + 2
    assert counts(algo) == [6] * 4


def test_acting_leaves_the_statistics_alone() -> None:
    net = NET | {"actor_arc": arc({"LazyLinear": [16]}, RENORM, "ReLU")}
    agent, algo = crossq(BOX, net=net)
    world = World(agent.info)
    world.live(agent, 15)
    actor = [m for m in algo.policy.modules() if isinstance(m, BatchRenorm)]
    before = [b.clone() for m in actor for b in m.buffers()]
    # the policy's own normalization moves in its own updates
    assert before[2] == algo.learner.steps > 0
    agent.act(world.obs)
    agent.act(world.obs, explore=False)
    assert all(torch.equal(a, b) for a, b in zip(before, (b for m in actor for b in m.buffers()), strict=True))


@BOTH
def test_state_round_trip_goes_on_bit_for_bit(action: ActionSpace) -> None:
    agent, algo = crossq(action, algorithm__policy_delay=2)
    world = World(agent.info)
    world.live(agent, 17)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other, its_algo = crossq(action, seed=9, algorithm__policy_delay=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert counts(its_algo) == counts(algo) != [0] * 4
    twin = copy.deepcopy(world)
    first, second = world.live(agent, 60), twin.live(other, 60)
    assert [{k: v.item() for k, v in s.items()} for s in first] == [{k: v.item() for k, v in s.items()} for s in second]
    mine, its = agent.weights(), other.weights()
    assert any(key.endswith("running_var") for key in mine)
    assert all(torch.equal(mine[k], its[k]) for k in mine)


@pytest.mark.parametrize(
    "action", [pytest.param(DISCRETE, marks=pytest.mark.slow), BOX], ids=["discrete", "continuous"]
)
def test_compiled_equals_eager(action: ActionSpace) -> None:
    """Over the end of the warm-up, with both graphs: that of the critics alone and that of all."""
    # Adam divides by its eps where a gradient is rounding alone: that of a bias before a normalization
    net = NET | {"optim_spec": {"name": "Adam", "lr": 0.01, "eps": 1e-3}}
    agents = [crossq(action, compile=c, algorithm__policy_delay=2, net=net)[0] for c in (False, True)]
    first, second = (World(a.info).live(a, 25) for a in agents)
    algo: Any = agents[1].algorithm
    assert algo.learner.compile
    assert algo.turns.critics.compile
    assert min(counts(algo)) > 5
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(agents[0].weights(), agents[1].weights(), atol=1e-4, rtol=1e-3)


def test_symlog_and_bounds_of_the_temperature_are_those_of_sac() -> None:
    agent, algo = crossq(DISCRETE, algorithm__symlog=True, algorithm__log_alpha_max=0.1, algorithm__target_entropy=9.0)
    World(agent.info).live(agent, 60)
    assert algo.temperature is not None
    assert algo.temperature.log_alpha.item() == pytest.approx(0.1)
    data = batch(agent)
    plain = copy.deepcopy(algo)
    plain.spec = algo.spec.model_copy(update={"symlog": False})
    assert algo.critic_loss(*data, ZERO, ZERO)[0] < plain.critic_loss(*data, ZERO, ZERO)[0]


@BOTH
def test_images(action: ActionSpace) -> None:
    pixels = arc(
        {"LazyConv2d": {"out_channels": 4, "kernel_size": 3, "stride": 2}}, "ReLU", "Flatten", {"LazyLinear": [8]}
    )
    critic = arc(*pixels["modules"]["body"]["Sequential"], RENORM, "ReLU")
    agent, algo = crossq(action, net=NET | {"actor_arc": pixels, "critic_arc": critic}, obs_shape=(2, 8, 8))
    stats = World(agent.info).live(agent, 20)
    assert all(torch.isfinite(v) for s in stats for v in s.values())
    assert counts(algo)[0] == len(stats)


def test_priorities_are_errors() -> None:
    memory = {"name": "PrioritizedReplay", "batch_size": 8, "max_size": 64, "alpha": 0.6, "epsilon": 0.01}
    agent, _ = crossq(BOX, memory=memory)
    assert len(World(agent.info).live(agent, 20)) > 0


def test_importance_weights_weigh_the_critics_loss() -> None:
    agent, algo = crossq(DISCRETE)
    data: list[Tensor] = batch(agent)
    one = algo.critic_loss(*data, ZERO, ZERO)[0]
    data[-1] = torch.full((5,), 0.25)
    assert algo.critic_loss(*data, ZERO, ZERO)[0].item() == pytest.approx(0.25 * one.item(), rel=1e-4)
