"""Batch normalization and renormalization as layers: their modes, warm-up, running statistics."""

import pytest
import torch
from support.agents import Chance, make_info, make_spec
from support.specs import replace
from torch import nn
from torch.nn.functional import batch_norm

from slm_lab.agent.agent import Agent
from slm_lab.agent.net.arc import ArcBody
from slm_lab.agent.net.normalization import BatchNorm, BatchRenorm


def statistics(layer: nn.Module) -> list[torch.Tensor]:
    return [b.clone() for b in layer.buffers()]


def test_running_statistics_by_hand() -> None:
    layer = BatchRenorm(1, momentum=0.1, warmup_steps=10)
    layer(torch.tensor([[1.0], [3.0]]))
    torch.testing.assert_close(layer.running_mean, torch.tensor([0.2]))
    torch.testing.assert_close(layer.running_var, torch.tensor([1.0]))
    layer(torch.tensor([[0.0], [10.0]]))
    torch.testing.assert_close(layer.running_mean, torch.tensor([0.9 * 0.2 + 0.1 * 5]))
    torch.testing.assert_close(layer.running_var, torch.tensor([0.9 + 0.1 * 25]))
    assert layer.num_batches_tracked == 2


def test_plain_until_warm_then_corrected() -> None:
    torch.manual_seed(0)
    layer = BatchRenorm(3, warmup_steps=2)
    x = torch.randn(16, 3) + 1
    for _ in range(2):
        torch.testing.assert_close(layer(x), batch_norm(x, None, None, training=True, eps=1e-3))
    # within the bounds: what the running statistics give
    expected = batch_norm(x, layer.running_mean, layer.running_var, training=False, eps=1e-3)
    assert not torch.allclose(layer(x), batch_norm(x, None, None, training=True, eps=1e-3), atol=0.1)
    layer.num_batches_tracked.sub_(1)
    layer.running_mean.copy_((layer.running_mean - 0.01 * x.mean(0)) / 0.99)
    layer.running_var.copy_((layer.running_var - 0.01 * x.var(0, correction=0)) / 0.99)
    torch.testing.assert_close(layer(x), expected)


def test_by_running_statistics_in_eval_mode_and_where_no_gradient_is_taken() -> None:
    torch.manual_seed(0)
    layer = BatchRenorm(2, warmup_steps=0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    for _ in range(20):
        layer(torch.randn(8, 2) * 5)
    before = statistics(layer)
    x = torch.randn(4, 2, requires_grad=True)
    with torch.no_grad():
        answered = layer(x)
    layer.eval()
    y = layer(x)
    torch.testing.assert_close(y, answered)
    mean, var, _ = before
    torch.testing.assert_close(y, batch_norm(x, mean, var, layer.weight, layer.bias, training=False, eps=1e-3))
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, (layer.weight / (var + 1e-3).sqrt()).expand(4, 2))
    assert all(torch.equal(a, b) for a, b in zip(before, layer.buffers(), strict=True))


def test_half_precision_in_single_precision_out() -> None:
    x = torch.randn(8, 3)
    assert BatchRenorm(3)(x.bfloat16()).dtype == torch.float32


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"momentum must be from 0 to 1 \(got 2\)"):
        BatchRenorm(3, momentum=2)
    with pytest.raises(ValueError, match="r_max must be at least 1"):
        BatchRenorm(3, r_max=0.5)
    with pytest.raises(ValueError, match="warmup_steps must be at least 0"):
        BatchRenorm(3, warmup_steps=-1)
    with pytest.raises(ValueError, match=r"expected \[B, 3\], got \[2, 3, 4, 4\]"):
        BatchRenorm(3)(torch.zeros(2, 3, 4, 4))


def test_in_an_arc() -> None:
    layers = [{"LazyLinear": [6]}, {"LazyBatchRenorm1d": {"momentum": 0.1, "eps": 0.01, "warmup_steps": 7}}, "ReLU"]
    layers += [{"Linear": [6, 4]}, {"BatchRenorm1d": [4]}]
    graph = {"input": "x", "modules": {"body": ["x"]}, "output": "body"}
    body = ArcBody({"modules": {"body": {"Sequential": layers}}, "graph": graph}, (3,))
    made = [m for m in body.modules() if isinstance(m, BatchRenorm)]
    assert [len(m.weight) for m in made] == [6, 4]
    assert (made[0].momentum, made[0].eps, made[0].warmup_steps) == (0.1, 0.01, 7)
    assert all(m.num_batches_tracked == 0 for m in made)
    assert isinstance(body.parts["body"], nn.Sequential)


@pytest.mark.parametrize("layer", [BatchNorm(2), BatchRenorm(2), BatchRenorm(2, warmup_steps=0)], ids=repr)
def test_a_lone_row_is_normalized_by_running_statistics_which_do_not_move(layer: BatchNorm | BatchRenorm) -> None:
    layer(torch.tensor([[1.0, 5.0], [3.0, -5.0]]))
    mean, var, *_ = before = statistics(layer)
    x = torch.tensor([[2.0, 7.0]])
    torch.testing.assert_close(layer(x), (x - mean) / (var + layer.eps).sqrt())
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(layer), strict=True))


def test_one_image_has_values_enough() -> None:
    layer = BatchNorm(1)
    x = torch.tensor([[[[0.0, 2.0]]]])
    torch.testing.assert_close(layer(x), torch.tensor([[[[-1.0, 1.0]]]]), atol=1e-4, rtol=0)
    lone = layer(x[..., :1])
    torch.testing.assert_close(lone, (x[..., :1] - layer.running_mean) / (layer.running_var + layer.eps).sqrt())


def test_a_minibatch_of_one_row_is_learned_from() -> None:
    spec, info = make_spec("ppo", batch_norm=True), make_info()
    agent = Agent(replace(spec, "agent.algorithm.minibatch_size", 23), info, seed=0)
    world = Chance(info)
    for _ in range(8):
        obs = world.obs
        agent.observe(obs, agent.act(obs), world.step())
    assert agent.maybe_update(24) is not None
    assert agent.opt_step == 8  # two nets, two epochs, of 23 rows and of one


def test_without_a_momentum_the_running_statistics_are_means_of_all_batches() -> None:
    ours, theirs = BatchNorm(2, momentum=None), nn.BatchNorm1d(2, momentum=None)
    for batch in torch.randn(3, 8, 2) + 5:
        torch.testing.assert_close(ours(batch), theirs(batch))
    for a, b in zip(statistics(ours), statistics(theirs), strict=True):
        torch.testing.assert_close(a, b)
