"""Check the names in a net's spec: every fault at once, under the key that holds it."""

from collections.abc import Callable
from typing import Any

from slm_lab.agent.net.init import activation, init_function, loss_function
from slm_lab.agent.net.optim import optim_faults, schedule_faults
from slm_lab.lib.errors import SpecError
from slm_lab.spec.effect import unwatched
from slm_lab.spec.model import NetSpec


def net_faults(spec: NetSpec) -> list[str]:
    """Unknown names and unfit arguments, as lines `agent.net.<key>: ...`.

    Every key is checked, also one that both roles override: its fault is reported at once.
    """
    faults = []
    with unwatched():
        for prefix in ("", *(f"{role}_" for role in NetSpec.roles)):
            for key, check in _CHECKS.items():
                value = getattr(spec, prefix + key, None)
                if value is not None and prefix + key in spec.model_fields_set:
                    faults += check(value, f"agent.net.{prefix}{key}")
    return faults


def _raised(look_up: Callable[..., Any], **keywords: Any) -> Callable[[Any, str], list[str]]:
    def check(value: Any, key: str) -> list[str]:
        try:
            look_up(value, key=key, **keywords)
        except SpecError as e:
            return e.faults
        return []

    return check


_CHECKS: dict[str, Callable[[Any, str], list[str]]] = {
    "hid_layers_activation": _raised(activation),
    "out_layer_activation": _raised(activation),
    "init_fn": _raised(init_function),
    "loss_spec": _raised(loss_function),
    "optim_spec": optim_faults,
    "lr_scheduler_spec": schedule_faults,
}
"""Key -> the check of its value."""
