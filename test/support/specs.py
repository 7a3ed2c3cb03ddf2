"""A spec whose run takes a fraction of a second, and a way to change one."""

from typing import Any

import pydash

from slm_lab.spec.model import Spec

TINY: dict[str, Any] = {
    "name": "tiny",
    "agent": {
        "name": "A2C",
        "algorithm": {
            "name": "ActorCritic",
            "gamma": 0.99,
            "lam": 0.95,
            "training_frequency": 16,
            "entropy_coef_spec": {"name": "linear_decay", "start_val": 0.02, "end_val": 0.0, "end_step": 1000},
        },
        "memory": {"name": "OnPolicyBatchReplay"},
        "net": {"type": "MLPNet", "hid_layers": [16], "optim_spec": {"name": "Adam", "lr": 0.002}},
    },
    "env": {"name": "CartPole-v1", "num_envs": 4, "max_frame": 1000},
    "meta": {"max_session": 1, "log_frequency": 200, "checkpoint_interval": 0, "compile": "off"},
}


def replace(spec: Spec, path: str, value: Any) -> Spec:
    """A copy of the spec with the value at a dotted key path changed, checked again."""
    return Spec.model_validate(pydash.set_(spec.to_dict(), path, value))
