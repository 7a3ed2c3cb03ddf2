"""In which ways the envs of a spec can be stepped."""

import inspect
from typing import Any

from slm_lab.env.mujoco_tasks import TASKS
from slm_lab.env.names import Found
from slm_lab.spec.model import EnvSpec

CARTPOLE = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
LIMIT = "max_episode_steps"
"""gym.make's own argument: sets the limit of an episode in place of the registered one, also a higher one."""


def has_native(found: Found) -> bool:
    """Whether there is a vector env for it."""
    registration = found.registration
    if registration.additional_wrappers:
        return False
    limited = registration.max_episode_steps is not None
    return registration.entry_point in TASKS or (registration.entry_point == CARTPOLE and limited) or is_atari(found)


def beyond_native(spec: EnvSpec) -> list[str]:
    """Keys that a vector env of its own can't follow."""
    return [
        key for key in ("wrappers", "reward_weights", "obs_keys", "image_axes", "action_mask") if getattr(spec, key)
    ]


def prefers_tensor(found: Found, spec: EnvSpec, *, whole: bool) -> bool:
    """Whether a tensor env is asked for, or pays."""
    if spec.vectorization != "auto" or is_playground(found.id):
        return spec.vectorization == "tensor"
    return whole and is_plain(spec) and not why_no_tensor(found, spec)


def choose_mode(found: Found, spec: EnvSpec, *, tensor: bool) -> str:
    """How the envs are stepped, as far as it can be said without trying."""
    if tensor:
        return "tensor"
    # tensors have no pictures
    mode = "sync" if spec.vectorization == "tensor" else spec.vectorization
    return "native" if mode == "auto" and has_native(found) and not beyond_native(spec) else mode


def tensor_class(found: Found) -> Any:
    """The tensor env of that id, or None."""
    import slm_lab.env.classic  # noqa: F401  registers the lab's own; imports torch
    from slm_lab.env.tensor import TENSOR_ENVS

    return TENSOR_ENVS.get(found.id)


def why_no_tensor(found: Found, spec: EnvSpec) -> str | None:
    """What keeps an env from being stepped as tensors."""
    cls = tensor_class(found)
    if cls is None:
        return f"env.vectorization: there is no tensor env for {found.id}: use auto"
    takes = inspect.signature(cls).parameters
    given = [key for key in {**found.kwargs, **spec.kwargs} if key not in takes and key != LIMIT]
    given += beyond_native(spec)
    return f"env.{given[0]}: the tensor env of {found.id} does not support it" if given else None


def is_plain(spec: EnvSpec) -> bool:
    """Whether nothing is between env and agent."""
    keys = ("frame_op", "normalize_obs", "clip_obs", "normalize_reward", "clip_reward")
    # a factor of 0 is one too
    return spec.reward_scale in (None, 1) and not any(getattr(spec, key) for key in keys)


def is_atari(found: Found) -> bool:
    """Whether it is a game of ALE, which has a vector env of its own."""
    return str(found.registration.entry_point) == "ale_py.env:AtariEnv"


def is_playground(name: str) -> bool:
    """Whether it is a task of MuJoCo Playground, which lives on a device."""
    return name.startswith("playground/")
