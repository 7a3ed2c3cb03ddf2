"""Weights at first: the gains that torch recommends, for functions that take a gain and for `kaiming_*`."""

import math

import pytest
import torch
from torch import nn

from slm_lab.agent.net.init import init_weights


@pytest.mark.parametrize(
    ("activation", "gain"),
    [("relu", math.sqrt(2)), ("LeakyReLU", math.sqrt(2)), ("tanh", 5 / 3), ("sigmoid", 1.0), ("selu", 3 / 4)],
)
def test_kaiming_takes_the_gain_of_the_activation(activation: str, gain: float) -> None:
    layer = nn.Linear(256, 256)
    torch.manual_seed(0)
    init_weights(layer, "kaiming_normal_", activation)
    assert float(layer.weight.detach().std()) == pytest.approx(gain / 16, rel=0.02)


@pytest.mark.parametrize(("fn", "gain"), [("kaiming_normal_", math.sqrt(2)), ("xavier_normal_", 1.0)])
def test_an_activation_for_which_torch_recommends_no_gain(fn: str, gain: float) -> None:
    layer = nn.Linear(256, 256)
    torch.manual_seed(0)
    init_weights(layer, fn, "mish")
    assert float(layer.weight.detach().std()) == pytest.approx(gain / 16, rel=0.02)
