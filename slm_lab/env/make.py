"""From the spec's `env` to envs that run."""

import copy
import functools
import re
import statistics
import time
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.envs.registration import load_env_creator

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
from slm_lab.env.rows import LocalRows, Make, OldStep, Rows, display_hint, make_all
from slm_lab.env.snapshot import Seeded
from slm_lab.env.threads import available_cores
from slm_lab.env.wrappers import wrap
from slm_lab.lib.errors import LabError, SpecError, one_line
from slm_lab.lib.log import note
from slm_lab.lib.seeding import own_streams
from slm_lab.spec.model import EnvSpec

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
    """The envs that a spec asks for.

    Args:
        spec: keys it does not know itself go to gym.make.
        num_envs: N, over the spec's.
        render: "human" (a window) or "rgb_array" (frames by `VecEnv.render`), of env 0.
        gamma: the algorithm's discount, for normalize_reward.
        training: whether running statistics learn; else they stand still (see `VecEnv.load_normalizer_state`), and the
            loss of a life ends nothing.
        threads: or processes to step the envs with, at most; None: one a core.
        whole: rollouts could be played in one call, so that `auto` takes a tensor env where there is one.
        tensor: whether a saved state that is to be loaded is a tensor env's; None: there is none.
        device: where tensor envs live.

    Raises:
        LabError: no such env, arguments it refuses, spaces the lab can't deal with, a package that is missing.
    """
    faults = check_env(spec)
    if faults:
        raise SpecError(faults)
    found = find(spec.name)
    kwargs = {**found.kwargs, **spec.kwargs}
    own_limit = kwargs.pop(LIMIT, found.registration.max_episode_steps)
    max_t = min((limit for limit in (own_limit, spec.max_t) if limit is not None), default=None)
    n = num_envs or spec.num_envs
    cores = threads or available_cores()
    if tensor is None:
        tensor = render is None and prefers_tensor(found, spec, whole=whole)
    mode = choose_mode(found, spec, tensor=tensor)
    if is_playground(found.id) or (mode == "tensor" and device != "cpu"):
        from slm_lab.env.device import wrap_device

        on_device = _make_on_device(found, n, max_t, kwargs, render=render, device=device)
        return wrap_device(on_device, spec, gamma=gamma, training=training)
    clip_reward = None
    env: VecEnv
    if is_atari(found):
        from slm_lab.env.atari import Atari

        arguments = {**found.registration.kwargs, **kwargs}
        env = Atari(found.id, n, max_t=max_t, render=render, training=training, threads=cores, **arguments)
        clip_reward = 1.0
    elif mode == "tensor":
        from slm_lab.env.tensor import TensorVec

        env = TensorVec(found.id, tensor_class(found)(**kwargs), n, max_t=max_t)
    elif mode == "native" and found.registration.entry_point == CARTPOLE and max_t is not None:
        env = CartPole(n, max_t=max_t, render=render, **found.registration.kwargs, **kwargs)
    else:
        registration = copy.copy(found.registration)
        # VecEnv resets before it steps, and counts; only where a package wraps its env the limit may mean its steps
        registration.order_enforce = False
        wrapped = registration.additional_wrappers or spec.wrappers
        registration.max_episode_steps = own_limit if wrapped else None
        if max_t is None:
            max_t = MAX_T if training else PLAY_MAX_T
            note(
                f"env: {found.id} registers no time limit: an episode that does not end by itself is cut off after "
                f"{max_t:,} steps{'' if training else ' when it is played'} (env.max_t sets another limit)"
            )
        make = functools.partial(_make_one, registration, kwargs, render, Outfit.of(spec))
        if mode == "native":
            from slm_lab.env.mujoco import MujocoVec

            env = MujocoVec(found.id, str(registration.entry_point), make, n, max_t=max_t, threads=cores)
        else:
            if package_of(found.registration) in ONE_A_PROCESS:
                mode = "apart"
            if mode == "auto":
                # others than those that learn are not stepped for long
                pays = training and min(n, cores) > 1 and spec.max_frame / n * _gain(make, n, cores) > START
                mode = "async" if pays else "sync"
            seen = Seen(spec.obs_keys, spec.image_axes, spec.action_mask)
            env = GymVecEnv(found.id, _make_rows(found.id, make, n, mode, cores, seen), n, max_t=max_t)
    return wrap(env, spec, gamma=gamma, training=training, clip_reward=clip_reward)


def _make_on_device(
    found: Found, n: int, max_t: int | None, kwargs: dict[str, Any], *, render: str | None, device: str
) -> Any:
    """Envs that live on a device."""
    if is_playground(found.id):
        from slm_lab.env.playground import PlaygroundVec

        return PlaygroundVec(found.id, n, max_t=max_t, render=render, **kwargs)
    from slm_lab.env.counted import CountedVec

    return CountedVec(found.id, tensor_class(found)(**kwargs), n, max_t=max_t, device=device)


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
                # some open a window unless they are told not to
                env.close()
                env = build(render_mode=None)
            if kwargs and i == 0 and not drawn and str(registration.entry_point).startswith("gymnasium.envs."):
                # some values are only looked at when they are used
                env.reset(seed=0)
                env.step(env.action_space.sample())
            return outfit.put_on(env, registration.id)
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
    # gymnasium repeats all arguments behind the reason
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


def _make_rows(name: str, make: Make, n: int, mode: str, cores: int, seen: Seen) -> Rows:
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


def _gain(make: Make, n: int, cores: int) -> float:
    """Seconds of a vector step that more processes save; tried out on an env of its own."""
    # not number 0, which may have a window
    env = make(1)
    seconds = []
    with closing(env):
        seeded = Seeded(env)
        seeded.begin(0)
        for trial in range(TRIALS):
            action = env.sample() if isinstance(env, MaskedObs) else env.action_space.sample()
            begin = time.perf_counter()
            told: Any = env.step(action)
            seconds.append(time.perf_counter() - begin)
            if len(told) != 5:
                raise OldStep(type(env.unwrapped).__name__, len(told))
            _, _, terminated, truncated, _ = told
            if terminated or truncated:
                seeded.begin(trial)
    return statistics.median(seconds) * n * (1 - 1 / min(n, cores)) - TALK
