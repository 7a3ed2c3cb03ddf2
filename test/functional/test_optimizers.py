"""Functional optimizers equal the classes of torch.optim."""

from typing import Any

import pytest
import torch
from torch import nn

from slm_lab.functional.optimizers import FUSED, OPTIMIZERS, clip_grad_norm_

CASES: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"weight_decay": 0.3, "betas": (0.8, 0.99)}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "eps": 1e-5, "momentum": 0.7, "weight_decay": 0.05}),
    ("RMSprop", {"centered": True, "momentum": 0.2}),
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_equals_torch_optim(name: str, kwargs: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(1)
    start = torch.randn(20, generator=g, dtype=torch.float64)
    theirs = nn.Parameter(start.clone())
    optimizer = getattr(torch.optim, name)([theirs], lr=0.05, **kwargs)
    ours = start.clone()
    init, step = OPTIMIZERS[name]
    state, lr = init(ours), torch.tensor(0.05, dtype=torch.float64)
    for _ in range(12):
        grad = torch.randn(20, generator=g, dtype=torch.float64)
        theirs.grad = grad.clone()
        optimizer.step()
        step(ours, grad, state, lr, **kwargs)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "kwargs"), [case for case in CASES if case[0] in FUSED])
def test_fused_equals_the_equations(name: str, kwargs: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(1)
    ours = torch.randn(20, generator=g)
    fused = ours.clone()
    init, step = OPTIMIZERS[name]
    states, lr = (init(ours), init(fused)), torch.tensor(0.05)
    for _ in range(12):
        grad = torch.randn(20, generator=g)
        step(ours, grad.clone(), states[0], lr, **kwargs)
        FUSED[name](fused, grad.clone(), states[1], lr, **kwargs)
        torch.testing.assert_close(fused, ours, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(states[1], states[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("max_norm", [0.5, 100.0, None])
def test_clip_equals_torch(max_norm: float | None) -> None:
    grad = torch.randn(50)
    p = nn.Parameter(torch.zeros(50))
    p.grad = grad.clone()
    expected_norm = nn.utils.clip_grad_norm_([p], max_norm if max_norm is not None else float("inf"))
    norm = clip_grad_norm_(grad, max_norm)
    torch.testing.assert_close(norm, expected_norm)
    torch.testing.assert_close(grad, p.grad)
