"""CartPole-v1, N at a time in numpy: the same numbers as N of gymnasium's, bit for bit, several times as fast.

Dynamics: Barto, Sutton, Anderson 1983, with the constants and the order of operations of gymnasium's CartPoleEnv.
"""

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from slm_lab.env.actions import map_actions
from slm_lab.env.base import VecEnv
from slm_lab.env.observations import map_obs
from slm_lab.env.rows import picture
from slm_lab.lib.seeding import EpisodeSeeds
from slm_lab.lib.stateful import State
from slm_lab.types import Discrete, EnvInfo, Step

OWN_LIMIT = 500
"""The env's own limit, in steps."""

# 0-d arrays: numpy converts a Python float again in each call
GRAVITY = np.array(9.8)
MASS_POLE = np.array(0.1)
MASS_TOTAL = np.array(0.1 + 1.0)
LENGTH = np.array(0.5)
POLE_MASS_LENGTH = np.array(0.1 * 0.5)
FOUR_THIRDS = np.array(4.0 / 3.0)
TAU = np.array(0.02)
FORCE = np.array([-10.0, 10.0])
_GRAVITY, _MASS_POLE, _MASS_TOTAL, _LENGTH, _POLE_MASS_LENGTH, _FOUR_THIRDS, _TAU = (
    constant.item() for constant in (GRAVITY, MASS_POLE, MASS_TOTAL, LENGTH, POLE_MASS_LENGTH, FOUR_THIRDS, TAU)
)
_FORCE = FORCE.tolist()
X_LIMIT, THETA_LIMIT = 2.4, 12 * 2 * math.pi / 360


class CartPole(VecEnv):
    """A pole on a cart, pushed left (0) or right (1); observations x, x_dot, theta, theta_dot.

    Args:
        sutton_barto_reward: 0 a step and -1 for the fall, instead of 1 a step.
    """

    def __init__(
        self, num_envs: int, *, max_t: int = OWN_LIMIT, sutton_barto_reward: bool = False, render: str | None = None
    ) -> None:
        n = num_envs
        self.actions = map_actions(spaces.Discrete(2), "CartPole-v1")
        self.observations = map_obs(spaces.Box(-np.inf, np.inf, (4,)), "CartPole-v1")
        self.info = EnvInfo("CartPole-v1", (4,), "float32", Discrete(2), n, max_t)
        self.obs, self._obs_before = np.zeros((n, 4), np.float32), np.zeros((n, 4), np.float32)
        self._final_obs = np.zeros((n, 4), np.float32)
        self._sutton_barto = bool(sutton_barto_reward)
        self._reward = np.zeros(n, np.float32)
        self._terminated, self._truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self._seeds, self._episodes = EpisodeSeeds(0, n), [0] * n
        """Of all envs, and how many episodes each has started."""
        self._t = 0
        self._start = [0] * n
        self._max_t = self._deadline = max_t
        # one row per quantity, so that each operation runs over contiguous memory
        self._state, self._change = np.zeros((4, n)), np.zeros((4, n))
        self._scratch = np.zeros((5, n))
        self._size, self._beyond = np.zeros((2, n)), np.zeros((2, n), np.bool_)
        self._limits = np.repeat([[X_LIMIT], [THETA_LIMIT]], n, axis=1)
        self._picture: Any = None
        if render is not None:
            from gymnasium.envs.classic_control.cartpole import CartPoleEnv

            self._picture = CartPoleEnv(render_mode=render)

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        n = self.info.num_envs
        self._seeds, self._episodes = EpisodeSeeds(seed, n), [0] * n
        self._t = 0
        for i in range(n):
            self._begin(i)
        self._settle()
        return self.obs

    def step(self, action: NDArray[Any]) -> Step:
        """See VecEnv."""
        self._t += 1
        obs, self._obs_before = self._obs_before, self.obs
        self.obs = obs
        fell = self._move_one(action.item()) if len(obs) == 1 else self._move_all(action)
        obs[...] = self._state.T
        terminated, truncated, reward = self._terminated, self._truncated, self._reward
        truncated.fill(False)
        reward.fill(0.0 if self._sutton_barto else 1.0)
        if self._picture is not None and self._picture.render_mode == "human":
            self._draw()
        if fell or self._t >= self._deadline:
            return self._end_episodes()
        return Step(obs, reward, terminated, truncated, obs, [], [])

    def _move_all(self, action: NDArray[Any]) -> bool:
        """Whether any of them fell."""
        self._move(action)
        np.abs(self._state[::2], self._size)
        np.greater(self._size, self._limits, self._beyond)
        np.logical_or(self._beyond[0], self._beyond[1], self._terminated)
        # looking into the bytes costs a twentieth of any()
        return 1 in self._terminated.tobytes()

    def _move_one(self, action: int) -> bool:
        """`_move_all` for one env: Python's numbers are the same and take a third of the time of numpy's calls."""
        state = self._state
        x, x_dot, theta, theta_dot = state[:, 0].tolist()
        # numpy's own, as gymnasium calls them: math's may differ in the last bit
        sin, cos = np.sin(state[2]).item(), np.cos(state[2]).item()
        temp = (_FORCE[action] + _POLE_MASS_LENGTH * (theta_dot * theta_dot) * sin) / _MASS_TOTAL
        denominator = _LENGTH * (_FOUR_THIRDS - _MASS_POLE * (cos * cos) / _MASS_TOTAL)
        theta_acc = (_GRAVITY * sin - cos * temp) / denominator
        x_acc = temp - _POLE_MASS_LENGTH * theta_acc * cos / _MASS_TOTAL
        x, theta = x + _TAU * x_dot, theta + _TAU * theta_dot
        state[:, 0] = x, x_dot + _TAU * x_acc, theta, theta_dot + _TAU * theta_acc
        fell = abs(x) > X_LIMIT or abs(theta) > THETA_LIMIT
        self._terminated[0] = fell
        return fell

    def _move(self, action: NDArray[Any]) -> None:
        """Euler's step over tau of the equations of motion.

        temp      = (force + pole_mass_length * theta_dot^2 * sin) / mass_total
        theta_acc = (gravity * sin - cos * temp) / (length * (4/3 - mass_pole * cos^2 / mass_total))
        x_acc     = temp - pole_mass_length * theta_acc * cos / mass_total
        """
        state, change = self._state, self._change
        _, x_dot, theta, theta_dot = state
        force, sin, cos, temp, denominator = self._scratch
        x_acc, theta_acc = change[1], change[3]
        mul, add, sub, div = np.multiply, np.add, np.subtract, np.divide
        FORCE.take(action, out=force)
        np.sin(theta, sin)
        np.cos(theta, cos)
        # temp
        np.square(theta_dot, temp)
        mul(temp, POLE_MASS_LENGTH, temp)
        mul(temp, sin, temp)
        add(temp, force, temp)
        div(temp, MASS_TOTAL, temp)
        # theta_acc: denominator, numerator (x_acc as scratch), quotient
        np.square(cos, denominator)
        mul(denominator, MASS_POLE, denominator)
        div(denominator, MASS_TOTAL, denominator)
        sub(FOUR_THIRDS, denominator, denominator)
        mul(denominator, LENGTH, denominator)
        mul(sin, GRAVITY, theta_acc)
        mul(cos, temp, x_acc)
        sub(theta_acc, x_acc, theta_acc)
        div(theta_acc, denominator, theta_acc)
        # x_acc
        mul(theta_acc, POLE_MASS_LENGTH, x_acc)
        mul(x_acc, cos, x_acc)
        div(x_acc, MASS_TOTAL, x_acc)
        sub(temp, x_acc, x_acc)
        # positions move with the velocities from before the push
        change[0] = x_dot
        change[2] = theta_dot
        mul(change, TAU, change)
        add(state, change, state)

    def _end_episodes(self) -> Step:
        obs, final_obs, terminated, truncated = self.obs, self._final_obs, self._terminated, self._truncated
        final_obs[...] = obs
        returns, lengths = [], []
        for i, fell in enumerate(terminated.tolist()):
            length = self._t - self._start[i]
            if not fell:
                if length < self._max_t:
                    continue
                truncated[i] = True
            elif self._sutton_barto:
                self._reward[i] = -1.0
            returns.append(-float(fell) if self._sutton_barto else float(length))
            lengths.append(length)
            self._begin(i)
            obs[i] = self._state[:, i]
        self._deadline = min(self._start) + self._max_t
        return Step(obs, self._reward, terminated, truncated, final_obs, returns, lengths)

    def _begin(self, i: int) -> None:
        seed = self._seeds.of(i, self._episodes[i])
        rng = np.random.Generator(np.random.PCG64(seed))
        self._state[:, i] = rng.uniform(low=-0.05, high=0.05, size=(4,))
        self._start[i] = self._t
        self._episodes[i] += 1

    def _settle(self) -> None:
        """What follows from the state, the clock and the starts."""
        self.obs[...] = self._state.T
        self._deadline = min(self._start) + self._max_t

    def state_dict(self) -> State:
        """See VecEnv."""
        return {
            **self._identity(),
            "state": self._state.tolist(),
            "age": [self._t - start for start in self._start],
            "seed": self._seeds.seed,
            "episodes": list(self._episodes),
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv."""
        self._check_state(state)
        self._state[...] = state["state"]
        self._t = 0
        self._start = [-age for age in state["age"]]
        self._seeds, self._episodes = EpisodeSeeds(state["seed"], self.info.num_envs), list(state["episodes"])
        self._settle()

    def render(self) -> NDArray[np.uint8] | None:
        """See VecEnv."""
        return picture(self.info.name, self._draw) if self._picture is not None else None

    def _draw(self) -> NDArray[np.uint8] | None:
        self._picture.state = self._state[:, 0].copy()
        return self._picture.render()

    def close(self) -> None:
        """See VecEnv."""
        if self._picture is not None:
            self._picture.close()
