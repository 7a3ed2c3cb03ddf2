#!/usr/bin/env bash
# gymnax 1.0.1: in MountainCarContinuous-v0 the wall on the left does not stop the car. gymnax calls it an
# implementation of the env of that name in gym. There a car that meets the wall loses its speed; the documentation
# speaks of inelastic collisions at either end. Here the rule that sets the speed to 0 looks at the goal on the right in
# place of the wall, where it can do nothing. The position is cut at the wall, and the speed stays. The car sticks to
# the wall while the engine works off the speed, ten steps and more. The simplest good policy, full power in the
# direction of motion, needs up to 80 steps longer for the top, at a cost of 0.1 each; returns are not comparable with
# those of gymnasium. MountainCar-v0, the discrete one, is as in gymnasium. (gymnax imports six, too, and does not
# declare it.)
#
# Output seen (gymnax 1.0.1, jax 0.10.2, gymnasium 1.3.0, numpy 2.4.6):
#   MountainCarContinuous-v0, gymnasium: speed after the wall 0.000, steps at the wall 1, steps to the top 111
#   MountainCarContinuous-v0, gymnax: speed after the wall -0.056, steps at the wall 16, steps to the top 193
#   MountainCar-v0, gymnasium: speed after the wall 0.000, steps at the wall 1, steps to the top 113
#   MountainCar-v0, gymnax: speed after the wall 0.000, steps at the wall 1, steps to the top 113
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python \
  gymnax==1.0.1 jax==0.10.2 jaxlib==0.10.2 gymnasium==1.3.0 numpy==2.4.6 six==1.17.0
cat > check.py <<'PY'
import gymnasium as gym
import gymnax
import jax
import jax.numpy as jnp
import numpy as np

WALL = -1.2


class Gymnasium:
    def __init__(self, name):
        self.env = gym.make(name).unwrapped
        self.env.reset(seed=0)

    def put(self, position, speed):
        self.env.state = np.array([position, speed], np.float32)

    def step(self, action):
        observation, _, terminated, *_ = self.env.step(action)
        return *map(float, observation), bool(terminated)


class Gymnax:
    def __init__(self, name):
        self.env, self.params = gymnax.make(name)
        self.key = jax.random.key(0)
        self.jitted = jax.jit(self.env.step_env)
        _, self.state = self.env.reset(self.key, self.params)

    def put(self, position, speed):
        self.state = self.state.replace(position=jnp.float32(position), velocity=jnp.float32(speed))

    def step(self, action):
        observation, self.state, _, terminated, _ = self.jitted(self.key, self.state, action, self.params)
        return *map(float, observation), bool(terminated)


def drive(car, name, position, speed):
    """Full power in the direction of motion until the top; position and speed after each step."""
    car.put(position, speed)
    course, top = [], False
    while not top:
        right = speed >= 0
        action = np.array([1.0 if right else -1.0], np.float32) if "Continuous" in name else np.int32(2 * right)
        position, speed, top = car.step(action)
        course.append((position, speed))
        assert len(course) < 500
    return course


def push_off(car, name):
    """Runs into the wall, then full power to the right; the speed after the wall and the steps at it."""
    car.put(-1.15, -0.06)
    action, speeds = np.array([1.0], np.float32) if "Continuous" in name else np.int32(2), []
    while True:
        position, speed, _ = car.step(action)
        if position > WALL + 1e-4:
            return speeds[0], len(speeds)
        speeds.append(speed)


lines = []
for name in "MountainCarContinuous-v0", "MountainCar-v0":
    for kind in Gymnasium, Gymnax:
        car = kind(name)
        speed, steps = push_off(car, name)
        top = len(drive(car, name, -0.6, 0.0))
        lines.append(f"{name}, {kind.__name__.lower()}: speed after the wall {speed + 0.0:.3f}, "
                     f"steps at the wall {steps}, steps to the top {top}")
print("\n".join(lines))
assert lines == [
    "MountainCarContinuous-v0, gymnasium: speed after the wall 0.000, steps at the wall 1, steps to the top 111",
    "MountainCarContinuous-v0, gymnax: speed after the wall -0.056, steps at the wall 16, steps to the top 193",
    "MountainCar-v0, gymnasium: speed after the wall 0.000, steps at the wall 1, steps to the top 113",
    "MountainCar-v0, gymnax: speed after the wall 0.000, steps at the wall 1, steps to the top 113",
]
PY
venv/bin/python check.py
