"""What the spec of a net says by name, looked up: every fault at once, under the key that holds it; and idle keys."""

from collections.abc import Callable
from typing import Any

from slm_lab.agent.net.init import activation, init_function, loss_function
from slm_lab.agent.net.optim import optim_faults, schedule_faults
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import lookup
from slm_lab.spec.model import AgentSpec, NetSpec

_TARGET_KEYS = ("update_type", "update_frequency", "polyak_coef")


def net_faults(spec: NetSpec) -> list[str]:
    """Unknown names and unfit arguments, as lines `agent.net.<key>: ...`.

    Every key is looked at as it stands, also one that both roles override: who corrects a spec wants to know of it now.
    """
    faults = []
    for prefix in ("", *(f"{role}_" for role in NetSpec.roles)):
        for key, check in _CHECKS.items():
            value = getattr(spec, prefix + key, None)
            if value is not None and prefix + key in spec.model_fields_set:
                faults += check(value, f"agent.net.{prefix}{key}")
    return faults


def idle_keys(spec: AgentSpec) -> list[str]:
    """Keys of the net that were given and have no effect, as lines `agent.net.<key>: has no effect: ...`.

    Not faults: specs of SLM-Lab carry them along.
    """
    algorithm: Any = lookup("algorithm", spec.algorithm.name)
    name, found = spec.algorithm.name, []
    # the critic then reads the actor's keys
    joined = spec.net.shared or spec.net.use_same_optim
    for key in type(spec.net).model_fields:
        if key not in spec.net.model_fields_set:
            continue
        prefix, _, rest = key.partition("_")
        role = prefix if prefix in NetSpec.roles else None
        bare = rest if role else key
        if role is not None and bare == "gpu":
            why = "all nets of an agent are on one device, say gpu"
        elif bare in _TARGET_KEYS and not algorithm.has_target:
            why = f"{name} has no target net"
        elif role is not None and role not in algorithm.roles and not joined:
            why = f"{name} has no {role}"
        else:
            continue
        found.append(f"agent.net.{key}: has no effect, {why}")
    return found


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
"""Key -> what tells the faults of its value."""
