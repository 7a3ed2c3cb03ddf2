"""Recurrent cells against torch.nn: values, gradients, resets."""

import pytest
import torch
from torch import Tensor, nn

from slm_lab.functional.recurrent import CELLS, Cell, GRUCell, LSTMCell, through_time

LAYERS: dict[str, type[nn.RNNBase]] = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN": nn.RNN}
L, S, H = 5, 3, 4


def test_a_gru_step_by_hand() -> None:
    """r = sigmoid(0) = 1/2, z = sigmoid(ln 3) = 3/4, n = tanh(0.3 + 1/2 * 0.4) = tanh(0.5), h' = n/4 + 3/4 * 2."""
    x, g = torch.tensor([[0.5, 0.0, 0.3]]), torch.tensor([[-0.5, 1.0986123, 0.4]])
    h = GRUCell.step(x, g, torch.tensor([[2.0]]))[0]
    torch.testing.assert_close(h, torch.tensor([[0.46211716 / 4 + 1.5]]))


def test_an_lstm_step_by_hand() -> None:
    """i = 1/2, f = 3/4, n = tanh(0.5), o = 1/4: c' = 3/4 * 2 + n/2, h' = tanh(c')/4."""
    x, g = torch.tensor([[0.0, 1.0986123, 0.2, -1.0986123]]), torch.tensor([[0.0, 0.0, 0.3, 0.0]])
    state = LSTMCell.step(x, g, torch.tensor([[9.0, 2.0]]))[0]
    torch.testing.assert_close(state, torch.tensor([[0.9391809 / 4, 1.5 + 0.46211716 / 2]]))


def case(name: str) -> tuple[type[Cell], list[Tensor]]:
    torch.manual_seed(0)
    cell = CELLS[name]
    shapes = [(L, S, cell.GATES * H), (S, cell.STATES * H), (cell.GATES * H, H), (cell.GATES * H,)]
    return cell, [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_is_that_of_torch(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name](2, H)
    cell, seen = CELLS[name], torch.randn(L, S, 2)
    state = torch.randn(1, S, H * cell.STATES)
    start = state if cell.STATES == 1 else tuple(part.contiguous() for part in state.chunk(2, -1))
    x = nn.functional.linear(seen, layer.weight_ih_l0, layer.bias_ih_l0)
    ours = through_time(cell, x, None, state[0], layer.weight_hh_l0, layer.bias_hh_l0)
    theirs, last = layer(seen, start)
    torch.testing.assert_close(ours[..., :H], theirs)
    torch.testing.assert_close(ours[-1:], last if cell.STATES == 1 else torch.cat(last, -1))
    weight = torch.randn(L, S, H)
    mine = torch.autograd.grad((ours[..., :H] * weight).sum(), list(layer.parameters()))
    for a, b in zip(mine, torch.autograd.grad((theirs * weight).sum(), list(layer.parameters())), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_are_those_of_finite_differences(name: str, resets: bool) -> None:
    cell, arguments = case(name)
    keep = (torch.rand(L, S, 1, dtype=torch.float64) > 0.4).double() if resets else None
    assert torch.autograd.gradcheck(lambda x, *rest: through_time(cell, x, keep, *rest), arguments)


@pytest.mark.parametrize("name", CELLS)
def test_a_reset_inside_makes_two_sequences_of_one(name: str) -> None:
    cell, (x, state, weight, bias) = case(name)
    keep = torch.ones(L, S, 1, dtype=torch.float64)
    keep[2] = 0
    whole = through_time(cell, x, keep, state, weight, bias)
    first = through_time(cell, x[:2], None, state, weight, bias)
    second = through_time(cell, x[2:], None, torch.zeros_like(state), weight, bias)
    torch.testing.assert_close(whole, torch.cat([first, second]))
    assert not torch.allclose(whole[2], through_time(cell, x, None, state, weight, bias)[2])


@pytest.mark.parametrize("name", CELLS)
def test_the_gradient_goes_back_to_the_first_step_but_not_past_a_reset(name: str) -> None:
    cell, (x, state, weight, bias) = case(name)
    keep = torch.ones(L, S, 1, dtype=torch.float64)
    keep[2, 0] = 0
    dx, dstate = torch.autograd.grad(through_time(cell, x, keep, state, weight, bias)[-1].sum(), [x, state])
    assert dx[0, 1:].abs().sum() > 0
    assert dstate[1:].abs().sum() > 0
    assert dx[:2, 0].abs().sum() == 0
    assert dstate[0].abs().sum() == 0
    assert dx[2, 0].abs().sum() > 0
