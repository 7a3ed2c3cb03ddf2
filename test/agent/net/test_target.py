"""Target nets: equal at the start, then slow."""

import torch
from torch import nn

from slm_lab.agent.net.optim import FlatParams
from slm_lab.agent.net.target import TargetNet
from slm_lab.spec.model import NetSpec


def pair(**keys: object) -> tuple[nn.Module, FlatParams, TargetNet]:
    online = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    target = TargetNet(online, NetSpec.model_validate({"type": "MLPNet", **keys}))
    return online, FlatParams(online), target


def test_it_is_equal_at_the_start_and_no_part_of_the_net() -> None:
    online, params, target = pair()
    assert torch.equal(target.params.flat, params.flat)
    params.flat.add_(1)
    assert not torch.equal(target.params.flat, params.flat)
    assert not any(p.requires_grad for p in target.net.parameters())
    assert all(p.requires_grad for p in online.parameters())


def test_replace_honours_the_frequency() -> None:
    _, params, target = pair(update_type="replace", update_frequency=10, polyak_coef=0.5)
    params.flat.fill_(7.0)
    for frame in (4, 8):
        target.follow_(params, frame)
        assert not bool((target.params.flat == 7).any())
    target.follow_(params, 12)
    assert bool((target.params.flat == 7).all())
    params.flat.fill_(8.0)
    for frame in (16, 19):
        target.follow_(params, frame)
    assert bool((target.params.flat == 7).all())
    # several multiples at once are one update
    target.follow_(params, 57)
    assert bool((target.params.flat == 8).all())


def test_polyak_honours_the_frequency() -> None:
    _, params, target = pair(update_type="polyak", update_frequency=10, polyak_coef=0.25)
    target.params.flat.fill_(0.0)
    params.flat.fill_(4.0)
    means = []
    for frame in range(4, 41, 4):
        target.follow_(params, frame)
        means.append(round(float(target.params.flat.mean()), 4))
    assert means == [0.0, 0.0, 1.0, 1.0, 1.75, 1.75, 1.75, 2.3125, 2.3125, 2.7344]


def test_running_statistics_are_copied() -> None:
    online, params, target = pair()
    online[1].running_mean.fill_(3.0)
    target.follow_(params, 1)
    assert bool((target.net[1].running_mean == 3).all())


def test_round_trip() -> None:
    _, params, target = pair(update_frequency=10)
    params.flat.fill_(2.0)
    target.follow_(params, 15)
    state = target.state_dict()
    _, _, fresh = pair(update_frequency=10)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.params.flat, target.params.flat)
    assert bool((fresh.net[0].weight == 2).all())
    params.flat.fill_(3.0)
    for t in (target, fresh):
        t.follow_(params, 19)
        assert bool((t.params.flat == 2).all())
        t.follow_(params, 20)
        assert bool((t.params.flat == 3).all())
