"""Dueling heads by their equation."""

from typing import Any

import pytest
import torch
from torch import nn

from slm_lab.agent.net.dueling import DuelingHead
from slm_lab.lib.registry import lookup

CONV = {"conv_hid_layers": [[4, 3, 1, 0, 1]], "fc_hid_layers": [8]}


def test_values_by_hand() -> None:
    head = DuelingHead(nn.Linear, 1, 3)
    with torch.no_grad():
        head.value.weight.fill_(10.0)
        head.value.bias.fill_(0.0)
        head.advantage.weight.copy_(torch.tensor([[1.0], [2.0], [6.0]]))
        head.advantage.bias.fill_(100.0)
    assert head(torch.tensor([[1.0]])).tolist() == [[8.0, 9.0, 13.0]]


def test_each_number_of_a_distribution_by_itself() -> None:
    head = DuelingHead(nn.Linear, 1, 2, 3)
    with torch.no_grad():
        head.value.weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
        head.value.bias.fill_(0.0)
        head.advantage.weight.copy_(torch.tensor([[10.0], [0.0], [2.0], [30.0], [4.0], [2.0]]))
        head.advantage.bias.fill_(100.0)
    # of action 0: 10, 0, 2; of action 1: 30, 4, 2; their means over actions are 20, 2, 2
    assert head(torch.tensor([[1.0]])).tolist() == [[-9.0, 0.0, 3.0, 11.0, 4.0, 3.0]]


@pytest.mark.parametrize(
    ("kind", "keys", "shape"), [("MLPNet", {"hid_layers": [8]}, (3,)), ("ConvNet", CONV, (1, 5, 5))]
)
@pytest.mark.parametrize("init", [{}, {"init_fn": "orthogonal_", "init_std": 0.5}])
def test_the_mean_over_actions_is_the_value(
    kind: str, keys: dict[str, Any], shape: tuple[int, ...], init: dict[str, Any]
) -> None:
    cls = lookup("net", f"Dueling{kind}")
    spec = cls.Spec(type=f"Dueling{kind}", **keys, **init)
    net = cls(spec, shape, {"q": 4})
    head = net.heads["q"]
    obs = torch.randn(6, *shape)
    q = net(obs)[0]
    assert q.shape == (6, 4)
    torch.testing.assert_close(q.mean(-1), head.value(net.features(obs)).squeeze(-1))
    if init:
        assert not any(m.bias.any() for m in head.modules() if isinstance(m, nn.Linear))
        norms = head.advantage.weight.norm(dim=1)
        torch.testing.assert_close(norms, torch.full((4,), 0.5))
