"""One gradient step: eager equals a plain torch loop, compiled equals eager."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.agents import Chance, make_info, make_spec
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm import learner
from slm_lab.agent.algorithm import learner as module
from slm_lab.agent.algorithm.learner import Learner, NonFiniteLoss, Stage
from slm_lab.agent.net.optim import FlatParams, Optim
from slm_lab.lib import compile as compiler
from slm_lab.lib.compile import CompileError, compile_function
from slm_lab.lib.compiler import Effort
from slm_lab.lib.native.steps import Unsupported
from slm_lab.spec.model import NetSpec
from slm_lab.types import Stats

needs_compiler = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")


def mlp(seed: int, out: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, out))


def net_spec(**keys: Any) -> NetSpec:
    return NetSpec.model_validate({"type": "any", "optim_spec": {"name": "Adam", "lr": 0.01}} | keys)


class Regression:
    """Two nets and a frozen one: `first` fits the target of the frozen, then `second` fits the new `first`."""

    def __init__(self, *, compile: Effort | bool = False) -> None:
        self.nets = {"first": mlp(0, 1), "second": mlp(1, 1), "target": mlp(2, 1)}
        spec = net_spec(clip_grad_val=0.1)
        self.optims = {k: Optim(self.nets[k], spec) for k in ("first", "second")}
        self.frozen = FlatParams(self.nets["target"])
        stages = [
            Stage(("first",), self.fit_target, ("error",), ("each",), "first_loss"),
            Stage(("second",), self.fit_first, label="second_loss"),
        ]
        self.learner = Learner(self.nets, self.optims, stages, frozen={"target": self.frozen}, compile=compile)

    def fit_target(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Stats]:
        error = self.nets["first"](x) - scale * self.nets["target"](x)
        return error.square().mean(), {"error": error.abs().mean(), "each": error.abs().squeeze(-1)}

    def fit_first(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Stats]:
        return (self.nets["second"](x) - self.nets["first"](x)).square().mean(), {}


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=needs_compiler)])
def test_a_statistic_that_gets_no_column_is_reported(compile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(learner, "note", told.append)
    ours = Regression()
    stage = Stage(("first",), ours.fit_target, outputs=("each",))
    Learner(ours.nets, ours.optims, [stage], frozen={"target": ours.frozen}, compile=compile).step(
        [torch.randn(8, 4)], None, (torch.tensor(2.0),)
    )
    words = "Regression.fit_target returns 'error', which is not among its stat_names: it is not logged"
    assert set(told) == {words}


def test_equals_a_plain_torch_loop() -> None:
    ours = Regression()
    plain = {k: copy.deepcopy(net) for k, net in ours.nets.items()}
    optims = {k: torch.optim.Adam(plain[k].parameters(), lr=0.01) for k in ("first", "second")}
    data, scale = torch.randn(32, 4), torch.tensor(2.0)
    for i in range(5):
        index = torch.randperm(32, generator=torch.Generator().manual_seed(i))[:8]
        (each,) = ours.learner.step((data,), index, (scale,))
        x = data[index]
        wanted = 2.0 * plain["target"](x).detach()
        torch.testing.assert_close(each, (plain["first"](x) - wanted).abs().squeeze(-1).detach())
        for name in ("first", "second"):
            goal = wanted if name == "first" else plain["first"](x).detach()
            loss = mse_loss(plain[name](x), goal)
            optims[name].zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(plain[name].parameters(), 0.1)
            optims[name].step()
    for name, net in plain.items():
        for ours_p, theirs in zip(ours.nets[name].parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(ours_p, theirs, rtol=1e-5, atol=1e-6)
    stats = ours.learner.take_stats()
    assert list(stats) == ["first_loss", "error", "second_loss", "grad_norm"]
    assert all(v.dim() == 0 for v in stats.values())


def test_a_stage_leaves_the_gradients_of_others_alone() -> None:
    ours = Regression()
    ours.optims["first"].params.grad.fill_(7.0)
    Learner(ours.nets, ours.optims, ours.learner.stages[1:], frozen={"target": ours.frozen}).step(
        (torch.randn(4, 4),), None, (torch.tensor(1.0),)
    )
    assert ours.optims["first"].params.grad.eq(7.0).all()
    assert all(p.requires_grad for p in ours.nets["first"].parameters())


@needs_compiler
def test_compiled_equals_eager() -> None:
    eager, compiled = Regression(), Regression(compile=True)
    data = torch.randn(16, 4)
    for i in range(4):
        index = torch.randperm(16, generator=torch.Generator().manual_seed(i))[:8]
        outs = [r.learner.step((data,), index, (torch.tensor(float(i)),)) for r in (eager, compiled)]
        torch.testing.assert_close(outs[0], outs[1], rtol=1e-5, atol=1e-6)
        eager.frozen.flat.mul_(0.9)
        compiled.frozen.flat.mul_(0.9)  # the graph must see it: a target net moves between steps
    assert compiled.learner.compile, "it fell back to eager mode"
    for name in ("first", "second"):
        torch.testing.assert_close(
            eager.optims[name].params.flat, compiled.optims[name].params.flat, rtol=1e-5, atol=1e-6
        )
    for a, b in zip(eager.learner.take_stats().values(), compiled.learner.take_stats().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_compiled_ppo_equals_eager() -> None:
    agents = [Agent(make_spec("ppo"), make_info(), seed=0, compile=on) for on in (False, True)]
    for agent in agents:
        world = Chance(make_info())
        for t in range(24):
            obs = world.obs
            agent.observe(obs, agent.act(obs, explore=False), world.step())
            agent.maybe_update(3 * (t + 1))
    eager, compiled = agents
    assert compiled.algorithm.learner.compile  # type: ignore[attr-defined]
    assert compiled.opt_step == eager.opt_step > 0
    for name, weight in eager.weights().items():
        torch.testing.assert_close(weight, compiled.weights()[name], rtol=1e-4, atol=1e-5)


def test_without_a_compiler_it_goes_on_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    ours, plain = Regression(compile=True), Regression()
    for r in (ours, plain):
        r.learner.step((torch.ones(4, 4),), None, (torch.tensor(1.0),))
    assert not ours.learner.compile
    assert torch.equal(ours.optims["first"].params.flat, plain.optims["first"].params.flat)


@needs_compiler
def test_a_captured_tensor_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLM_LAB_CACHE", str(tmp_path))
    hidden = torch.randn(5)
    with pytest.raises(CompileError, match="not an argument"):
        compile_function(lambda x: (x + hidden,), [torch.zeros(5)])


@needs_compiler
def test_a_broken_compiler_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLM_LAB_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "/bin/false")
    with pytest.raises(CompileError) as e:
        compile_function(lambda x: (x * 2.5 + 1,), [torch.zeros(5)])
    assert "\n" not in str(e.value)
    assert not list(tmp_path.glob("compiled/*.pt2"))
    assert not list(tmp_path.glob("compiled/*.so"))


def test_flat_parameters_are_the_modules_own() -> None:
    net = mlp(0, 2)
    before = net(torch.ones(1, 4))
    flat = FlatParams(net)
    assert torch.equal(net(torch.ones(1, 4)), before)
    net(torch.ones(1, 4)).sum().backward()
    assert flat.grad.abs().sum() > 0
    flat.flat.zero_()
    assert net(torch.ones(1, 4)).abs().sum() == 0
    net.load_state_dict(mlp(5, 2).state_dict())
    assert flat.flat.abs().sum() > 0


@needs_compiler
def test_a_captured_number_is_refused_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would be a constant of the graph, and live in eager mode."""
    monkeypatch.setenv("SLM_LAB_CACHE", str(tmp_path))
    coef = torch.tensor(2.0)
    with pytest.raises(CompileError, match="not an argument"):
        compile_function(lambda x: (x * coef,), [torch.zeros(5)])


def refused(recording: object) -> None:
    raise Unsupported("anything")


@needs_compiler
def test_a_damaged_graph_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLM_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "graph_key", lambda graph, example: "graph")
    monkeypatch.setattr(compiler, "_native", refused)
    made: list[Path] = []

    def fake_compile(graph: Any, example: Any, package: Path) -> None:
        made.append(package)

    def fake_load(package: Path) -> Any:
        if not made:
            raise RuntimeError("truncated")
        return lambda x: (x,)

    monkeypatch.setattr(compiler, "_compile_once", fake_compile)
    monkeypatch.setattr(compiler, "_load", fake_load)
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "graph.pt2").write_bytes(b"half")
    assert compile_function(lambda x: (x + 1,), [torch.zeros(2)])(torch.ones(2)) is not None
    assert [p.name for p in made] == ["graph.pt2"]


def test_a_loss_that_explodes_in_its_last_step_is_noticed() -> None:
    """The parameters are already infinite, the loss that will tell is yet to come."""
    ours = Regression()
    ours.optims["first"].lr.fill_(3e38)
    ours.learner.step((torch.randn(4, 4),), None, (torch.tensor(1.0),))
    with pytest.raises(NonFiniteLoss, match="a parameter is not finite"):
        ours.learner.take_stats()


@needs_compiler
def test_large_products_compiled_equal_eager() -> None:
    """From some size on a compiled product may be taken by another library; forward, and with either factor flipped."""

    def products(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        y = torch.relu(torch.addmm(b, x, w.t()))
        return y, torch.mm(y, w), torch.mm(y.t(), x), torch.addmm(b[:, None], w, x.t()), torch.mm(x[:2], w.t())

    args = [torch.randn(128, 96), torch.randn(112, 96), torch.randn(112)]
    torch.testing.assert_close(compile_function(products, args)(*args), products(*args), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("effort", "quick"), [(Effort.QUICK, True), (Effort.FULL, False), (True, False)])
def test_a_short_session_compiles_what_is_quick(
    monkeypatch: pytest.MonkeyPatch, effort: Effort | bool, quick: bool
) -> None:
    asked = []

    def refuse(fn: object, example: object, *, quick: bool) -> None:
        asked.append(quick)
        raise CompileError("the quick compiler does not know convolution")

    monkeypatch.setattr(module, "compile_function", refuse)
    ours, plain = Regression(compile=effort), Regression()
    data, index, scale = torch.randn(32, 4), torch.arange(8), torch.tensor(2.0)
    for each in (ours, plain):
        each.learner.step((data,), index, (scale,))
    assert (asked, ours.learner.compile) == ([quick], False)
    assert torch.equal(ours.optims["first"].params.flat, plain.optims["first"].params.flat)
