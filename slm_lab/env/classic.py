"""The classic control problems as tensor envs: gymnasium's ids, numbers and first states."""

import math

import torch
from torch import Tensor

from slm_lab.env.tensor import TensorEnv, tensor_env
from slm_lab.functional import dynamics
from slm_lab.types import Continuous, Discrete


def _between(noise: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * noise


@tensor_env("CartPole-v1", max_t=500)
class CartPole(TensorEnv):
    """A pole on a cart, pushed left (0) or right (1); 1 a step until it falls, or the cart leaves the track."""

    action, obs_shape, init_noise = Discrete(2), (4,), 4

    def init(self, noise: Tensor) -> Tensor:
        """Nearly upright, nearly at rest."""
        return _between(noise, -0.05, 0.05)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See TensorEnv."""
        state = dynamics.cartpole(state, action)
        x, _, theta, _ = state.unbind(-1)
        fell = (x.abs() > 2.4) | (theta.abs() > 12 * 2 * math.pi / 360)
        return state, self.observe(state), torch.ones_like(x), fell


@tensor_env("Pendulum-v1", max_t=200)
class Pendulum(TensorEnv):
    """A rod to be swung up and held; costs of the angle from upright, of speed and torque."""

    action, obs_shape, init_noise = Continuous(1, (-2.0,), (2.0,)), (3,), 2

    def __init__(self, g: float = 10.0) -> None:
        self.g = float(g)

    def init(self, noise: Tensor) -> Tensor:
        """Any angle, speeds up to 1."""
        return torch.stack([_between(noise[:, 0], -math.pi, math.pi), _between(noise[:, 1], -1.0, 1.0)], -1)

    def observe(self, state: Tensor) -> Tensor:
        """Cosine and sine of the angle, speed."""
        theta, speed = state.unbind(-1)
        return torch.stack([theta.cos(), theta.sin(), speed], -1).float()

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See TensorEnv."""
        theta, speed = state.unbind(-1)
        torque = action[:, 0].clamp(-2.0, 2.0)
        cost = dynamics.angle(theta) ** 2 + 0.1 * speed**2 + 0.001 * (torque**2).double()
        state = dynamics.pendulum(state, torque, self.g)
        return state, self.observe(state), -cost, torch.zeros_like(theta) > 0


@tensor_env("Acrobot-v1", max_t=500)
class Acrobot(TensorEnv):
    """Two links, of which the free end is to be swung above the bar; -1 a step until it is."""

    action, obs_shape, init_noise = Discrete(3), (6,), 4

    def init(self, noise: Tensor) -> Tensor:
        """Nearly hanging down, nearly at rest."""
        return _between(noise, -0.1, 0.1).float().double()

    def observe(self, state: Tensor) -> Tensor:
        """Cosine and sine of both angles, both speeds."""
        theta1, theta2, speed1, speed2 = state.unbind(-1)
        return torch.stack([theta1.cos(), theta1.sin(), theta2.cos(), theta2.sin(), speed1, speed2], -1).float()

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See TensorEnv."""
        state = dynamics.acrobot(state, action.double() - 1.0)
        theta1, theta2, _, _ = state.unbind(-1)
        above = -theta1.cos() - (theta2 + theta1).cos() > 1.0
        return state, self.observe(state), torch.where(above, torch.zeros_like(theta1), -torch.ones_like(theta1)), above


@tensor_env("MountainCar-v0", max_t=200)
class MountainCar(TensorEnv):
    """A weak car that must swing to leave a valley: left (0), nothing (1), right (2); -1 a step."""

    action, obs_shape, init_noise = Discrete(3), (2,), 1

    def __init__(self, goal_velocity: float = 0) -> None:
        self.goal_velocity = float(goal_velocity)

    def init(self, noise: Tensor) -> Tensor:
        """At rest near the bottom."""
        return torch.stack([_between(noise[:, 0], -0.6, -0.4), torch.zeros_like(noise[:, 0])], -1)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See TensorEnv."""
        state = dynamics.mountain_car(state, (action.double() - 1.0) * 0.001)
        x, v = state.unbind(-1)
        return state, self.observe(state), -torch.ones_like(x), (x >= 0.5) & (v >= self.goal_velocity)


@tensor_env("MountainCarContinuous-v0", max_t=999)
class MountainCarContinuous(TensorEnv):
    """The same with an engine of any force up to its limit; 100 for the goal, less what the force cost."""

    action, obs_shape, init_noise = Continuous(1, (-1.0,), (1.0,)), (2,), 1

    def __init__(self, goal_velocity: float = 0) -> None:
        self.goal_velocity = float(goal_velocity)

    def init(self, noise: Tensor) -> Tensor:
        """At rest near the bottom."""
        return torch.stack([_between(noise[:, 0], -0.6, -0.4), torch.zeros_like(noise[:, 0])], -1).float()

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See TensorEnv."""
        force = action[:, 0].clamp(-1.0, 1.0)
        # the state is a float32 in gymnasium
        state = dynamics.mountain_car(state, force * 0.0015)
        x, v = state.unbind(-1)
        there = (x >= 0.45) & (v >= self.goal_velocity)
        reward = there.double() * 100.0 - (action[:, 0] ** 2 * 0.1).double()
        return state, self.observe(state), reward, there
