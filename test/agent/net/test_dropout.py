"""Dropout: units dropped by chance that belongs to the net."""

import copy
from typing import Any

import pytest
import torch
from support.replay import BOX, World, make

from slm_lab.agent.agent import Agent
from slm_lab.agent.net.dropout import Dropout
from slm_lab.agent.net.mlp import MLPNet, MLPNetSpec

DROQ = {
    "type": "MLPNet",
    "hid_layers": [8, 8],
    "critic_layer_norm": True,
    "critic_dropout": 0.2,
    "update_type": "polyak",
    "polyak_coef": 0.1,
}


def test_a_share_is_dropped_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    layer, x = Dropout(0.2), torch.full((400, 50), 2.0)
    made = [layer(x) for _ in range(3)]
    for y in made:
        assert y.unique().tolist() == [0.0, 2.5]
        assert (y == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    # each pass, row and column by itself: two of them drop the same unit with a chance of 0.04
    same = (made[0] == 0) & (made[1] == 0)
    assert same.float().mean().item() == pytest.approx(0.04, abs=0.005)
    rows = (made[0][0::2] == 0) & (made[0][1::2] == 0)
    assert rows.float().mean().item() == pytest.approx(0.04, abs=0.01)


def test_another_layer_drops_others_and_a_saved_one_the_same() -> None:
    torch.manual_seed(0)
    one, other, x = Dropout(0.5), Dropout(0.5), torch.ones(200)
    one(x), other(x)
    assert not torch.equal(one(x), other(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_nothing_is_dropped_where_the_net_only_answers() -> None:
    layer, x = Dropout(0.5), torch.ones(100)
    with torch.no_grad():
        assert torch.equal(layer(x), x)
    assert layer.passes == 0


def test_the_share_must_be_one() -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Dropout(1.0)


def test_it_stands_behind_each_hidden_layer_before_the_normalization() -> None:
    spec = MLPNetSpec(type="MLPNet", hid_layers=[4, 3], layer_norm=True, dropout=0.1)
    kinds = [type(layer).__name__ for layer in MLPNet(spec, (2,), {"q": 1}).body]
    assert kinds == ["Linear", "Dropout", "LayerNorm", "ReLU"] * 2


def droq(**changes: Any) -> Agent:
    return make(BOX, net=DROQ, algorithm__training_iter=3, algorithm__policy_delay=3, **changes)


def test_droq_by_keys_of_sac_goes_on_bitwise_where_it_was_saved() -> None:
    """Critics drop; the policy and the targets don't."""
    agent, other = droq(), droq(seed=9)
    world = World(agent.info)
    world.live(agent, 12)
    passes = {k: v.item() for k, v in agent.weights().items() if k.endswith("passes")}
    assert passes
    assert all("critic" in key and count > 0 for key, count in passes.items())
    other.load_state_dict(agent.state_dict())
    twin = copy.deepcopy(world)
    first, second = world.live(agent, 12), twin.live(other, 12)
    assert [{k: v.item() for k, v in s.items()} for s in first] == [{k: v.item() for k, v in s.items()} for s in second]
    mine, its = agent.weights(), other.weights()
    assert all(torch.equal(mine[k], its[k]) for k in mine)


@pytest.mark.slow
def test_compiled_the_same_units_are_dropped() -> None:
    agents = [droq(compile=c) for c in (False, True)]
    stats = [World(agent.info).live(agent, 12) for agent in agents]
    assert agents[1].compiled
    for a, b in zip(*stats, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(agents[0].weights(), agents[1].weights(), atol=1e-4, rtol=1e-3)
