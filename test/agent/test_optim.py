"""Learning rates follow the frames from the first on; what can't work here is told."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from slm_lab.agent.net.init import loss_function
from slm_lab.agent.net.optim import Optim, lr_schedule
from slm_lab.lib.errors import SpecError
from slm_lab.spec.model import LossSpec, LrSchedulerSpec, NetSpec


def make(**keys: Any) -> Optim:
    spec = {"type": "any", "optim_spec": {"name": "Adam", "lr": 0.01}} | keys
    return Optim(nn.Linear(2, 2), NetSpec.model_validate(spec))


def test_a_warm_up_begins_at_frame_0() -> None:
    optim = make(lr_scheduler_spec={"name": "LinearLR", "start_factor": 0.1, "total_iters": 100})
    assert float(optim.lr) == pytest.approx(0.001)
    optim.set_frame(50)
    assert float(optim.lr) == pytest.approx(0.0055)


@pytest.mark.parametrize(
    ("spec", "frame", "rate"),
    [
        ({"name": "MultiStepLR", "milestones": [10, 20], "gamma": 0.1}, 15, 0.1),
        ({"name": "ExponentialLR", "gamma": 0.5}, 3, 0.125),
        ({"name": "CosineAnnealingLR", "T_max": 100}, 50, 0.5),
        ({"name": "OneCycleLR", "max_lr": 1.0, "total_steps": 100}, 5000, 4e-6),
        ({"name": "OneCycleLR", "max_lr": 1.0, "epochs": 4, "steps_per_epoch": 25}, 5000, 4e-6),
    ],
)
def test_torch_schedules_count_frames(spec: dict[str, Any], frame: int, rate: float) -> None:
    schedule = lr_schedule(LrSchedulerSpec.model_validate(spec), 1.0)
    assert schedule is not None
    assert schedule(frame) == pytest.approx(rate, rel=0.01)


def test_an_argument_at_its_default_costs_nothing() -> None:
    assert make(optim_spec={"name": "Adam", "lr": 0.01, "amsgrad": False}).functional
    assert not make(optim_spec={"name": "Adam", "lr": 0.01, "amsgrad": True}).functional


@pytest.mark.parametrize("name", ["LBFGS", "SparseAdam"])
def test_optimizers_that_can_not_work_are_told(name: str) -> None:
    with pytest.raises(SpecError, match=f"agent.net.optim_spec.name: {name} can't be used here"):
        make(optim_spec={"name": name, "lr": 0.01})


def test_a_schedule_of_losses_is_told() -> None:
    with pytest.raises(SpecError, match="ReduceLROnPlateau can't be used here: it follows a loss"):
        make(lr_scheduler_spec={"name": "ReduceLROnPlateau"})


@pytest.mark.parametrize("spec", [{"name": "MSELoss", "reduction": "none"}, {"name": "CTCLoss"}])
def test_a_loss_must_compare_values_and_give_one_number(spec: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"agent\.net\.loss_spec"):
        loss_function(LossSpec.model_validate(spec))


def test_a_loss_of_single_samples_is_averaged_by_the_algorithm() -> None:
    assert loss_function(LossSpec.model_validate({"name": "L1Loss", "reduction": "mean"}), each=True)
    with pytest.raises(SpecError, match=r"loss_spec.reduction: must be mean here, .* \(got 'sum'\)"):
        loss_function(LossSpec.model_validate({"name": "L1Loss", "reduction": "sum"}), each=True)


def test_later_steps_of_torchs_own_optimizers_leave_a_snapshot_as_it_is() -> None:
    optim, other = (make(optim_spec={"name": "Adagrad", "lr": 0.01}) for _ in range(2))

    def step(optim: Optim) -> None:
        optim.params.grad.fill_(1.0)
        optim.step_()

    step(optim)
    state = optim.state_dict()
    before = copy.deepcopy(state)
    other.load_state_dict(state)
    for each in (optim, other):
        step(each)
        assert torch.equal(state["state"]["state"][0]["sum"], before["state"]["state"][0]["sum"])
