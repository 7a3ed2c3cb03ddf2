"""TorchArcNet: bodies written out layer by layer, in every algorithm, compiled and eager."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.agents import ALGORITHMS, BOX, DISCRETE, Chance, make_info
from torch import nn

from slm_lab.agent.agent import Agent
from slm_lab.agent.net.arc import LAYERS, ArcBody
from slm_lab.agent.net.critic import StateActionNet
from slm_lab.agent.net.mlp import MLPNet
from slm_lab.agent.net.torch_arc import TorchArcNet
from slm_lab.lib.errors import SpecError
from slm_lab.spec.model import Spec
from slm_lab.types import ActionSpace

GRAPH = {"input": "x", "modules": {"body": ["x"]}, "output": "body"}
VECTOR = {
    "modules": {
        "body": {
            "Sequential": [
                {"LazyLinear": {"out_features": 16}},
                {"LayerNorm": {"normalized_shape": 16}},
                {"Tanh": None},
                {"LazyLinear": [8]},
                "SiLU",
            ]
        }
    },
    "graph": GRAPH,
}
RENORM = {"LazyBatchRenorm1d": {"momentum": 0.1, "warmup_steps": 5}}
NORMAL = {"modules": {"body": {"Sequential": [{"LazyLinear": [16]}, RENORM, "ReLU"]}}, "graph": GRAPH}
IMAGE = {
    "modules": {
        "body": {
            "Sequential": [
                {"LazyConv2d": {"out_channels": 4, "kernel_size": [4, 4], "stride": 2, "padding": 1}},
                {"ReLU": {}},
                {"Flatten": None},
                {"LazyLinear": {"out_features": 8}},
                {"SELU": None},
            ]
        }
    },
    "graph": GRAPH,
}
REPLAY = {"name": "Replay", "batch_size": 8, "max_size": 64}
ONPOLICY = {"name": "OnPolicyBatchReplay"}
SIL = {"sil_policy_loss_coef": 1.0, "sil_val_loss_coef": 0.1}
SETS: dict[str, tuple[dict[str, Any], dict[str, Any], ActionSpace]] = {
    **{name: (ALGORITHMS[name], ONPOLICY, DISCRETE) for name in ("reinforce", "a2c_gae", "ppo")},
    "ppo_box": (ALGORITHMS["ppo"], ONPOLICY, BOX),
    "sil": (ALGORITHMS["a2c_gae"] | {"name": "SIL"} | SIL, ONPOLICY, DISCRETE),
    "sarsa": ({"name": "SARSA", "training_frequency": 8}, ONPOLICY, DISCRETE),
    "dqn": ({"name": "DQN", "training_frequency": 4}, REPLAY, DISCRETE),
    "ddqn": ({"name": "DoubleDQN", "training_frequency": 4}, REPLAY, DISCRETE),
    "sac": ({"name": "SoftActorCritic", "training_start_step": 8}, REPLAY, DISCRETE),
    "sac_box": ({"name": "SoftActorCritic", "training_start_step": 8}, REPLAY, BOX),
    "crossq": ({"name": "CrossQ", "training_start_step": 8}, REPLAY, DISCRETE),
    "crossq_box": ({"name": "CrossQ", "training_start_step": 8}, REPLAY, BOX),
}


def make(name: str, arc: dict[str, Any], **net: Any) -> Spec:
    algorithm, memory, _ = SETS[name]
    return Spec.model_validate(
        {
            "name": "test",
            "agent": {
                "name": "test",
                "algorithm": algorithm,
                "memory": memory,
                "net": {"type": "TorchArcNet", "init_fn": "orthogonal_", "arc": arc} | net,
            },
            "env": {"name": "none", "num_envs": 3, "max_frame": 1000},
            "meta": {},
        }
    )


def trained(
    name: str, arc: dict[str, Any], shape: tuple[int, ...], *, compile: bool = False, **net: Any
) -> dict[str, torch.Tensor]:
    """The weights after a few updates."""
    info = make_info(SETS[name][2])
    if len(shape) > 1:
        info = replace(info, obs_shape=shape, obs_dtype="uint8")
    agent = Agent(make(name, arc, **net), info, seed=1, compile=compile, debug=True)
    env = Chance(make_info(SETS[name][2]))
    rng = np.random.default_rng(0)

    def seen() -> Any:
        return env.obs if len(shape) == 1 else rng.integers(0, 256, (3, *shape), dtype=np.uint8)

    obs = seen()
    for t in range(24):
        action = agent.act(obs)
        step = env.step()
        after = seen()
        agent.observe(obs, action, step._replace(obs=after, final_obs=step.final_obs if len(shape) == 1 else after))
        obs = after
        agent.maybe_update(3 * (t + 1))
    assert agent.opt_step > 0
    return agent.weights()


@pytest.mark.parametrize("name", SETS)
def test_every_algorithm_learns_with_it(name: str) -> None:
    weights = trained(name, VECTOR, (4,))
    assert any(".body.parts.body.0.weight" in key for key in weights)
    assert all(torch.isfinite(w).all() for w in weights.values())


@pytest.mark.parametrize("name", ["ppo", "ddqn", "sac", "sac_box"])
def test_images(name: str) -> None:
    weights = trained(name, IMAGE, (2, 8, 8))
    assert any(w.shape == (4, 2, 4, 4) for w in weights.values())


@pytest.mark.ci
@pytest.mark.parametrize("name", ["a2c_gae", *(pytest.param(x, marks=pytest.mark.slow) for x in ("ddqn", "sac_box"))])
def test_compiled_equals_eager(name: str) -> None:
    eager, compiled = (trained(name, VECTOR, (4,), compile=c) for c in (False, True))
    for key, w in eager.items():
        torch.testing.assert_close(compiled[key], w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ppo", pytest.param("ddqn", marks=pytest.mark.slow)])
def test_running_statistics_move_alike_compiled_and_eager(name: str) -> None:
    # Adam divides by its eps where a gradient is rounding alone: that of a bias before a normalization
    optim = {"name": "Adam", "eps": 1e-3}
    eager, compiled = (trained(name, NORMAL, (4,), compile=c, optim_spec=optim) for c in (False, True))
    assert any(key.endswith("num_batches_tracked") and value > 5 for key, value in eager.items())
    for key, w in eager.items():
        torch.testing.assert_close(compiled[key], w, rtol=1e-4, atol=1e-5)


def test_equals_the_mlp_with_the_same_layers() -> None:
    arc = {"modules": {"m": {"Sequential": [{"LazyLinear": [16]}, "Tanh", {"Linear": [16, 8]}, "Tanh"]}}}
    arc["graph"] = {"input": "obs", "modules": {"m": ["obs"]}, "output": "m"}
    keys = {"hid_layers_activation": "tanh", "init_fn": "orthogonal_", "init_std": 0.5}
    outs = []
    for net, own in ((TorchArcNet, {"arc": arc}), (MLPNet, {"hid_layers": [16, 8]})):
        torch.manual_seed(0)
        made = net(net.Spec(type=net.__name__, **keys, **own), (4,), {"policy": 3, "value": 1})  # type: ignore[arg-type]
        outs.append(made(torch.arange(8.0).view(2, 4)))
    for mine, theirs in zip(*outs, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs)


def test_actor_and_critic_may_have_arcs_of_their_own() -> None:
    small = {"modules": {"m": {"LazyLinear": [5]}}, "graph": {"input": "x", "modules": {"m": ["x"]}, "output": "m"}}
    spec = make("a2c_gae", VECTOR, actor_arc=small)
    agent = Agent(spec, make_info(), seed=0)
    weights = agent.weights()
    assert weights["net.net.body.parts.m.weight"].shape == (5, 4)
    assert weights["critic_net.body.parts.body.0.weight"].shape == (16, 4)


def test_modules_in_a_row_in_any_order() -> None:
    arc = {
        "modules": {"b": "Tanh", "a": {"LazyLinear": [3]}, "unused": {"LazyLinear": [7]}},
        "graph": {"input": "x", "modules": {"b": ["a"], "a": ["x"]}, "output": "b"},
    }
    body = ArcBody(arc, (4,))
    x = torch.ones(2, 4)
    torch.testing.assert_close(body(x), torch.tanh(body.parts["a"](x)))
    assert set(body.parts) == {"a", "b"}


def test_pixels() -> None:
    arc = {"modules": {"m": "Identity"}, "graph": {"input": "x", "modules": {"m": ["x"]}, "output": "m"}}
    obs = torch.full((1, 1, 2, 2), 51, dtype=torch.uint8)
    for normalize, value in ((True, 0.2), (False, 51.0)):
        net = TorchArcNet(TorchArcNet.Spec(type="TorchArcNet", arc=arc, normalize=normalize), (1, 2, 2), {})
        torch.testing.assert_close(net.features(obs), torch.full((1, 4), value))


@pytest.mark.parametrize(("normalize", "value"), [(True, 0.2), (False, 51.0)])
def test_a_critic_of_a_continuous_action_reads_bytes_as_the_net_does(normalize: bool, value: float) -> None:
    arc = {"modules": {"m": "Identity"}, "graph": {"input": "x", "modules": {"m": ["x"]}, "output": "m"}}
    spec = TorchArcNet.Spec(type="TorchArcNet", arc=arc, normalize=normalize)
    critic = StateActionNet(TorchArcNet, spec.for_role("critic"), (1,), 1)
    head: Any = critic.net.heads["q"]
    q = critic(torch.full((1, 1), 51, dtype=torch.uint8), torch.zeros(1, 1))
    torch.testing.assert_close(q, value * head.weight[0, 0] + head.bias)


def arc_of(*layers: Any) -> dict[str, Any]:
    return {"modules": {"body": {"Sequential": list(layers)}}, "graph": GRAPH}


@pytest.mark.parametrize(
    ("arc", "message"),
    [
        (None, "agent.net.arc: missing (or actor_arc and critic_arc)"),
        ({}, "agent.net.arc.modules: must be an object: names and their modules"),
        ({"modules": VECTOR["modules"]}, 'agent.net.arc.graph: must be of the form {"input": "x",'),
        (VECTOR | {"grap": {}}, "agent.net.arc.grap: unknown key (known: modules, graph)"),
        (
            arc_of({"Tan": None}),
            "agent.net.arc.modules.body.Sequential[0].Tan: no layer of this grammar, did you mean 'Tanh'?",
        ),
        (arc_of("Dropout"), "agent.net.arc.modules.body.Sequential[0].Dropout: no layer of this grammar"),
        (arc_of({"LazyLinear": {"out": 3}}), "Sequential[0].LazyLinear: does not fit an input of shape [4]: "),
        (
            arc_of({"LazyLinear": {"out_features": -3}}),
            "Sequential[0].LazyLinear: does not fit an input of shape [4]: ",
        ),
        (arc_of({"LazyLinear": [8]}, {"Linear": [9, 2]}), "Sequential[1].Linear: does not fit an input of shape [8]: "),
        (arc_of({"LazyConv2d": [8, 3]}), "Sequential[0].LazyConv2d: does not fit an input of shape [4]: "),
        (arc_of({"LazyLinear": 8}), "Sequential[0].LazyLinear: arguments must be an object, a list or null (got 8)"),
        (arc_of({"Tanh": None, "ReLU": None}), 'Sequential[0]: must be a layer, {"Layer": {arguments}} (got'),
        (arc_of(3), "Sequential[0]: must be a layer"),
        (arc_of(), "agent.net.arc.modules.body.Sequential: must be a list of layers"),
        (arc_of(*["Tanh"] * 201), "more than 200 layers"),
        (
            VECTOR | {"graph": GRAPH | {"modules": {"bodi": ["x"]}}},
            "agent.net.arc.graph.modules.bodi: no such module, did you mean 'body'?",
        ),
        (VECTOR | {"graph": GRAPH | {"modules": {"body": ["x", "x"]}}}, "must be a list of one name (got ['x', 'x'])"),
        (
            VECTOR | {"graph": GRAPH | {"modules": {"body": ["body"]}}},
            "agent.net.arc.graph: 'body' needs its own output",
        ),
        (VECTOR | {"graph": GRAPH | {"modules": {"body": ["y"]}}}, "agent.net.arc.graph: 'y' is neither the input nor"),
        (VECTOR | {"graph": GRAPH | {"output": "x"}}, "agent.net.arc.graph.output: must be a module"),
    ],
)
def test_what_is_wrong_is_told(arc: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Agent(make("a2c_gae", arc), make_info(), seed=0)
    assert any(message in fault for fault in caught.value.faults), caught.value.faults


def test_layers_are_those_of_torch() -> None:
    assert [name for name in LAYERS if not hasattr(nn, name)] == ["BatchRenorm1d", "LazyBatchRenorm1d"]
