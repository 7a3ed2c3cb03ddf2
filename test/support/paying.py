"""An env that pays what it is told, and wrappers of it."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Pays(gym.Env):
    """Pays what it is told; ends after `ends` steps, in both ways at once."""

    def __init__(self, pay=(1.0,), shape=None, size=(2, 3), ends=5, told=False):
        assert isinstance(size, tuple)
        assert shape is None or (1,) + shape["grid"]
        self.observation_space = spaces.Dict(v=spaces.Box(-1, 1, size), day=spaces.Discrete(2), text=spaces.Text(4))
        self.action_space = spaces.Discrete(2)
        self.pay, self.ends, self.size = np.array(pay, np.float32) if isinstance(pay, tuple | list) else pay, ends, size
        if told:
            self.reward_space = spaces.Box(-9, 9, self.pay.shape)

    def see(self):
        return {"v": np.full(self.size, 0.5, np.float32), "day": self.t % 2, "text": "a"}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.see(), {}

    def step(self, action):
        self.t += 1
        over = self.t == self.ends
        return self.see(), self.pay, over, over, {}


class Doubled(gym.RewardWrapper):
    """Twice the reward."""

    def __init__(self, env, factor=2, shape=()):
        super().__init__(env)
        self.factor = factor
        assert isinstance(shape, tuple)

    def reward(self, reward):
        return self.factor * reward


class Sized(gym.Wrapper):
    """Takes a tuple of three."""

    def __init__(self, env, sizes):
        if not isinstance(sizes["a"], tuple) or len(sizes["a"]) != 3:
            raise TypeError("a must be a tuple of three")
        super().__init__(env)


class Refuses(gym.Wrapper):
    """Wants another env."""

    def __init__(self, env):
        raise TypeError("only for robots")
