#!/usr/bin/env bash
# gymnasium 1.4.0: NormalizeReward does not begin its discounted return anew with each episode. It divides the rewards
# by the deviation of a running discounted return, so that this return has about variance 1. The flag of a termination,
# though, clears the return in the step that ends the episode, before the last reward is added, and not after it. The
# return of the last step holds the last reward alone, and the next episode begins with it. A truncation clears nothing,
# and so does reset(): the return runs on through all episodes. A task that pays at its end only, as many sparse ones
# do, so shows a nearly constant return, a variance that is far too small, and rewards that are far too large; cut by
# truncation, far too small ones. The vector wrapper of the same name has this, too, in the default autoreset mode. In
# the mode SAME_STEP it has not: there each episode begins with 0. So one task with the same rewards is learned from
# rewards of three sizes. Below, episodes of 10 steps pay 1 in the last step. The returns by the equation are nine times
# 0, then 1: variance 0.09.
#
# Output seen (gymnasium 1.4.0, numpy 2.4.6, discount 0.99):
#   returns of steps 9 to 13 by the equation, one env, terminated: 0.00 1.00 0.00 0.00 0.00
#   returns of steps 9 to 13 in the wrapper, one env, terminated: 0.00 1.00 0.99 0.98 0.97
#   terminated, one env: variance 0.009, the last reward of 1 becomes 10.59
#   terminated, vector, NEXT_STEP: variance 0.009, the last reward of 1 becomes 10.59
#   terminated, vector, SAME_STEP: variance 0.090, the last reward of 1 becomes 3.33
#   truncated, one env: variance 4.390, the last reward of 1 becomes 0.48
#   truncated, vector, NEXT_STEP: variance 4.390, the last reward of 1 becomes 0.48
#   truncated, vector, SAME_STEP: variance 0.090, the last reward of 1 becomes 3.33
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python gymnasium==1.4.0 numpy==2.4.6
cat > check.py <<'PY'
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeReward as Single
from gymnasium.wrappers.vector import NormalizeReward as Vector

LENGTH, EPISODES = 10, 100


class PaysLast(gym.Env):
    """Pays 1 in the last of its steps."""

    observation_space = action_space = Discrete(2)

    def __init__(self, end):
        self.end = end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action):
        self.steps += 1
        ends = self.steps == LENGTH
        return 0, float(ends), ends and self.end == "terminated", ends and self.end == "truncated", {}


def single(end):
    env, returns = Single(PaysLast(end), gamma=0.99), []
    for _ in range(EPISODES):
        env.reset()
        for _ in range(LENGTH):
            reward = env.step(0)[1]
            returns.append(env.discounted_reward.item())
    return env.return_rms.var, reward, returns


def vector(end, mode):
    env, ends = Vector(SyncVectorEnv([lambda: PaysLast(end)], autoreset_mode=mode), gamma=0.99), 0
    env.reset()
    while ends < EPISODES:
        _, rewards, terminated, truncated, _ = env.step(np.array([0]))
        ends += terminated[0] or truncated[0]
    return env.return_rms.var, rewards[0]


def line(name, variance, reward):
    return f"{name}: variance {variance:.3f}, the last reward of 1 becomes {reward:.2f}"


right = [float(t % LENGTH == LENGTH - 1) for t in range(LENGTH * EPISODES)]
assert abs(np.var(right) - 0.09) < 1e-9
steps = "returns of steps 9 to 13"
lines = [f"{steps} by the equation, one env, terminated: " + " ".join(f"{value:.2f}" for value in right[8:13])]
seen = single("terminated")[2]
lines.append(f"{steps} in the wrapper, one env, terminated: " + " ".join(f"{value:.2f}" for value in seen[8:13]))
for end in "terminated", "truncated":
    lines.append(line(f"{end}, one env", *single(end)[:2]))
    for mode in AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP:
        lines.append(line(f"{end}, vector, {mode.name}", *vector(end, mode)))
print("\n".join(lines))
assert lines == [
    "returns of steps 9 to 13 by the equation, one env, terminated: 0.00 1.00 0.00 0.00 0.00",
    "returns of steps 9 to 13 in the wrapper, one env, terminated: 0.00 1.00 0.99 0.98 0.97",
    "terminated, one env: variance 0.009, the last reward of 1 becomes 10.59",
    "terminated, vector, NEXT_STEP: variance 0.009, the last reward of 1 becomes 10.59",
    "terminated, vector, SAME_STEP: variance 0.090, the last reward of 1 becomes 3.33",
    "truncated, one env: variance 4.390, the last reward of 1 becomes 0.48",
    "truncated, vector, NEXT_STEP: variance 4.390, the last reward of 1 becomes 0.48",
    "truncated, vector, SAME_STEP: variance 0.090, the last reward of 1 becomes 3.33",
]
PY
venv/bin/python check.py
