"""Names in the spec of a net: every fault at once, each under the key that holds it; and keys without effect."""

import importlib
from typing import Any

import numpy as np
import pytest
from support.agents import make_info, make_spec
from support.specs import replace

from slm_lab.agent.agent import Agent
from slm_lab.agent.net.check import net_faults
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import lookup, names
from slm_lab.spec.model import NetSpec
from slm_lab.types import Continuous, EnvInfo

STEP = {"name": "StepLR", "step_size": 10}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"init_fn": "constant_"}, "init_fn: constant_ can't be used here: it needs val (known: eye_, kaiming_normal_"),
        ({"init_fn": "sparse_"}, "init_fn: sparse_ can't be used here: it needs sparsity"),
        ({"init_fn": "dirac_"}, "init_fn: dirac_ can't be used here: it fills convolutions alone"),
        ({"critic_init_fn": "orthogonal"}, "critic_init_fn: torch.nn.init has no 'orthogonal', did you mean 'ortho"),
        ({"hid_layers_activation": "reelu"}, "hid_layers_activation: unknown activation 'reelu', did you mean 'relu'?"),
        ({"out_layer_activation": "tahn"}, "out_layer_activation: unknown activation 'tahn', did you mean 'tanh'?"),
        ({"actor_out_layer_activation": "glu"}, "actor_out_layer_activation: unknown activation 'glu'"),
        ({"loss_spec": {"name": "MSE"}}, "loss_spec.name: torch.nn has no loss 'MSE', did you mean 'MSELoss'?"),
        ({"critic_loss_spec": {"name": "CTCLoss"}}, "critic_loss_spec: CTCLoss does not compare values with targets"),
        (
            {"actor_optim_spec": {"name": "Adm"}},
            "actor_optim_spec.name: torch.optim has no 'Adm', did you mean 'Adam'?",
        ),
        (
            {"critic_optim_spec": {"bta": 1}},
            "critic_optim_spec.bta: Adam takes no such argument, did you mean 'betas'?",
        ),
        ({"optim_spec": {"name": "Optimizer"}}, "optim_spec.name: torch.optim has no"),
        ({"optim_spec": {"eps": -1.0}}, "optim_spec.eps: must be at least 0 (got -1.0)"),
        (
            {"lr_scheduler_spec": {"name": "Step"}},
            "lr_scheduler_spec.name: unknown schedule 'Step', did you mean 'StepLR",
        ),
        ({"lr_scheduler_spec": {"name": "LRScheduler"}}, "lr_scheduler_spec.name: unknown schedule 'LRScheduler'"),
        (
            {"lr_scheduler_spec": {"name": "LambdaLR"}},
            "lr_scheduler_spec.name: LambdaLR can't be used here: it needs a",
        ),
        ({"lr_scheduler_spec": STEP | {"step_size": 0}}, "lr_scheduler_spec: StepLR can't work with these argum"),
        (
            {"lr_scheduler_spec": STEP | {"step_size": "x"}},
            "lr_scheduler_spec: StepLR can't work with these arguments: ",
        ),
        (
            {"lr_scheduler_spec": {"name": "LinearToZero", "frame": 9, "x": 1}},
            "lr_scheduler_spec.x: LinearToZero takes",
        ),
    ],
)
def test_one_fault(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as caught:
        Agent(make_spec("ppo", **keys), make_info(), seed=0)
    [fault] = caught.value.faults
    assert fault.startswith(f"agent.net.{line}")


def test_a_schedule_says_which_keys_it_knows() -> None:
    spec = make_spec("ppo", lr_scheduler_spec={"name": "StepLR", "frame": 10})
    assert net_faults(spec.agent.net) == [
        "agent.net.lr_scheduler_spec.frame: StepLR takes no such argument (known: step_size, gamma)",
        "agent.net.lr_scheduler_spec.step_size: missing, StepLR needs it (known: step_size, gamma)",
    ]


def test_all_faults_at_once_also_of_keys_that_both_roles_override() -> None:
    good = {"name": "Adam", "lr": 0.1}
    keys = {"init_fn": "x", "optim_spec": {"name": "Nope"}, "actor_optim_spec": good, "critic_optim_spec": good}
    faults = net_faults(make_spec("ppo", **keys, actor_hid_layers_activation="y").agent.net)
    assert [fault.partition(":")[0] for fault in faults] == [
        "agent.net.init_fn",
        "agent.net.optim_spec.name",
        "agent.net.actor_hid_layers_activation",
    ]


@pytest.mark.parametrize("name", ["orthogonal_", "xavier_uniform_", "kaiming_normal_", "eye_", "zeros_", "uniform_"])
def test_functions_of_torch_that_fit_run(name: str) -> None:
    Agent(make_spec("ppo", init_fn=name), make_info(), seed=0)


def test_a_function_that_does_not_fit_a_layer_is_told() -> None:
    images = EnvInfo("none", (1, 8, 8), "uint8", make_info().action, 1, None)
    net = {"type": "ConvNet", "conv_hid_layers": [[2, 3, 1, 0, 1]], "init_fn": "eye_"}
    with pytest.raises(SpecError, match=r"agent\.net\.init_fn: eye_ does not fit a Conv2d of shape \[2, 1, 3, 3\]"):
        Agent(replace(make_spec("ppo"), "agent.net", net), images, seed=0)


def test_algorithms_say_whether_they_have_a_target_net() -> None:
    """Modules that know TargetNet have an algorithm that says so; one that says so has it, or inherits from one."""
    classes = [lookup("algorithm", name) for name in names("algorithm")]
    saying = [cls for cls in classes if cls.has_target]
    knowing = {m for cls in classes if "TargetNet" in vars(importlib.import_module(m := cls.__module__))}
    assert knowing <= {cls.__module__ for cls in saying}
    assert all(knowing & {base.__module__ for base in cls.__mro__} for cls in saying)
    assert {role for cls in classes for role in cls.roles} == set(NetSpec.roles)


@pytest.mark.parametrize("action", [make_info().action, Continuous(2, (-1.0,) * 2, (1.0,) * 2)])
@pytest.mark.parametrize("shape", [(6,), (4, 4, 3)])
def test_bytes_are_seen_from_0_to_1(shape: tuple[int, ...], action: Any) -> None:
    """uint8 observations that are no images for convolutions: those of CarRacing and of Atari's RAM."""
    info = EnvInfo("none", shape, "uint8", action, 2, None)
    agent = Agent(make_spec("ppo"), info, seed=0)
    obs = np.full((2, *shape), 255, np.uint8)
    reals = Agent(make_spec("ppo"), EnvInfo("none", shape, "float32", action, 2, None), seed=0)
    assert (agent.act(obs, explore=False) == reals.act(np.ones((2, *shape), np.float32), explore=False)).all()
