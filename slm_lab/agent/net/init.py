"""Activations and losses by name, and the initialization of weights."""

import inspect
from typing import Any, cast

import torch
from torch import nn

from slm_lab.lib.errors import SpecError
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.model import LossSpec

_ACTIVATIONS = {
    name.lower(): getattr(nn, name)
    for name in nn.modules.activation.__all__
    if name not in ("MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin", "RReLU", "Threshold")
}


def activation(name: str) -> nn.Module:
    """A torch.nn activation by name; case and underscores ignored.

    Raises:
        SpecError: no such activation

    >>> activation("leaky_relu")
    LeakyReLU(negative_slope=0.01)
    """
    known = name.lower().replace("_", "")
    if known not in _ACTIVATIONS:
        raise SpecError(
            [f"agent.net.hid_layers_activation: unknown activation '{name}'{did_you_mean(known, _ACTIVATIONS)}"]
        )
    module: nn.Module = _ACTIVATIONS[known]()
    return module


def loss_function(spec: LossSpec, *, each: bool = False) -> nn.Module:
    """A loss of torch.nn by name, with its arguments.

    Args:
        spec: name and arguments
        each: the loss of each sample by itself, [B], so that samples can be weighted; else one number

    Raises:
        SpecError: torch.nn has no such loss, or refuses its arguments

    >>> loss_function(LossSpec(name="SmoothL1Loss", beta=0.5))
    SmoothL1Loss()
    """
    known = [n for n in nn.modules.loss.__all__ if n.endswith("Loss")]
    if spec.name not in known:
        raise SpecError(
            [f"agent.net.loss_spec.name: torch.nn has no loss '{spec.name}'{did_you_mean(spec.name, known)}"]
        )
    try:
        loss: nn.Module = getattr(nn, spec.name)(**spec.kwargs | ({"reduction": "none"} if each else {}))
        value = loss(torch.zeros(2), torch.zeros(2))
    except (TypeError, ValueError, RuntimeError) as e:
        reason = str(e).splitlines()[0]
        raise SpecError([f"agent.net.loss_spec: {spec.name} does not compare values with targets: {reason}"]) from e
    if value.dim() != int(each):
        raise SpecError([f"agent.net.loss_spec: {spec.name} must give one number (reduction mean or sum)"])
    return loss


def gain(activation_name: str) -> float:
    """The gain torch recommends for weights before this activation; 1 where it recommends none."""
    name = {"leakyrelu": "leaky_relu"}.get(activation_name.lower().replace("_", ""), activation_name.lower())
    try:
        return float(nn.init.calculate_gain(cast(Any, name)))
    except ValueError:
        return 1.0


def init_weights(module: nn.Module, init_fn: str, activation_name: str) -> None:
    """Apply a function of torch.nn.init to every linear, convolution and recurrent weight; biases become 0.

    Args:
        module: changed in place
        init_fn: `orthogonal_`, `xavier_uniform_`, `kaiming_normal_` ...
        activation_name: decides the gain

    Raises:
        SpecError: torch.nn.init has no such function
    """
    fn = getattr(nn.init, init_fn, None)
    if fn is None or not init_fn.endswith("_") or init_fn.startswith("_"):
        known = [n for n in dir(nn.init) if n.endswith("_") and not n.startswith("_")]
        raise SpecError([f"agent.net.init_fn: torch.nn.init has no '{init_fn}'{did_you_mean(init_fn, known)}"])
    takes = inspect.signature(fn).parameters
    kwargs: dict[str, object] = {}
    if "gain" in takes:
        kwargs["gain"] = gain(activation_name)
    elif "nonlinearity" in takes and activation_name.lower() in ("relu", "leaky_relu", "leakyrelu"):
        kwargs["nonlinearity"] = "relu" if activation_name.lower() == "relu" else "leaky_relu"
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.RNNBase):
            for name, p in m.named_parameters(recurse=False):
                if "bias" in name:
                    nn.init.zeros_(p)
                elif p.dim() > 1:
                    fn(p, **kwargs)
