"""Optimizers as functions: parameters, gradient and state are tensors, changed in place (hence the `_`).

All parameters of a net are one flat vector, so a step is a handful of operations, eager or compiled. They equal the
classes of torch.optim of the same name (tested), whose arguments and defaults they take.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


def clip_grad_norm_(grad: Tensor, max_norm: float | None) -> Tensor:
    """Scale `grad` so that its Euclidean norm is at most max_norm; None leaves it.

    Args:
        grad: [P], changed in place
        max_norm: threshold

    Returns:
        0-d norm before clipping

    >>> g = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm_(g, 1.0), g
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    norm: Tensor = torch.linalg.vector_norm(grad)
    if max_norm is not None:
        grad.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def adam_state(param: Tensor) -> State:
    """Moments at zero; `step` counts updates.

    >>> sorted(adam_state(torch.ones(2)))
    ['exp_avg', 'exp_avg_sq', 'step']
    """
    return {"step": param.new_zeros(()), "exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}


def _decayed(grad: Tensor, param: Tensor, weight_decay: float) -> Tensor:
    """The gradient with that of the L2 penalty."""
    return grad + weight_decay * param if weight_decay else grad


def adam_(
    param: Tensor,
    grad: Tensor,
    state: State,
    lr: Tensor,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """`m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p -= lr * m^ / (sqrt(v^) + eps)`. Kingma and Ba 2015, Algorithm 1.

    weight_decay adds `weight_decay * p` to the gradient.

    Args:
        param: [P]
        grad: [P]
        state: of `adam_state`
        lr: 0-d
        betas: decay of the moments
        eps: added to the root
        weight_decay: L2 penalty

    >>> p = torch.tensor([1.0])
    >>> adam_(p, torch.tensor([2.0]), adam_state(p), torch.tensor(0.1))
    >>> p
    tensor([0.9000])
    """
    grad = _decayed(grad, param, weight_decay)
    b1, b2 = betas
    step, m, v = state["step"], state["exp_avg"], state["exp_avg_sq"]
    step.add_(1)
    m.lerp_(grad, 1 - b1)
    v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
    root = (v / (1 - b2**step)).sqrt_().add_(eps)
    param.sub_(m * (lr / (1 - b1**step)) / root)


def adamw_(
    param: Tensor,
    grad: Tensor,
    state: State,
    lr: Tensor,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> None:
    """Adam with decoupled decay: `p *= 1 - lr * weight_decay` first. Loshchilov and Hutter 2019, Algorithm 2.

    The arguments are those of `adam_`; weight_decay is the share of a parameter that is taken off per unit of lr.

    >>> p = torch.tensor([1.0])
    >>> adamw_(p, torch.tensor([2.0]), adam_state(p), torch.tensor(0.1), weight_decay=0.5)
    >>> p
    tensor([0.8500])
    """
    param.mul_(1 - lr * weight_decay)
    adam_(param, grad, state, lr, betas=betas, eps=eps)


def fused(kernel: Callable[..., None], default_decay: float) -> Callable[..., None]:
    """`adam_` or `adamw_` in one kernel instead of fifteen, for eager steps. Equal up to rounding; float32 only.

    Args:
        kernel: of torch
        default_decay: its usual weight_decay

    Returns:
        A function with the arguments of `adam_`

    >>> p = torch.tensor([1.0])
    >>> FUSED["AdamW"](p, torch.tensor([2.0]), adam_state(p), torch.tensor(0.1), weight_decay=0.5)
    >>> p
    tensor([0.8500])
    """

    def step_(
        param: Tensor,
        grad: Tensor,
        state: State,
        lr: Tensor,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = default_decay,
    ) -> None:
        step, moments = state["step"].add_(1), ([state["exp_avg"]], [state["exp_avg_sq"]])
        # on a CPU the kernel takes a number sooner; on a device that would be to wait for it
        rate: Any = float(lr) if lr.device.type == "cpu" else lr
        rates = {"lr": rate, "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay}
        kernel([param], [grad], *moments, [], [step], **rates, amsgrad=False, maximize=False)

    return step_


def rmsprop_state(param: Tensor) -> State:
    """Mean square at zero; the buffers of momentum and centering too.

    >>> sorted(rmsprop_state(torch.ones(2)))
    ['grad_avg', 'momentum', 'square_avg']
    """
    return {k: torch.zeros_like(param) for k in ("square_avg", "momentum", "grad_avg")}


def rmsprop_(
    param: Tensor,
    grad: Tensor,
    state: State,
    lr: Tensor,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
) -> None:
    """`v = alpha v + (1-alpha) g^2; p -= lr * g / (sqrt(v) + eps)`. Tieleman and Hinton 2012, lecture 6.5.

    Args:
        param: [P]
        grad: [P]
        state: of `rmsprop_state`
        lr: 0-d
        alpha: decay of the mean square
        eps: added to the root
        weight_decay: L2 penalty
        momentum: of the scaled gradient
        centered: divide by the standard deviation in place of the root mean square

    >>> p = torch.tensor([1.0])
    >>> rmsprop_(p, torch.tensor([2.0]), rmsprop_state(p), torch.tensor(0.01))
    >>> p
    tensor([0.9000])
    """
    grad = _decayed(grad, param, weight_decay)
    v = state["square_avg"]
    v.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
    if centered:
        mean = state["grad_avg"]
        mean.lerp_(grad, 1 - alpha)
        root = (v - mean * mean).sqrt_().add_(eps)
    else:
        root = v.sqrt().add_(eps)
    move = grad / root
    if momentum:
        move = state["momentum"].mul_(momentum).add_(move)
    param.sub_(lr * move)


def sgd_state(param: Tensor) -> State:
    """The momentum buffer, and whether it has been filled.

    >>> sorted(sgd_state(torch.ones(2)))
    ['momentum', 'started']
    """
    return {"momentum": torch.zeros_like(param), "started": param.new_zeros(())}


def sgd_(
    param: Tensor,
    grad: Tensor,
    state: State,
    lr: Tensor,
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> None:
    """`b = momentum b + (1 - dampening) g; p -= lr b`; the first b is g.

    Args:
        param: [P]
        grad: [P]
        state: of `sgd_state`
        lr: 0-d
        momentum: share of the old direction kept
        dampening: share of the gradient left out
        weight_decay: L2 penalty
        nesterov: look ahead: step along `g + momentum b`

    >>> p = torch.tensor([1.0])
    >>> sgd_(p, torch.tensor([2.0]), sgd_state(p), torch.tensor(0.1))
    >>> p
    tensor([0.8000])
    """
    grad = _decayed(grad, param, weight_decay)
    if momentum:
        buf, started = state["momentum"], state["started"]
        buf.mul_(momentum).add_(grad * (1 - dampening * started))
        started.fill_(1)
        grad = grad + momentum * buf if nesterov else buf
    param.sub_(lr * grad)


OPTIMIZERS: dict[str, tuple[Callable[[Tensor], State], Callable[..., None]]] = {
    "Adam": (adam_state, adam_),
    "AdamW": (adam_state, adamw_),
    "RMSprop": (rmsprop_state, rmsprop_),
    "SGD": (sgd_state, sgd_),
}
"""By their names in torch.optim."""
FUSED: dict[str, Callable[..., None]] = {
    "Adam": fused(torch._fused_adam_, 0.0),
    "AdamW": fused(torch._fused_adamw_, 1e-2),
}
"""Eager forms of those that torch has a kernel for; a compiler makes better code of the others."""


def hyper_parameter_faults(given: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with arguments of the optimizers above, by name; names are not checked.

    >>> hyper_parameter_faults({"eps": -1.0, "weight_decay": 0})
    {'eps': 'must be at least 0 (got -1.0)'}
    >>> hyper_parameter_faults({"nesterov": True})
    {'nesterov': 'needs a momentum, and dampening 0'}
    """
    faults = {}
    for name, value in given.items():
        if name == "betas":
            pair = value if isinstance(value, list | tuple) else ()
            if len(pair) != 2 or not all(_is_number(b) and 0 <= b < 1 for b in pair):
                faults[name] = f"must be two numbers from 0 up to, not including, 1 (got {value!r})"
        elif name in ("centered", "nesterov"):
            if not isinstance(value, bool):
                faults[name] = f"must be true or false (got {value!r})"
        elif not _is_number(value):
            faults[name] = f"must be a number (got {value!r})"
        elif value < 0:
            faults[name] = f"must be at least 0 (got {value!r})"
    if given.get("nesterov") is True and (not given.get("momentum") or given.get("dampening")):
        faults["nesterov"] = "needs a momentum, and dampening 0"
    return faults


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
