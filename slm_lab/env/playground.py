"""Tasks of MuJoCo Playground: MuJoCo in JAX, N envs on JAX's device. Zakka et al. 2025, arXiv:2502.08844.

An action goes to JAX and a step comes back by DLPack: both libraries look at the same memory. Reset, step, the ends of
episodes and their returns are one compiled function of JAX. Episode e of env i begins from the key
`fold_in(fold_in(key(seed), i), e)`, so episodes do not depend on what happened before them.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec as Registration
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from slm_lab.env.actions import map_actions
from slm_lab.env.device import DeviceVec, Moved
from slm_lab.env.observations import map_obs
from slm_lab.env.rows import picture
from slm_lab.env.snapshot import pack, unpack
from slm_lab.lib.compiler import cache_folder
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.stateful import State
from slm_lab.lib.suggest import did_you_mean
from slm_lab.types import EnvInfo

PREFIX = "playground/"
"""How names of such tasks begin."""
STATE = "state"
"""Of observations made of parts, the one that a robot could sense itself."""


def _library(name: str) -> Any:
    """The package, imported: it takes seconds."""
    # JAX would take three quarters of a GPU's memory at once, and leave torch the rest
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # compiling takes longer than many a run
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "jax"))
    try:
        import mujoco_playground
        from mujoco_playground import registry
    except ImportError as e:
        why = "" if e.name == "mujoco_playground" else f" (the import fails: {' '.join(str(e).split())})"
        raise LabError(f"env.name: {name} needs the package playground: install 'slm-lab[playground]'{why}") from e
    return mujoco_playground, registry


def find_task(name: str) -> Registration:
    """What the lab has to know of `playground/<Task>` before it is made.

    Raises:
        LabError: no such task, no such package, or its robot's files are not here
    """
    library, registry = _library(name)
    task, own = name.removeprefix(PREFIX), library.dm_control_suite.ALL_ENVS
    if task not in registry.ALL_ENVS:
        near = did_you_mean(task, registry.ALL_ENVS)
        raise LabError(f"env.name: MuJoCo Playground has no task '{task}'{near} (it has: {', '.join(own)})")
    from mujoco_playground._src.mjx_env import MENAGERIE_PATH

    if task not in own and not MENAGERIE_PATH.exists():
        raise LabError(
            f"env.name: {name} needs the robots of mujoco_menagerie, which the lab does not download: put a clone at "
            f"{MENAGERIE_PATH}, or take a task that comes with the package ({', '.join(own[:4])}, ...)"
        )
    return Registration(name, entry_point=f"{__name__}:load_task")


def load_task(name: str, **config: Any) -> Any:
    """The task.

    Args:
        name: with its prefix
        config: changes of its configuration, by flat key

    Raises:
        LabError: it refuses them
    """
    import jax

    _, registry = _library(name)
    task = name.removeprefix(PREFIX)
    known = registry.get_default_config(task)
    if unknown := [key for key in config if key.partition(".")[0] not in known]:
        raise SpecError([f"env.{key}: {name} has no such key{did_you_mean(key, known)}" for key in unknown])
    if "impl" in known and jax.default_backend() == "cpu":
        # the default runs on NVIDIA's GPUs alone
        config = {"impl": "jax", **config}
    try:
        return registry.load(task, config_overrides=config)
    except Exception as e:
        why = " ".join(str(e).split()) or type(e).__name__
        key = next((f"env.{key}" for key in config if key in why), "env.name")
        raise LabError(f"{key}: can't make {name} with {config}: {why}") from e


class Carry(NamedTuple):
    """All that N envs are, as arrays of JAX with N rows."""

    state: Any
    """Playground's own."""
    key: Any
    """[N] what the keys of episodes are derived from."""
    episode: Any
    """[N] i32, number of the running one."""
    age: Any
    """[N] i32, steps of it."""
    ret: Any
    """[N] f32, its return so far."""


class PlaygroundVec(DeviceVec):
    """N envs of one task.

    Args:
        name: with its prefix
        max_t: steps after which an episode is truncated, if the task's own limit is not lower
        render: "rgb_array": `render` shows env 0
        config: changes of the task's configuration
    """

    def __init__(self, name: str, num_envs: int, *, max_t: int, render: str | None = None, **config: Any) -> None:
        import jax

        if render == "human":
            raise LabError(f"--render: {name} has no window; `slm-lab run ... enjoy@RUN` can record a video instead")
        self._render, self._jax = render, jax
        self._task = task = load_task(name, **config)
        repeat = int(task._config.get("action_repeat", 1))
        limit = int(task._config.episode_length) // repeat
        self._max_t = min(limit, max_t)
        shapes = jax.eval_shape(task.reset, jax.random.PRNGKey(0)).obs
        if isinstance(shapes, dict) and STATE not in shapes:
            raise LabError(f"env.name: {name} shows {', '.join(shapes)}, but no vector '{STATE}'")
        shape = (shapes[STATE] if isinstance(shapes, dict) else shapes).shape
        unit = np.ones(task.action_size, np.float32)
        self.actions = map_actions(spaces.Box(-unit, unit), name)
        self.observations = map_obs(spaces.Box(-np.inf, np.inf, shape, np.float32), name)
        self.info = EnvInfo(name, shape, "float32", self.actions.space, num_envs, self._max_t)
        self._begin, self._move = self._compiled(jax, task, repeat)
        self._carry: Any = None
        self.obs = np.zeros((num_envs, *shape), np.float32)
        device = next(iter(jax.numpy.zeros(()).devices()))
        self.seen = torch.zeros(self.obs.shape, device="cpu" if device.platform == "cpu" else f"cuda:{device.id}")

    def _compiled(self, jax: Any, task: Any, repeat: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Beginning all episodes, and one step, as functions that JAX compiles when they are first called."""
        jp, n, max_t = jax.numpy, self.info.num_envs, self._max_t

        def see(state: Any) -> Any:
            return state.obs[STATE] if isinstance(state.obs, dict) else state.obs

        def start(key: Any, episode: Any) -> Any:
            return jax.vmap(lambda k, e: task.reset(jax.random.fold_in(k, e)))(key, episode)

        def begin(seed: Any) -> tuple[Carry, Any]:
            key = jax.vmap(lambda i: jax.random.fold_in(jax.random.PRNGKey(seed), i))(jp.arange(n))
            zeros = jp.zeros(n, jp.int32)
            state = start(key, zeros)
            return Carry(state, key, zeros, zeros, jp.zeros(n)), see(state)

        def one(state: Any, action: Any) -> tuple[Any, Any]:
            def again(state: Any, _: Any) -> tuple[Any, Any]:
                moved = task.step(state, action)
                return moved, (moved.reward, moved.done)

            state, (rewards, dones) = jax.lax.scan(again, state, (), repeat)
            # what follows an end in the same repetition does not count
            alive = jp.concatenate([jp.ones(1), jp.cumprod(1 - dones)[:-1]])
            return state.replace(done=dones.max(0)), (rewards * alive).sum(0)

        def move(carry: Carry, action: Any) -> tuple[Carry, tuple[Any, ...]]:
            state, reward = jax.vmap(one)(carry.state, jp.clip(action, -1.0, 1.0))
            age, ret, final_obs = carry.age + 1, carry.ret + reward, see(state)
            terminated = state.done > 0.5
            truncated = (age >= max_t) & ~terminated
            done, episode = terminated | truncated, carry.episode + (terminated | truncated)

            def pick(new: Any, old: Any) -> Any:
                return jp.where(done.reshape(n, *[1] * (old.ndim - 1)), new, old)

            # most steps end no episode, and resetting costs about as much as stepping
            following = jax.lax.cond(
                done.any(), lambda: jax.tree_util.tree_map(pick, start(carry.key, episode), state), lambda: state
            )
            zero = jp.zeros_like(age)
            carried = Carry(following, carry.key, episode, jp.where(done, zero, age), jp.where(done, 0.0, ret))
            return carried, (see(following), reward, terminated, truncated, final_obs, ret, age)

        return jax.jit(begin), jax.jit(move)

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        self._carry, seen = self._begin(seed)
        self.seen = from_dlpack(seen)
        self.obs = self.seen.cpu().numpy()
        return self.obs

    def advance(self, action: Tensor) -> Moved:
        """See DeviceVec."""
        given = self._jax.dlpack.from_dlpack(action.detach().contiguous().to(self.seen.device))
        self._carry, made = self._move(self._carry, given)
        moved = Moved(*map(from_dlpack, made))
        self.seen = moved.obs
        return moved

    def state_dict(self) -> State:
        """See VecEnv."""
        leaves = self._jax.tree_util.tree_leaves(self._carry)
        return {
            **self._identity(),
            "carry": [pack(np.asarray(leaf)) for leaf in leaves],
            "obs": pack(self.seen.cpu().numpy()),
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv."""
        self._check_state(state)
        tree = self._jax.tree_util.tree_structure(self._jax.eval_shape(self._begin, 0)[0])
        leaves = [self._jax.numpy.asarray(unpack(leaf)) for leaf in state["carry"]]
        if len(leaves) != tree.num_leaves:
            raise LabError(f"env: the saved state of {self.info.name} is of another version of MuJoCo Playground")
        self._carry = tree.unflatten(leaves)
        self.obs = unpack(state["obs"])
        self.seen = torch.from_numpy(self.obs.copy()).to(self.seen.device)

    def render(self) -> NDArray[np.uint8] | None:
        """See VecEnv."""
        if self._render is None:
            return None
        first = self._jax.tree_util.tree_map(lambda x: x[0], self._carry.state)
        return picture(self.info.name, lambda: self._task.render([first])[0])
