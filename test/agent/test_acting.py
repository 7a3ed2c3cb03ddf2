"""The Actor: compiled where it can be, for the batch it was made for, and always with the parameters of the moment."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from slm_lab.agent.algorithm import acting
from slm_lab.agent.algorithm.acting import Actor
from slm_lab.agent.algorithm.bound import Bound
from slm_lab.agent.net.optim import FlatParams
from slm_lab.lib.compile import CompileError
from slm_lab.lib.compiler import Effort
from slm_lab.types import Act


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def make(net: nn.Module, *, compile: Effort | bool) -> Actor:
    def choose(obs: Tensor, noise: Tensor, scale: Tensor) -> Act:
        return Act(net(obs) + scale * noise)

    return Actor({"net": net}, {"net": FlatParams(net)}, choose, compile=compile)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Size]]:
    """Shapes of what went through "compiled" functions, which are the functions themselves."""
    found: list[list[torch.Size]] = []

    def fake(
        fn: Callable[..., tuple[Tensor, ...]], example: Sequence[Tensor], *, quick: bool
    ) -> Callable[..., tuple[Tensor, ...]]:
        def run(*args: Tensor) -> tuple[Tensor, ...]:
            found.append([t.shape for t in args])
            return fn(*args)

        return run

    monkeypatch.setattr(acting, "compile_function", fake)
    return found


def test_the_compiled_function_sees_parameters_as_they_are(net: nn.Module, calls: list[list[torch.Size]]) -> None:
    plain, compiled = make(net, compile=False), make(net, compile=True)
    obs, noise, scale = torch.randn(4, 3), torch.randn(4, 2), torch.tensor(0.5)
    for _ in range(3):
        with torch.inference_mode():
            torch.testing.assert_close(compiled(obs, noise, scale).action, plain(obs, noise, scale).action)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(1.0)
        scale += 1
    assert calls == [[(8,), (4, 3), (4, 2), ()]] * 3


def test_other_batches_are_not_given_to_it(net: nn.Module, calls: list[list[torch.Size]]) -> None:
    actor, zero = make(net, compile=True), torch.zeros(())
    actor(torch.randn(4, 3), torch.zeros(4, 2), zero)
    for other in (torch.randn(2, 3), torch.randn(3, 4).t()):
        torch.testing.assert_close(actor(other, torch.zeros(len(other), 2), zero).action, net(other))
    assert len(calls) == 1


def test_what_can_not_be_compiled_acts_all_the_same(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(fn: object, example: object, *, quick: bool) -> None:
        tried.append(fn)
        raise CompileError("no C++ compiler found")

    monkeypatch.setattr(acting, "compile_function", refuse)
    actor, obs = make(net, compile=True), torch.randn(4, 3)
    for _ in range(2):
        torch.testing.assert_close(actor(obs, torch.zeros(4, 2), torch.zeros(())).action, net(obs))
    assert (len(tried), actor.compile) == (1, False)


def test_a_bound_function_reads_what_it_is_given(net: nn.Module) -> None:
    params = FlatParams(net)
    bound = Bound({"net": net}, {"net": params}, lambda x: net(x) + 0)
    assert bound.under({"net": torch.zeros_like(params.flat)}, (), (torch.ones(1, 3),)).abs().sum() == 0
    assert torch.equal(bound(torch.ones(1, 3)), net(torch.ones(1, 3)))
    with pytest.raises(ValueError, match=r"nets without parameters: \['other'\]"):
        Bound({"net": net, "other": net}, {"net": params}, lambda x: x)


@pytest.mark.parametrize(("effort", "quick"), [(Effort.QUICK, True), (Effort.FULL, False), (True, False)])
def test_a_short_session_compiles_what_is_quick(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch, effort: Effort | bool, quick: bool
) -> None:
    asked = []

    def refuse(fn: object, example: object, *, quick: bool) -> None:
        asked.append(quick)
        raise CompileError("the quick compiler does not know convolution")

    monkeypatch.setattr(acting, "compile_function", refuse)
    make(net, compile=effort)(torch.randn(4, 3), torch.zeros(4, 2), torch.zeros(()))
    assert asked == [quick]
