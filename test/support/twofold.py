"""An env whose observation is an image and two vectors; the right action follows from the image and one of them."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Twofold(gym.Env):
    """One side of the image is bright; the flag says whether the action is that side, or the other one."""

    noise = 1.0

    def __init__(self, continuous=False, side=8):
        self.observation_space = spaces.Dict(
            screen=spaces.Box(0, 255, (side, side, 3), np.uint8),
            flag=spaces.Discrete(2),
            noise=spaces.Box(-1, 1, (2,)),
            mission=spaces.Text(10),
        )
        self.action_space = spaces.Box(-1, 1, (1,)) if continuous else spaces.Discrete(2)
        self.continuous, self.side = continuous, side

    def see(self):
        self.bright, self.flag = (int(x) for x in self.np_random.integers(2, size=2))
        half = self.side // 2
        screen = np.zeros((self.side, self.side, 3), np.uint8)
        screen[:, half * self.bright : half * (self.bright + 1), 1] = 255
        noise = self.noise * self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"screen": screen, "flag": self.flag, "noise": noise, "mission": "go"}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.see(), {}

    def step(self, action):
        self.t += 1
        said = int(action[0] > 0) if self.continuous else int(action)
        reward = float(said == (self.bright ^ self.flag))
        return self.see(), reward, self.t >= 4, False, {}
