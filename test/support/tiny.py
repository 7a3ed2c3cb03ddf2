"""Envs whose right answers are known by hand; each episode is one step long."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Tiny(gym.Env):
    """Pays 1 for the action that `right` says."""

    observation_space = spaces.Box(-1e4, 1e4, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def see(self):
        self.u = self.np_random.uniform(-1, 1)
        return np.array([self.u, 1.0], np.float32)

    def pay(self, action):
        return float(action == int(self.u > 0))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.see(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        reward = self.pay(action)  # of what was shown before
        return self.see(), reward, True, False, {}


class Shifted(Tiny):
    """Sees 500 + 20 u; action 1 is right where u > 0."""

    def see(self):
        return super().see() * np.float32([20, 1]) + np.float32([500, 0])


class Target(Tiny):
    """The best action is 0.3 of [-2, 2]."""

    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def pay(self, action):
        return -float((action[0] - 0.3) ** 2)


class Room(Tiny):
    """Shows which of 5 rooms it is; the action is its number modulo 2, counted from 7."""

    observation_space = spaces.Discrete(5, start=3)
    action_space = spaces.Discrete(2, start=7)

    def see(self):
        self.room = int(self.np_random.integers(3, 8))
        return self.room

    def pay(self, action):
        return float(action == 7 + self.room % 2)


class Longer(gym.ObservationWrapper):
    """A number more."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-1e4, 1e4, (3,), np.float32)

    def observation(self, observation):
        return np.append(observation, np.float32(1))
