"""Activations and losses by name, and the initialization of weights."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from slm_lab.lib.errors import SpecError
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.model import LossSpec

ACTIVATIONS = {
    name.lower(): getattr(nn, name)
    for name in nn.modules.activation.__all__
    if name not in ("MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin", "RReLU", "Threshold", "GLU")
}

_UNFIT_INIT = {"dirac_": "fills convolutions alone, and every net has linear layers"}


def activation(name: str, key: str = "agent.net.hid_layers_activation") -> nn.Module:
    """A torch.nn activation by name; case and underscores ignored.

    Raises:
        SpecError: no such activation

    >>> activation("leaky_relu")
    LeakyReLU(negative_slope=0.01)
    """
    known = name.lower().replace("_", "")
    if known not in ACTIVATIONS:
        listed = ", ".join(sorted(ACTIVATIONS))
        raise SpecError([f"{key}: unknown activation '{name}'{did_you_mean(known, ACTIVATIONS)} (known: {listed})"])
    return ACTIVATIONS[known]()


def loss_function(spec: LossSpec, *, each: bool = False, key: str = "agent.net.loss_spec") -> nn.Module:
    """A loss of torch.nn by name, with its arguments.

    Args:
        spec: name and arguments
        each: the loss of each sample by itself, [B], so that samples can be weighted; else one number
        key: path of the spec key, for messages

    Raises:
        SpecError: torch.nn has no such loss, or refuses its arguments

    >>> loss_function(LossSpec(name="SmoothL1Loss", beta=0.5))
    SmoothL1Loss()
    """
    known = [n for n in nn.modules.loss.__all__ if n.endswith("Loss")]
    if spec.name not in known:
        raise SpecError([f"{key}.name: torch.nn has no loss '{spec.name}'{did_you_mean(spec.name, known)}"])
    reduction = spec.kwargs.get("reduction", "mean")
    if each and reduction != "mean":
        why = f"must be mean here, as samples are weighted first (got {reduction!r})"
        raise SpecError([f"{key}.reduction: {why}"])
    try:
        loss: nn.Module = getattr(nn, spec.name)(**spec.kwargs | ({"reduction": "none"} if each else {}))
        value = loss(torch.zeros(2), torch.zeros(2))
    except (TypeError, ValueError, RuntimeError) as e:
        reason = str(e).splitlines()[0]
        raise SpecError([f"{key}: {spec.name} does not compare values with targets: {reason}"]) from e
    if value.dim() != int(each):
        raise SpecError([f"{key}: {spec.name} must give one number (reduction mean or sum)"])
    return loss


_WITH_GAIN = ("relu", "leaky_relu", "tanh", "sigmoid", "selu")


def gain(activation_name: str) -> float:
    """The gain torch recommends for weights before this activation; 1 where it recommends none."""
    try:
        return float(nn.init.calculate_gain(cast(Any, _nonlinearity(activation_name))))
    except ValueError:
        return 1.0


def _nonlinearity(activation_name: str) -> str:
    """What `torch.nn.init` calls it."""
    name = activation_name.lower()
    return "leaky_relu" if name == "leakyrelu" else name


def init_function(name: str, key: str = "agent.net.init_fn") -> Callable[..., Tensor]:
    """A function of torch.nn.init that fills weights and needs no more than their gain.

    Raises:
        SpecError: torch.nn.init has no such function, or it wants more
    """
    known = {n: getattr(nn.init, n) for n in dir(nn.init) if n.endswith("_") and not n.startswith("_")}
    fit = [n for n, fn in known.items() if n not in _UNFIT_INIT and not _missing_arguments(fn)]
    if name in fit:
        return known[name]
    if name not in known:
        why = f"torch.nn.init has no '{name}'{did_you_mean(name, fit)}"
    elif name in _UNFIT_INIT:
        why = f"{name} can't be used here: it {_UNFIT_INIT[name]}"
    else:
        why = f"{name} can't be used here: it needs {' and '.join(_missing_arguments(known[name]))}"
    raise SpecError([f"{key}: {why} (known: {', '.join(fit)})"])


def _missing_arguments(fn: Callable[..., Tensor]) -> list[str]:
    """Arguments beside the tensor that have no default."""
    return [p.name for p in list(inspect.signature(fn).parameters.values())[1:] if p.default is p.empty]


def init_weights(module: nn.Module, init_fn: str, activation_name: str) -> None:
    """Apply a function of torch.nn.init to every linear, convolution and recurrent weight; biases become 0.

    The gain is that of the activation; 1 in recurrent cells, which have their own. Where torch recommends none for the
    activation, functions with a gain take 1 and `kaiming_*` that of a ReLU.

    Args:
        module: changed in place
        init_fn: `orthogonal_`, `xavier_uniform_`, `kaiming_normal_` ...
        activation_name: decides the gain

    Raises:
        SpecError: torch.nn.init has no such function, or it does not fit
    """
    fn = init_function(init_fn)
    takes = inspect.signature(fn).parameters
    kwargs: dict[str, object] = {}
    if "gain" in takes:
        kwargs["gain"] = gain(activation_name)
    elif "nonlinearity" in takes and _nonlinearity(activation_name) in _WITH_GAIN:
        kwargs["nonlinearity"] = _nonlinearity(activation_name)
    for m in module.modules():
        own = isinstance(m, nn.RNNCellBase)
        if own or isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d):
            for name, p in m.named_parameters(recurse=False):
                if name.endswith("_std"):
                    continue  # of noise
                if "bias" in name:
                    nn.init.zeros_(p)
                elif p.dim() > 1:
                    try:
                        # the gates of a cell are matrices of their own, one below the other
                        for part in p.detach().split(m.hidden_size) if own else (p,):
                            fn(part, **({"gain": 1.0} if own and "gain" in kwargs else kwargs))
                    except ValueError as e:
                        what = f"{type(m).__name__} of shape {list(p.shape)}"
                        raise SpecError([f"agent.net.init_fn: {init_fn} does not fit a {what}: {e}"]) from e


def init_output(module: nn.Module, init_std: float | None) -> None:
    """Initialize output layers: orthogonal weights of this gain, biases 0; None leaves them as they are."""
    if init_std is None:
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain=init_std)
            nn.init.zeros_(layer.bias)
