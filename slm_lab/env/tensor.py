"""Envs whose dynamics are pure functions of tensors: N at once, and compiled together with the policy that acts.

    @tensor_env("Corridor-v0", max_t=50)
    class Corridor(TensorEnv):
        action, obs_shape = Discrete(2), (1,)

        def init(self, noise):                          # [N, init_noise] uniform in [0, 1) -> state [N, ...]
            return (noise * 4).floor()

        def step(self, state, action, noise):           # -> state, obs, reward, terminated
            state = (state + 2 * action[:, None] - 1).clamp(min=0)
            return state, self.observe(state), -torch.ones(len(state)), state[:, 0] >= 8

Such an env is known to gymnasium under its id too. What it does depends on its arguments alone: no random numbers, no
attributes that change, no numbers read out of tensors.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.env.actions import ActionMap, map_actions
from slm_lab.env.base import MAX_T, VecEnv, as_step
from slm_lab.env.observations import ObsMap, map_obs
from slm_lab.lib.compile import Compiled, CompileError, compile_function
from slm_lab.lib.errors import LabError
from slm_lab.lib.seeding import EpisodeSeeds, derive
from slm_lab.lib.stateful import State
from slm_lab.types import ActionSpace, Continuous, Discrete, EnvInfo, Step

QUEUE = 32
"""Episodes of each env whose noise is drawn ahead: one call can play that many steps."""
STEP_NOISE = 0x57E9
"""What the noise of steps is derived with, beside the seed and the step."""


class TensorEnv(ABC):
    """One problem; its methods take N of them at once."""

    action: ClassVar[ActionSpace]
    """Discrete or Continuous. Actions come as [N] int64, or as [N, dim] float32 within the bounds."""
    obs_shape: ClassVar[tuple[int, ...]]
    """*O; observations are float32."""
    init_noise: ClassVar[int] = 1
    """Uniform random numbers that `init` takes, drawn from the seed of each episode."""
    step_noise: ClassVar[int] = 0
    """Uniform random numbers that `step` takes."""

    @abstractmethod
    def init(self, noise: Tensor) -> Tensor:
        """[N, init_noise] float64 in [0, 1) -> states [N, ...] in which episodes begin."""

    @abstractmethod
    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States [N, ...], actions, [N, step_noise] -> state, obs [N, *O], reward [N], terminated [N] bool."""

    def observe(self, state: Tensor) -> Tensor:
        """What is seen of states: [N, *O] float32; the state itself by default."""
        return state.float()


TENSOR_ENVS: dict[str, type[TensorEnv]] = {}
"""By id."""


def tensor_env(name: str, *, max_t: int | None = None) -> Callable[[type[TensorEnv]], type[TensorEnv]]:
    """Class decorator: make the env known under an id, to gymnasium too if it does not know it yet.

    Args:
        name: id, `Corridor-v0`
        max_t: steps after which an episode is truncated
    """

    def add(cls: type[TensorEnv]) -> type[TensorEnv]:
        TENSOR_ENVS[name] = cls
        if name not in gym.registry:
            # a class of its own, as the arguments of the env are read from what makes it
            adapter = type(f"{cls.__name__}Gym", (AsGym,), {"cls": cls, "__signature__": inspect.signature(cls)})
            gym.register(name, entry_point=cast(Any, adapter), max_episode_steps=max_t)
        return cls

    return add


def _spaces(env: TensorEnv) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """gymnasium's spaces of actions and observations."""
    action: spaces.Space[Any]
    if isinstance(env.action, Discrete):
        action = spaces.Discrete(env.action.n)
    elif isinstance(env.action, Continuous):
        action = spaces.Box(np.array(env.action.low, np.float32), np.array(env.action.high, np.float32))
    else:
        raise LabError(f"env: {type(env).__name__}.action must be Discrete or Continuous (got {env.action})")
    return action, spaces.Box(-np.inf, np.inf, env.obs_shape, np.float32)


class AsGym(gym.Env[Any, Any]):
    """One tensor env as gymnasium's."""

    cls: ClassVar[type[TensorEnv]]

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        self.render_mode = render_mode
        self._env = self.cls(**kwargs)
        self.action_space, self.observation_space = _spaces(self._env)
        self._state = torch.zeros(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See gymnasium."""
        super().reset(seed=seed)
        self._state = self._env.init(torch.from_numpy(self.np_random.random((1, self._env.init_noise))))
        return self._env.observe(self._state)[0].numpy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See gymnasium."""
        noise = torch.from_numpy(self.np_random.random((1, self._env.step_noise)))
        done = self._env.step(self._state, torch.as_tensor(np.asarray(action))[None], noise)
        self._state, obs, reward, terminated = done
        return obs[0].numpy(), float(reward[0]), bool(terminated[0]), False, {}


class TensorVec(VecEnv):
    """N tensor envs.

    Args:
        env: the problem
        max_t: steps after which an episode is truncated; None: MAX_T
        compile: whether to compile a step, where that takes no more than a few seconds
    """

    def __init__(
        self, name: str, env: TensorEnv, num_envs: int, *, max_t: int | None = None, compile: bool = True
    ) -> None:
        n, self.env, self._compile = num_envs, env, compile
        self._max_t = max_t or MAX_T
        self.actions, self.observations = maps_of(env, name)
        self.info = EnvInfo(name, env.obs_shape, "float32", env.action, n, self._max_t)
        self._seeds, self._t, self._episodes = EpisodeSeeds(0, n), 0, [0] * n
        """Seed of all envs, vector steps, and the episodes that each has started."""
        self.queue = torch.zeros((QUEUE, n, env.init_noise), dtype=torch.float64)
        """[QUEUE, N, init_noise] of the episodes to come: episode e of an env is in row e % QUEUE."""
        self.head = torch.zeros((1, n), dtype=torch.int64)
        """[1, N] rows of the next episodes."""
        self.state = env.init(torch.zeros((n, env.init_noise), dtype=torch.float64)).clone()
        self.age = torch.zeros(n, dtype=torch.int64)
        self.ret = torch.zeros(n, dtype=torch.float64)
        self.obs = np.zeros((n, *env.obs_shape), np.float32)
        self._run: Compiled | None = None

    @property
    def held(self) -> list[Tensor]:
        """What `transition` reads of the envs and, but for the last, changes."""
        return [self.state, self.age, self.ret, self.head, self.queue]

    def transition(self, *args: Tensor) -> tuple[Tensor, ...]:
        """One step as a pure function, but that it changes what is held.

        Args:
            args: `held`, actions as the agent gives them, noise [N, step_noise]

        Returns:
            obs [N, *O] to act on next, reward [N] f32, terminated [N], truncated [N], final_obs [N, *O], returns [N]
            and lengths [N] of the episodes so far, this step included
        """
        state, age, ret, head, queue, action, noise = args
        n = len(age)
        fresh = self.env.init(queue.gather(0, head.view(1, n, 1).expand(1, n, queue.shape[-1]))[0])
        action = decoded(self.env.action, action)
        done, *made = stepped(self.env, self._max_t, (state, age, ret), fresh, action, noise)
        following = head + 1
        following = torch.where(following >= QUEUE, torch.zeros_like(head), following)
        head.copy_(torch.where(done, following, head))
        return tuple(made)

    def noise(self, steps: int) -> Tensor:
        """[steps, N, step_noise] of the next steps."""
        n, k = self.info.num_envs, self.env.step_noise
        if not k:
            return torch.zeros((steps, n, 0), dtype=torch.float64)
        seeds = [derive(self._seeds.seed, STEP_NOISE, self._t + i) for i in range(steps)]
        return torch.from_numpy(np.stack([np.random.default_rng(seed).random((n, k)) for seed in seeds]))

    def moved(self, steps: int, obs: NDArray[Any], done: NDArray[np.bool_]) -> None:
        """Take note of steps that `transition` made.

        Args:
            steps: how many, at most QUEUE
            obs: [N, *O] to act on next
            done: [steps, N], whose episode ended
        """
        self._t += steps
        self.obs = obs
        if done.any():
            for i, ended in enumerate(done.sum(0).tolist()):
                for _ in range(ended):
                    self._draw(i, self._episodes[i] + QUEUE)
                    self._episodes[i] += 1

    def _draw(self, i: int, episode: int) -> None:
        """The noise of an episode, where it belongs."""
        rng = np.random.Generator(np.random.PCG64(self._seeds.of(i, episode)))
        self.queue[episode % QUEUE, i] = torch.from_numpy(rng.random(self.env.init_noise))

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        n = self.info.num_envs
        self._seeds, self._t = EpisodeSeeds(seed, n), 0
        for i in range(n):
            self._draw(i, 0)
        self.state.copy_(self.env.init(self.queue[0]))
        self.age.zero_()
        self.ret.zero_()
        self._begin([1] * n)
        self.obs = self.env.observe(self.state).numpy().copy()
        return self.obs

    def _begin(self, episodes: Sequence[int]) -> None:
        """The number of episodes that have begun in each env."""
        self._episodes = list(episodes)
        self.head.copy_(torch.tensor([[e % QUEUE for e in episodes]]))
        for i, begun in enumerate(episodes):
            for episode in range(begun, begun + QUEUE):
                self._draw(i, episode)

    def step(self, action: NDArray[Any]) -> Step:
        """See VecEnv."""
        args = [*self.held, torch.from_numpy(np.asarray(action, self.actions.dtype)), self.noise(1)[0]]
        with torch.inference_mode(mode=False), torch.no_grad():
            if self._compile and self._run is None:
                try:
                    self._run = compile_function(self.transition, args, quick=True)
                except CompileError:
                    self._compile = False
            made = self.transition(*args) if self._run is None else self._run(*args)
        step = as_step(x.numpy() for x in made)
        self.moved(1, step.obs, (step.terminated | step.truncated)[None])
        return step

    def state_dict(self) -> State:
        """See VecEnv."""
        return {
            **self._identity(),
            "seed": self._seeds.seed,
            "t": self._t,
            "episodes": list(self._episodes),
            "held": [x.tolist() for x in (self.state, self.age, self.ret)],
            "obs": self.obs.tolist(),
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv."""
        self._check_state(state)
        self._seeds, self._t = EpisodeSeeds(state["seed"], self.info.num_envs), state["t"]
        for tensor, values in zip((self.state, self.age, self.ret), state["held"], strict=True):
            tensor.copy_(torch.tensor(values, dtype=tensor.dtype))
        self._begin(state["episodes"])
        self.obs = np.array(state["obs"], np.float32).reshape(self.obs.shape)


def maps_of(env: TensorEnv, name: str) -> tuple[ActionMap, ObsMap]:
    """How actions reach an env, and observations the agent."""
    action, obs = _spaces(env)
    return map_actions(action, name), map_obs(obs, name)


def decoded(space: ActionSpace, action: Tensor) -> Tensor:
    """As `ActionMap.decode`."""
    if not isinstance(space, Continuous):
        return action
    made = []
    for i, (low, high) in enumerate(zip(space.low, space.high, strict=True)):
        bounded = bool(np.isfinite([low, high]).all())
        x = action[:, i]
        made.append((x * ((high - low) / 2) + (high + low) / 2 if bounded else x).clamp(low, high))
    return torch.stack(made, -1)


def stepped(
    env: TensorEnv, max_t: int, held: tuple[Tensor, Tensor, Tensor], fresh: Tensor, action: Tensor, noise: Tensor
) -> tuple[Tensor, ...]:
    """One step of N envs; changes what is held.

    Args:
        env: the problem
        max_t: steps after which an episode is truncated
        held: states [N, ...], steps of the running episodes [N], their returns so far [N]
        fresh: [N, ...] states in which the next episodes begin
        action: [N, *A] as the env takes it
        noise: [N, step_noise]

    Returns:
        done [N]; obs [N, *O] to act on next, reward [N] f32, terminated [N], truncated [N], final_obs [N, *O], returns
        [N] and lengths [N] of the episodes so far, this step included
    """
    state, age, ret = held
    moved, final_obs, reward, terminated = env.step(state, action, noise)
    lengths, returns = age + 1, ret + reward
    truncated = (lengths >= max_t) & ~terminated
    done = terminated | truncated
    obs = torch.where(_like(done, final_obs), env.observe(fresh), final_obs)
    state.copy_(torch.where(_like(done, moved), fresh, moved))
    age.copy_(torch.where(done, torch.zeros_like(lengths), lengths))
    ret.copy_(torch.where(done, torch.zeros_like(returns), returns))
    return done, obs, reward.float(), terminated, truncated, final_obs, returns, lengths


def _like(done: Tensor, x: Tensor) -> Tensor:
    """[N] with as many dimensions as x."""
    return done.view(-1, *[1] * (x.dim() - 1))
