"""Equations of motion of the classic control problems, one step of a batch: the numbers of gymnasium's envs.

States are float64, as differences of the last bit grow in systems that are unstable. Each function is one step of the
simulation; what is seen, earned and started with is the envs' to say.
"""

import math

import torch
from torch import Tensor


def cartpole(state: Tensor, action: Tensor) -> Tensor:
    """Euler's step over 0.02 s of a pole on a cart. Barto, Sutton, Anderson 1983.

    `temp = (force + m l theta_dot^2 sin) / M`, `theta_acc = (g sin - cos temp) / (l (4/3 - m cos^2 / M))`,
    `x_acc = temp - m l theta_acc cos / M`; masses 0.1 (pole) and 1.1 (both), half-length 0.5, force 10 to either side.

    Args:
        state: [N, 4] x (m), x_dot, theta (rad), theta_dot
        action: [N] int64, 0 left, 1 right

    Returns:
        [N, 4]

    >>> cartpole(torch.zeros(1, 4, dtype=torch.float64), torch.tensor([1])).float()
    tensor([[ 0.0000,  0.1951,  0.0000, -0.2927]])
    """
    x, x_dot, theta, theta_dot = state.unbind(-1)
    sin, cos = theta.sin(), theta.cos()
    force = torch.where(action == 1, torch.full_like(x, 10.0), torch.full_like(x, -10.0))
    temp = (force + 0.05 * (theta_dot * theta_dot) * sin) / 1.1
    theta_acc = (9.8 * sin - cos * temp) / (0.5 * (4.0 / 3.0 - 0.1 * (cos * cos) / 1.1))
    x_acc = temp - 0.05 * theta_acc * cos / 1.1
    moved = [x + 0.02 * x_dot, x_dot + 0.02 * x_acc, theta + 0.02 * theta_dot, theta_dot + 0.02 * theta_acc]
    return torch.stack(moved, -1)


def angle(theta: Tensor) -> Tensor:
    """The same angle in [-pi, pi).

    >>> angle(torch.tensor([3.5 * math.pi]))
    tensor([-1.5708])
    """
    return (theta + math.pi) % (2 * math.pi) - math.pi


def pendulum(state: Tensor, torque: Tensor, g: float = 10.0) -> Tensor:
    """A step over 0.05 s of a rod (length and mass 1) that swings about its end; theta 0 is upright.

    `theta_dot += (3 g / 2 sin theta + 3 u) dt`, at most 8; `theta += theta_dot dt`.

    Args:
        state: [N, 2] theta (rad), theta_dot (rad/s)
        torque: [N] float32 u, in N m
        g: acceleration of gravity

    Returns:
        [N, 2]

    >>> pendulum(torch.tensor([[math.pi / 2, 0.0]]).double(), torch.tensor([0.0])).float()
    tensor([[1.6083, 0.7500]])
    """
    theta, speed = state.unbind(-1)
    # the product with the torque is a float32 in gymnasium
    speed = speed + (3 * g / 2 * theta.sin() + (3.0 * torque).double()) * 0.05
    speed = speed.clamp(-8.0, 8.0)
    return torch.stack([theta + speed * 0.05, speed], -1)


def mountain_car(state: Tensor, push: Tensor, gravity: float = 0.0025) -> Tensor:
    """A step of a car in the valley `sin(3 x)`. Moore 1990; Sutton and Barto 2018, example 10.1.

    `v += push - gravity cos(3 x)`, at most 0.07; `x += v`, from -1.2 to 0.6, with a wall on the left.

    Args:
        state: [N, 2] position, speed
        push: [N] acceleration by the engine
        gravity: of the slope

    Returns:
        [N, 2]

    >>> mountain_car(torch.tensor([[-0.5, 0.0]]), torch.tensor([0.001]))
    tensor([[-0.4992,  0.0008]])
    """
    x, v = state.unbind(-1)
    slope = ((3 * x).double().cos() * -gravity).to(x.dtype)
    v = (v + (push + slope)).clamp(-0.07, 0.07)
    x = (x + v).clamp(-1.2, 0.6)
    low = torch.full_like(x, -1.2)
    return torch.stack([x, torch.where((x == low) & (v < 0), torch.zeros_like(v), v)], -1)


def acrobot(state: Tensor, torque: Tensor) -> Tensor:
    """A Runge-Kutta step over 0.2 s of two links with a motor between them. Sutton 1996; Sutton and Barto 1998, 11.3.

    Args:
        state: [N, 4] theta1 (rad, 0 hangs down), theta2 (rad, against the first link), their speeds
        torque: [N] at the second joint

    Returns:
        [N, 4], angles in [-pi, pi], speeds at most 4 pi and 9 pi

    >>> acrobot(torch.zeros(1, 4).double(), torch.zeros(1).double()).abs().max() < 1e-12
    tensor(True)
    """
    dt = 0.2
    k1 = _acrobot_change(state, torque)
    k2 = _acrobot_change(state + dt / 2.0 * k1, torque)
    k3 = _acrobot_change(state + dt / 2.0 * k2, torque)
    k4 = _acrobot_change(state + dt * k3, torque)
    moved = state + dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
    theta1, theta2, speed1, speed2 = moved.unbind(-1)
    turn = 2 * math.pi
    theta1, theta2 = (x - turn * ((x - math.pi) / turn).ceil() for x in (theta1, theta2))
    speed1, speed2 = speed1.clamp(-4 * math.pi, 4 * math.pi), speed2.clamp(-9 * math.pi, 9 * math.pi)
    return torch.stack([theta1, theta2, speed1, speed2], -1)


def _acrobot_change(state: Tensor, torque: Tensor) -> Tensor:
    """d state / dt, with links of length and mass 1, their centers in the middle, moments of inertia 1."""
    theta1, theta2, speed1, speed2 = state.unbind(-1)
    g = 9.8
    d1 = 0.25 + (1.0 + 0.25 + 2 * 0.5 * theta2.cos()) + 1.0 + 1.0
    d2 = (0.25 + 0.5 * theta2.cos()) + 1.0
    phi2 = 0.5 * g * (theta1 + theta2 - math.pi / 2.0).cos()
    phi1 = (
        -0.5 * speed2**2 * theta2.sin()
        - 2 * 0.5 * speed2 * speed1 * theta2.sin()
        + 1.5 * g * (theta1 - math.pi / 2).cos()
        + phi2
    )
    acc2 = (torque + d2 / d1 * phi1 - 0.5 * speed1**2 * theta2.sin() - phi2) / (0.25 + 1.0 - d2**2 / d1)
    acc1 = -(d2 * acc2 + phi1) / d1
    return torch.stack([speed1, speed2, acc1, acc2], -1)
