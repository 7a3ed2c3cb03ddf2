"""The recurrent net: layers of cells, start states, initialization; wrong specs."""

from typing import Any

import pytest
import torch
from support.agents import ALGORITHMS, make_info, make_spec
from torch import nn

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.recall import Recall
from slm_lab.agent.net.precision import reduced
from slm_lab.agent.net.recurrent import RecurrentNet
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import load_spec
from slm_lab.types import Sequences

RNN: dict[str, Any] = {"type": "RecurrentNet", "rnn_hidden_size": 8, "seq_len": 4}
CELLS = ("GRU", "LSTM", "RNN")


def make_net(**keys: Any) -> RecurrentNet:
    torch.manual_seed(0)
    return RecurrentNet(RecurrentNet.Spec.model_validate(RNN | keys), (3,), {"policy": 2, "value": 1})


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_step_by_step_or_all_at_once(cell: str, layers: int) -> None:
    net = make_net(cell_type=cell, rnn_num_layers=layers, fc_hid_layers=[5])
    obs, state = torch.randn(6, 2, 3), torch.randn(2, net.state_size)
    assert net.state_size == 8 * layers * (2 if cell == "LSTM" else 1)
    whole = net(Sequences(obs, None, state))
    outs = []
    for t in range(6):
        out, state = net.step(obs[t], state)
        outs.append(out)
    for head, size in enumerate((2, 1)):
        assert whole[head].shape == (12, size)
        torch.testing.assert_close(whole[head], torch.cat([out[head] for out in outs]))


@pytest.mark.parametrize("cell", CELLS)
def test_layers_are_those_of_torch(cell: str) -> None:
    net = make_net(cell_type=cell, rnn_num_layers=2)
    theirs = getattr(nn, cell)(3, 8, 2)
    with torch.no_grad():
        for i, layer in enumerate(net.cells):
            for name, value in layer.named_parameters():
                getattr(theirs, f"{name}_l{i}").copy_(value)
    obs = torch.randn(6, 2, 3)
    torch.testing.assert_close(net.run(obs, None, torch.zeros(2, net.state_size))[0], theirs(obs)[0])


def test_steps_that_fill_up_get_no_answer() -> None:
    net = make_net()
    obs, state = torch.randn(4, 2, 3), torch.zeros(2, 8)
    valid = torch.tensor([[True, True], [True, True], [True, False], [False, False]])
    some = net(Sequences(obs, None, state, valid))[0]
    torch.testing.assert_close(some, net(Sequences(obs, None, state))[0][[0, 1, 2, 3, 4]])


def test_each_gate_is_initialized_by_itself() -> None:
    net = make_net(init_fn="orthogonal_", hid_layers_activation="relu", fc_hid_layers=[8], init_std=0.1)
    cell: Any = net.cells[0]
    for weight in (cell.weight_ih, cell.weight_hh):
        for gate in weight.split(8):
            torch.testing.assert_close(gate @ gate.T, torch.eye(8))
    assert not cell.bias_hh.any()
    layer: Any = net.body[0]
    torch.testing.assert_close(layer.weight.T @ layer.weight, 2 * torch.eye(3))
    for head in net.heads.values():
        torch.testing.assert_close(head.weight.norm(dim=1), torch.full((len(head.weight),), 0.1))


def test_an_observation_without_a_past_is_refused() -> None:
    with pytest.raises(TypeError, match="reads Sequences"):
        make_net()(torch.zeros(2, 3))


def test_what_a_spec_can_get_wrong() -> None:
    with pytest.raises(SpecError, match=r"agent.net.bidirectional: must be false: who acts can't read what is still"):
        load_spec(make_spec("ppo").to_dict() | {"agent": agent("ppo", RNN | {"bidirectional": True})})
    with pytest.raises(SpecError, match=r"agent.net.cell_type: must be 'GRU', 'LSTM' or 'RNN'"):
        load_spec(make_spec("ppo").to_dict() | {"agent": agent("ppo", RNN | {"cell_type": "TRU"})})
    for length in (3, 16):
        with pytest.raises(SpecError, match=rf"agent.net.seq_len: must divide .* which are 8 \(got {length}\)"):
            load_spec(make_spec("ppo").to_dict() | {"agent": agent("a2c_nstep", RNN | {"seq_len": length})})
    with pytest.raises(SpecError, match=r"agent.net.seq_len: must divide .* which are 8 \(got 3\)"):
        Recall([make_net(seq_len=3)], 2, 8, torch.device("cpu"))
    with pytest.raises(SpecError, match=r"agent.net.seq_len: must be the same for actor and critic"):
        Agent(make_spec("ppo", **recurrent(critic_seq_len=2)), make_info(), seed=0)


def test_algorithms_that_draw_single_steps_are_refused() -> None:
    dqn = {"name": "DQN", "training_frequency": 4}
    spec = agent("ppo", RNN) | {"algorithm": dqn, "memory": {"name": "Replay", "batch_size": 4, "max_size": 100}}
    with pytest.raises(SpecError, match=r"agent.net.type: DQN learns from single steps .*it is for ActorCritic, PPO"):
        load_spec(make_spec("ppo").to_dict() | {"agent": spec})


def agent(algorithm: str, net: dict[str, Any]) -> dict[str, Any]:
    memory = {"name": "OnPolicyBatchReplay"}
    return {"name": "test", "algorithm": ALGORITHMS[algorithm], "memory": memory, "net": net}


def recurrent(**keys: Any) -> dict[str, Any]:
    return RNN | keys


def test_cells_and_heads_stay_in_float32() -> None:
    net = make_net(fc_hid_layers=[16])
    obs, state = torch.randn(6, 2, 3), torch.zeros(2, net.state_size)
    plain = net(Sequences(obs, None, state))[0]
    with reduced(torch.device("cpu")):
        rounded = net(Sequences(obs, None, state))[0]
        features, after = net.run(obs, None, state)
    assert rounded.dtype == features.dtype == after.dtype == torch.float32
    torch.testing.assert_close(rounded, plain, rtol=0, atol=0.02)
    assert not torch.equal(rounded, plain)
    grads = torch.autograd.grad(rounded.square().sum(), list(net.body.parameters()))
    assert all(grad.any() for grad in grads)
