"""Noisy layers by their equation: what they start at, what noise does, and where there is none."""

import copy

import pytest
import torch
from torch.nn.functional import linear

from slm_lab.agent.net.noisy import LayerNoise, NoisyLinear
from slm_lab.lib.registry import lookup

CONV = {"conv_hid_layers": [[4, 3, 1, 0, 1]], "fc_hid_layers": [8]}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_initial_values_are_those_of_the_paper() -> None:
    layer = NoisyLinear(16, 5, 0.5)
    assert torch.equal(layer.weight_std, torch.full((5, 16), 0.125))
    assert torch.equal(layer.bias_std, torch.full((5,), 0.125))
    assert layer.weight.abs().max() <= 0.25
    assert layer.bias.abs().max() <= 0.25


def test_output_by_hand() -> None:
    layer = NoisyLinear(2, 1, 0.5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.fill_(3.0)
        layer.weight_std.copy_(torch.tensor([[0.5, 0.25]]))
        layer.bias_std.fill_(0.1)
    layer.noise_in.copy_(torch.tensor([2.0, -1.0]))
    layer.noise_out.fill_(4.0)
    # weights 1 + 0.5 * 8 and 2 - 0.25 * 4, bias 3 + 0.1 * 4
    torch.testing.assert_close(layer(torch.tensor([[10.0, 1.0]])), torch.tensor([[54.4]]))


def test_noise_is_the_signed_root_of_a_normal_and_new_each_time() -> None:
    layer = NoisyLinear(4000, 4000, 0.5)
    noise = LayerNoise(layer, seeded())
    noise.draw_()
    first = layer.noise_in.clone()
    x = first.sign() * first**2
    assert abs(x.mean()) < 0.1
    assert abs(x.std() - 1) < 0.1
    assert not torch.equal(first, layer.noise_out)
    noise.draw_()
    assert not torch.equal(first, layer.noise_in)


def test_the_same_seed_is_the_same_noise() -> None:
    one = NoisyLinear(3, 2, 0.5)
    other = copy.deepcopy(one)
    LayerNoise(one, seeded()).draw_()
    LayerNoise(other, seeded()).draw_()
    x = torch.randn(4, 3)
    assert torch.equal(one(x), other(x))
    LayerNoise(other, seeded(1)).draw_()
    assert not torch.equal(one(x), other(x))


def test_without_noise_the_net_answers_by_its_means() -> None:
    layer = NoisyLinear(3, 2, 0.5)
    noise = LayerNoise(layer, seeded())
    noise.draw_()
    x = torch.randn(4, 3)
    plain = linear(x, layer.weight, layer.bias)
    assert not torch.equal(layer(x), plain)
    with noise.off():
        assert torch.equal(layer(x), plain)
    assert not torch.equal(layer(x), plain)


def test_gradients_reach_means_and_deviations() -> None:
    layer = NoisyLinear(3, 2, 0.5)
    LayerNoise(layer, seeded()).draw_()
    x = torch.randn(4, 3)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight_std.grad is not None
    e = layer.noise_out[:, None] * layer.noise_in
    torch.testing.assert_close(layer.weight_std.grad, layer.weight.grad * e)
    assert layer.bias_std.grad is not None
    torch.testing.assert_close(layer.bias_std.grad, 4 * layer.noise_out)


@pytest.mark.parametrize("kind", ["MLPNet", "ConvNet", "DuelingMLPNet", "DuelingConvNet"])
def test_every_linear_layer_of_a_net_is_noisy_whatever_its_initialization(kind: str) -> None:
    cls = lookup("net", kind)
    image = "Conv" in kind
    keys = CONV if image else {"hid_layers": [8]}
    spec = cls.Spec(type=kind, noisy_std=0.4, init_fn="orthogonal_", init_std=0.5, **keys)
    net = cls(spec, (2, 5, 5) if image else (3,), {"q": 4})
    linears = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linears) == (3 if "Dueling" in kind else 2)
    for layer in linears:
        assert isinstance(layer, NoisyLinear)
        expected = torch.full_like(layer.weight_std, 0.4 / layer.in_features**0.5)
        torch.testing.assert_close(layer.weight_std, expected)
        assert not layer.bias.any()
        assert layer.bias_std.all()
    assert not any("noise" in name for name in net.state_dict())
