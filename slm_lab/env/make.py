"""From the spec's `env` to envs that run."""

import copy
import functools
import os
import re
import statistics
import sys
import time
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.envs.registration import load_env_creator

from slm_lab.env.actions import map_actions
from slm_lab.env.base import MAX_T, PLAY_MAX_T, VecEnv
from slm_lab.env.cartpole import CartPole
from slm_lab.env.check import check_env
from slm_lab.env.foreign import package_of
from slm_lab.env.gym import GymVecEnv
from slm_lab.env.masks import MaskedObs
from slm_lab.env.modes import CARTPOLE, LIMIT, choose_mode, is_atari, is_playground, prefers_tensor, tensor_class
from slm_lab.env.names import Found, find
from slm_lab.env.outfit import Outfit, make_with_tuples
from slm_lab.env.parts import Seen
from slm_lab.env.rows import LocalRows, Make, OldStep, display_hint, make_all, no_display
from slm_lab.env.snapshot import Seeded
from slm_lab.env.wrappers import wrap
from slm_lab.lib.cores import available_cores
from slm_lab.lib.errors import LabError, SpecError, one_line
from slm_lab.lib.log import note
from slm_lab.lib.seeding import own_streams
from slm_lab.spec.model import EnvSpec

if TYPE_CHECKING:
    from slm_lab.env.device import DeviceVec
    from slm_lab.env.tensor import TensorEnv
    from slm_lab.env.workers import SharedRows

ONE_A_PROCESS = ("bluesky_gym", "retro", "stable_retro")
"""Packages whose envs can't be several in one process: bluesky_gym's would share one simulation without a word."""
TALK = 60e-6
"""Seconds of a vector step that it takes to talk to other processes."""
START = 1.0
"""Seconds that they take to start, and that a session must win back."""
TRIALS = 30
"""Steps of an env from which its speed is known."""


def make_env(
    spec: EnvSpec,
    *,
    num_envs: int | None = None,
    render: str | None = None,
    gamma: float = 0.99,
    training: bool = True,
    threads: int | None = None,
    whole: bool = False,
    tensor: bool | None = None,
    device: str = "cpu",
) -> VecEnv:
    """Make the envs of a spec.

    Args:
        spec: keys that the lab does not know go to gym.make.
        num_envs: N; overrides the spec's.
        render: "human" (a window) or "rgb_array" (frames by `VecEnv.render`), of env 0.
        gamma: the algorithm's discount, for normalize_reward.
        training: if false, running statistics are frozen, and losing a life does not end an episode.
        threads: most threads or processes to step the envs with; None: one per core.
        whole: rollouts can be played in one call, so `auto` picks a tensor env where there is one.
        tensor: whether the state to be loaded was saved by a tensor env; None: no state is loaded.
        device: where tensor envs live.

    Raises:
        LabError: unknown env, refused arguments, unsupported spaces, a missing package.
    """
    if faults := check_env(spec):
        raise SpecError(faults)
    if render is not None and no_display():
        # SDL looks for a display otherwise, and prints an error of its own that means nothing
        os.environ["SDL_VIDEODRIVER"] = "dummy"
    found = find(spec.name)
    kwargs = {**found.kwargs, **spec.kwargs}
    own_limit = kwargs.pop(LIMIT, found.registration.max_episode_steps)
    max_t = _time_limit(found, spec, own_limit, training=training)
    n, cores = num_envs or spec.num_envs, threads or available_cores()
    if tensor is None:
        tensor = render is None and prefers_tensor(found, spec, whole=whole)
    mode = choose_mode(found, spec, tensor=tensor)
    # frames are stacked on the host
    if is_playground(found.id) or (mode == "tensor" and device != "cpu" and spec.frame_op is None):
        from slm_lab.env.device import wrap_device

        bare = _make_on_device(found, n, max_t, kwargs, render=render, device=device)
        return wrap_device(bare, spec, gamma=gamma, training=training)
    env: VecEnv
    if is_atari(found):
        from slm_lab.env.atari import Atari

        kwargs = {**found.registration.kwargs, **kwargs}
        env = Atari(found.id, n, max_t=max_t, render=render, training=training, threads=cores, **kwargs)
    elif mode == "tensor":
        from slm_lab.env.tensor import TensorVec

        env = TensorVec(found.id, _tensor_env(found, kwargs), n, max_t=max_t)
    elif mode == "native" and found.registration.entry_point == CARTPOLE:
        env = CartPole(n, max_t=max_t, render=render, **found.registration.kwargs, **kwargs)
    else:
        make = functools.partial(_make_one, _bare(found, spec, own_limit), kwargs, render, Outfit.of(spec))
        env = _make_gymnasium(found, spec, make, mode, n=n, max_t=max_t, cores=cores, training=training)
    return wrap(env, spec, gamma=gamma, training=training, clip_reward=1.0 if is_atari(found) else None)


def _time_limit(found: Found, spec: EnvSpec, own_limit: int | None, *, training: bool) -> int:
    """Steps after which an episode is truncated: the lab's limit, and a note, where neither env nor spec states one."""
    stated = [limit for limit in (own_limit, spec.max_t) if limit is not None]
    if own_limit is not None and spec.max_t is not None and spec.max_t > own_limit:
        note(f"env.max_t: {found.id} ends an episode after {own_limit:,} steps: env.{LIMIT} sets a longer limit")
    if stated:
        return min(stated)
    if is_atari(found) or is_playground(found.id):
        # each task states its own, and takes the shorter one
        return sys.maxsize
    max_t = MAX_T if training else PLAY_MAX_T
    note(
        f"env: {found.id} registers no time limit: an episode that does not end by itself is cut off after "
        f"{max_t:,} steps{'' if training else ' when it is played'} (env.max_t sets another limit)"
    )
    return max_t


def _tensor_env(found: Found, kwargs: dict[str, Any]) -> "TensorEnv":
    """The problem of that id, with its arguments."""
    try:
        return tensor_class(found)(**kwargs)
    except LabError:
        raise
    except Exception as e:
        raise SpecError([_refusal(found.id, kwargs, e)]) from e


def _bare(found: Found, spec: EnvSpec, own_limit: int | None) -> Registration:
    """The registration without the wrappers that repeat what VecEnv does: it resets before it steps, and counts."""
    registration = copy.copy(found.registration)
    registration.order_enforce = False
    # where a package wraps its env, the limit may count that wrapper's steps
    wrapped = registration.additional_wrappers or spec.wrappers
    registration.max_episode_steps = own_limit if wrapped else None
    return registration


def _make_gymnasium(
    found: Found, spec: EnvSpec, make: Make, mode: str, *, n: int, max_t: int, cores: int, training: bool
) -> VecEnv:
    """Envs that gymnasium makes one by one: stepped by MuJoCo's threads, or by Python in one or more processes."""
    if mode == "native":
        from slm_lab.env.mujoco import MujocoVec

        return MujocoVec(found.id, str(found.registration.entry_point), make, n, max_t=max_t, threads=cores)
    if package_of(found.registration) in ONE_A_PROCESS:
        mode = "apart"
    if mode == "auto":
        # only in training are there enough steps to win back the start of processes
        pays = training and min(n, cores) > 1 and spec.max_frame / n * _gain(make, n, cores) > START
        mode = "async" if pays else "sync"
    seen = Seen(spec.obs_keys, spec.image_axes, spec.action_mask)
    return GymVecEnv(found.id, _make_rows(found.id, make, n, mode, cores, seen), n, max_t=max_t)


def _make_on_device(
    found: Found, n: int, max_t: int, kwargs: dict[str, Any], *, render: str | None, device: str
) -> "DeviceVec":
    """Envs that live on a device."""
    if is_playground(found.id):
        from slm_lab.env.playground import PlaygroundVec

        return PlaygroundVec(found.id, n, max_t=max_t, render=render, **kwargs)
    from slm_lab.env.counted import CountedVec

    return CountedVec(found.id, _tensor_env(found, kwargs), n, max_t=max_t, device=device)


def make_single(spec: EnvSpec, *, render: str | None = None) -> gym.Env[Any, Any]:
    """One gymnasium env with what a spec puts around it: wrappers, the sum of several rewards, the action mask.

    Raises:
        LabError: as `make_env`; or it is an Atari game, which only ALE's vector env shows as in training.
    """
    found = find(spec.name)
    if is_atari(found):
        raise LabError(f"env.name: {found.id} has no single env: act in ALE's vector env, ale_py.vector_env")
    if is_playground(found.id):
        raise LabError(f"env.name: {found.id} is no gymnasium env: act in mujoco_playground's own")
    kwargs, registration = {**found.kwargs, **spec.kwargs}, copy.copy(found.registration)
    registration.max_episode_steps = kwargs.pop(LIMIT, registration.max_episode_steps)
    env = _make_one(registration, kwargs, render, Outfit.of(spec), 0)
    return env if spec.max_t is None else gym.wrappers.TimeLimit(env, spec.max_t)


def _make_one(
    registration: Registration, kwargs: dict[str, Any], render: str | None, outfit: Outfit, i: int
) -> gym.Env[Any, Any]:
    drawn: dict[str, Any] = {"render_mode": render} if render is not None and i == 0 else {}
    quiet: AbstractContextManager[None] = nullcontext()
    if str(registration.entry_point).startswith("gymnasium.envs.mujoco."):
        from slm_lab.env.mujoco import warnings_to_log

        quiet = warnings_to_log()
    try:
        # some draw tasks when they are made: the same in training, evaluation and a resume
        with quiet, own_streams(i):

            def build(**more: Any) -> gym.Env[Any, Any]:
                return make_with_tuples(
                    lambda given: gym.make(registration, disable_env_checker=True, **given, **more),
                    kwargs,
                    _creator(registration),
                )

            env = build(**drawn)
            if not drawn and env.render_mode == "human":
                # some open a window by default
                env.close()
                env = build(render_mode=None)
            with ExitStack() as refused:
                refused.callback(env.close)
                if kwargs and i == 0 and not drawn and str(registration.entry_point).startswith("gymnasium.envs."):
                    # some values are only looked at when they are used
                    env.reset(seed=0)
                    env.step(env.action_space.sample())
                made = outfit.put_on(env, registration.id)
                refused.pop_all()
            return made
    except LabError:
        raise
    except Exception as e:
        raise SpecError([_refusal(registration.id, kwargs, e)]) from e


def _creator(registration: Registration) -> Any:
    """The class or function that makes the env."""
    creator = registration.entry_point
    return load_env_creator(creator) if isinstance(creator, str) else creator


def _refusal(name: str, kwargs: dict[str, Any], error: Exception) -> str:
    """Why an env can't be made: under the key that the env complains of, where it names one."""
    # gymnasium repeats all arguments after the reason
    text = one_line(error).partition(" was raised from the environment creator")[0]
    text += display_hint(text)
    key = next((key for key in kwargs if re.search(rf"\b{re.escape(key)}\b", text)), None)
    if key is None and not isinstance(error, ImportError | gym.error.Error):
        # else the one whose value it repeats, or the only one there is
        likely = list(kwargs) if len(kwargs) == 1 else [k for k, v in kwargs.items() if str(v) in text]
        key = likely[0] if len(likely) == 1 else None
    if key is not None:
        return f"env.{key}: can't make {name} with {kwargs[key]!r}: {text}"
    given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
    return f"env.name: can't make {name}{f' with {given}' if given else ''}: {text}"


def _make_rows(name: str, make: Make, n: int, mode: str, cores: int, seen: Seen) -> "LocalRows | SharedRows":
    """Rows of envs; mode "apart": each in a process of its own."""
    try:
        if mode == "async" and n > 1:
            from slm_lab.env.workers import SharedRows

            return SharedRows(name, make, n, max(2, min(n, cores)), seen)
        if mode != "apart":
            return LocalRows(name, make_all(make, range(n)), cores if mode == "thread" else 1, seen)
    except LabError as e:
        if not re.search(r"(instances?|one|once)\b.* process|already (running|initiali[sz]ed)", str(e), re.IGNORECASE):
            raise
    from slm_lab.env.workers import SharedRows

    note(f"env: {name} allows one instance a process: each of the {n} gets a process of its own")
    return SharedRows(name, make, n, n, seen, apart=True)


def _sample(env: gym.Env[Any, Any]) -> Any:
    try:
        return env.sample() if isinstance(env, MaskedObs) else env.action_space.sample()
    except OverflowError:
        # gymnasium can't draw where the distance of bounds is above the greatest number
        actions = map_actions(env.action_space, "")
        return actions.each(np.zeros((1, *actions.shape), actions.dtype))[0]


def _gain(make: Make, n: int, cores: int) -> float:
    """Seconds of a vector step that more processes save; tried out on an env of its own."""
    # not number 0, which may have a window
    env = make(1)
    seconds = []
    with closing(env):
        seeded = Seeded(env)
        seeded.begin(0)
        for trial in range(TRIALS):
            action = _sample(env)
            begin = time.perf_counter()
            told: Any = env.step(action)
            seconds.append(time.perf_counter() - begin)
            if not OldStep.fits(told):
                raise OldStep(type(env.unwrapped).__name__, told)
            _, _, terminated, truncated, _ = told
            if terminated or truncated:
                seeded.begin(trial)
    return statistics.median(seconds) * n * (1 - 1 / min(n, cores)) - TALK
