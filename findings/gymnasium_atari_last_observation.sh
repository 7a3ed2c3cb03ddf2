#!/usr/bin/env bash
# gymnasium 1.4.0: the last observation of an episode that AtariPreprocessing returns is not the last picture. Its documentation says
# that it pools over the most recent two observations of the skipped frames. Where the episode ends among them, step() leaves before
# it has fetched the screen, and makes the observation from its old buffer: the observation of the step before comes again, pixel by
# pixel, though the emulator went on by up to three frames. Where it ends at the last frame of the four, the pool is that old
# observation with the last frame but one, which is no moment of the game. After a truncation that is the observation that a value is
# bootstrapped from; with terminal_on_life_loss it is the last one of each life. AtariVectorEnv of ale-py 0.12.1, a separate
# implementation of the same preprocessing, repeats the observation, too.
#
# Output seen (gymnasium 1.4.0, ale-py 0.12.1, Pong, four frames a step, always the action 2):
#   402 frames: truncated in step 101; the step before again: True; newest two frames: False
#   400 frames: truncated in step 100; the step before again: False; newest two frames: False
#   steps before that with the newest two frames: 100 of 100
#   AtariVectorEnv, 402 frames: truncated in step 101; the step before again: True
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python gymnasium==1.4.0 ale-py==0.12.1 opencv-python-headless==5.0.0.93 numpy==2.4.6
cat > check.py <<'PY'
import warnings

warnings.simplefilter("ignore")
import ale_py
import cv2
import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.wrappers import AtariPreprocessing

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
gym.register_envs(ale_py)
UP = 2


class Screens(gym.Wrapper):
    """Keeps the grey screens of the frames."""

    def step(self, action):
        result = self.env.step(action)
        self.seen.append(self.unwrapped.ale.getScreenGrayscale())
        return result

    def reset(self, **kwargs):
        result = self.env.reset(**kwargs)
        self.seen = [self.unwrapped.ale.getScreenGrayscale()]
        return result

    def newest_two(self):
        return cv2.resize(np.maximum(*self.seen[-2:]), (84, 84), interpolation=cv2.INTER_AREA)


def episode(frames):
    """Steps, and of each step whether its observation is that of the step before, and whether it is of the newest two frames."""
    game = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0, max_num_frames_per_episode=frames)
    screens = Screens(game)
    env = AtariPreprocessing(screens, noop_max=0)
    before, _ = env.reset(seed=0)
    again, newest = [], []
    while True:
        obs, _, terminated, truncated, _ = env.step(UP)
        again.append(np.array_equal(obs, before))
        newest.append(np.array_equal(obs, screens.newest_two()))
        before = obs
        if terminated or truncated:
            assert truncated and not terminated
            return len(again), again, newest


lines = []
for frames in 402, 400:
    steps, again, newest = episode(frames)
    lines.append(f"{frames} frames: truncated in step {steps}; the step before again: {again[-1]}; newest two frames: {newest[-1]}")
_, _, newest = episode(402)
lines.append(f"steps before that with the newest two frames: {sum(newest[:-1])} of {len(newest) - 1}")
env = AtariVectorEnv("pong", 1, max_num_frames_per_episode=402, noop_max=0, use_fire_reset=False)
obs, _ = env.reset(seed=0)
truncated, steps = [False], 0
while not truncated[0]:
    before, steps = obs[0, -1].copy(), steps + 1
    obs, _, _, truncated, _ = env.step(np.array([UP]))
lines.append(f"AtariVectorEnv, 402 frames: truncated in step {steps}; the step before again: {np.array_equal(obs[0, -1], before)}")
print("\n".join(lines))
assert lines == [
    "402 frames: truncated in step 101; the step before again: True; newest two frames: False",
    "400 frames: truncated in step 100; the step before again: False; newest two frames: False",
    "steps before that with the newest two frames: 100 of 100",
    "AtariVectorEnv, 402 frames: truncated in step 101; the step before again: True",
]
PY
venv/bin/python check.py
