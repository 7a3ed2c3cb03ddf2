"""What gymnasium's eleven MuJoCo tasks (version 5) show and reward, for N simulations at a time.

Each is checked against gymnasium's env step by step. The weights, ranges and switches are read off such an env, so any
argument that it takes counts here too. Equations: the `Rewards` section of each env's page at gymnasium.farama.org.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Fields = dict[str, Reals]
"""By the name of mjData, [N, ...]: qpos, qvel, ctrl, and the task's `needs`."""


class Task:
    """One task, with the arguments and the model of one of gymnasium's envs."""

    needs: tuple[str, ...] = ()
    """Further fields of mjData that it looks at."""
    forces = False
    """Whether it looks at contact forces: they are only computed on demand."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self._bodies: dict[str | int, int] = {}

    def place(self, s: Fields) -> Reals:
        """[N] whatever the velocity is the change of, before and after a step; may be of any fields."""
        return np.zeros(len(s["qpos"]))

    def obs(self, s: Fields) -> list[Reals]:
        """Parts [N, k] that make up the observation."""
        raise NotImplementedError

    def reward(self, s: Fields, velocity: Reals, action: NDArray[np.float32], ok: NDArray[np.bool_]) -> Reals:
        """[N].

        Args:
            s: after the step.
            velocity: [N] change of place, per second.
            action: [N, dim] as the env takes it.
            ok: what `healthy` gave.
        """
        raise NotImplementedError

    def healthy(self, s: Fields) -> NDArray[np.bool_]:
        """[N] whether the body is in the range for which there is a bonus."""
        return np.ones(len(s["qpos"]), np.bool_)

    def terminated(self, ok: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[N] whether the episode is over."""
        return ~ok & getattr(self.env, "_terminate_when_unhealthy", True)

    def arg(self, name: str) -> Any:
        """An argument that the env was made with."""
        return getattr(self.env, f"_{name}")

    def within(self, x: Reals, name: str) -> NDArray[np.bool_]:
        """Whether numbers are inside the range that an argument states."""
        low, high = self.arg(name)
        return (low < x) & (x < high)

    def body(self, name: str | int) -> int:
        """Number of a body of the model."""
        if name not in self._bodies:
            self._bodies[name] = int(self.env.data.body(name).id)
        return self._bodies[name]

    def ctrl_cost(self, action: NDArray[Any]) -> Any:
        """[N] weighted sum of squares."""
        return self.arg("ctrl_cost_weight") * _squares(action)


def _squares(rows: NDArray[Any]) -> Any:
    """[N] sum of squares of all but the first axis."""
    return np.add.reduce(np.square(rows).reshape(len(rows), -1), 1)


def _finite(s: Fields) -> NDArray[np.bool_]:
    """[N]"""
    state = np.concatenate([s["qpos"], s["qvel"]], axis=1)
    return np.logical_and.reduce(np.isfinite(state), axis=1)


def _norm(rows: Reals) -> Reals:
    # row by row: numpy's own sum over an axis rounds another way than the dot product in gymnasium's norm
    return np.sqrt(np.array([row.dot(row) for row in rows]))


class Runner(Task):
    """A body that is to run along x: forward velocity, a bonus for being healthy, a cost of control.

    hidden: leading positions that are not shown, as they don't matter to what is to be done.
    """

    hidden = 1
    clip_velocity = False
    bonus = True

    def place(self, s: Fields) -> Reals:
        """X of the root."""
        return s["qpos"][:, 0].copy()

    def obs(self, s: Fields) -> list[Reals]:
        """Positions and velocities."""
        hidden = self.hidden if self.arg("exclude_current_positions_from_observation") else 0
        qvel = np.minimum(np.maximum(s["qvel"], -10), 10) if self.clip_velocity else s["qvel"]
        return [s["qpos"][:, hidden:], qvel]

    def reward(self, s: Fields, velocity: Reals, action: NDArray[np.float32], ok: NDArray[np.bool_]) -> Reals:
        """Forward velocity + bonus - cost."""
        reward = self.arg("forward_reward_weight") * velocity
        if self.bonus:
            reward = reward + ok * self.arg("healthy_reward")
        return reward - self.costs(s, action)

    def costs(self, s: Fields, action: NDArray[np.float32]) -> Any:
        """[N]."""
        return self.ctrl_cost(action)

    def upright(self, s: Fields) -> NDArray[np.bool_]:
        """[N] of a body in a plane: height and angle in their ranges."""
        return self.within(s["qpos"][:, 1], "healthy_z_range") & self.within(s["qpos"][:, 2], "healthy_angle_range")


class HalfCheetah(Runner):
    """HalfCheetah-v5."""

    bonus = False


class Swimmer(Runner):
    """Swimmer-v5."""

    hidden = 2
    bonus = False


class Hopper(Runner):
    """Hopper-v5."""

    clip_velocity = True

    def healthy(self, s: Fields) -> NDArray[np.bool_]:
        """Height, angle and all further state in their ranges."""
        state = np.concatenate([s["qpos"][:, 2:], s["qvel"]], axis=1)
        return self.upright(s) & self.within(state, "healthy_state_range").all(1)


class Walker2d(Runner):
    """Walker2d-v5."""

    clip_velocity = True
    healthy = Runner.upright


class Ant(Runner):
    """Ant-v5: contact forces are shown, and cost."""

    hidden = 2
    needs = ("xpos", "cfrc_ext")
    forces = True

    def place(self, s: Fields) -> Reals:
        """X of the torso."""
        return s["xpos"][:, self.body(self.arg("main_body")), 0].copy()

    def obs(self, s: Fields) -> list[Reals]:
        """Positions, velocities, contact forces."""
        parts = super().obs(s)
        if self.arg("include_cfrc_ext_in_observation"):
            parts.append(self._contact(s)[:, 1:].reshape(len(s["qpos"]), -1))
        return parts

    def costs(self, s: Fields, action: NDArray[np.float32]) -> Any:
        """Of control and of contact."""
        return self.ctrl_cost(action) + self.arg("contact_cost_weight") * _squares(self._contact(s))

    def healthy(self, s: Fields) -> NDArray[np.bool_]:
        """Finite, and the height in its range."""
        low, high = self.arg("healthy_z_range")
        z = s["qpos"][:, 2]
        return _finite(s) & (low <= z) & (z <= high)

    def _contact(self, s: Fields) -> Reals:
        low, high = self.arg("contact_force_range")
        return np.clip(s["cfrc_ext"], low, high)


class _HumanoidObs(Task):
    """What both humanoid tasks show."""

    needs: tuple[str, ...] = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    forces = True

    def obs(self, s: Fields) -> list[Reals]:
        """Positions, velocities, inertias and velocities of the bodies, forces of the actuators and from outside."""
        n, hidden = len(s["qpos"]), 2 if self.arg("exclude_current_positions_from_observation") else 0
        parts = [s["qpos"][:, hidden:], s["qvel"]]
        # the root is moved by six joints without actuators; body 0 is the world
        for name, first in (("cinert", 1), ("cvel", 1), ("qfrc_actuator", 6), ("cfrc_ext", 1)):
            if self.arg(f"include_{name}_in_observation") is True:
                parts.append(s[name][:, first:].reshape(n, -1))
        return parts

    def impact_cost(self, s: Fields, kind: str) -> Reals:
        """[N] weighted squares of the forces from outside, in a range."""
        low, high = self.arg(f"{kind}_cost_range")
        return np.clip(self.arg(f"{kind}_cost_weight") * _squares(s["cfrc_ext"]), low, high)


class Humanoid(_HumanoidObs, Runner):
    """Humanoid-v5."""

    needs = (*_HumanoidObs.needs, "xipos")

    def place(self, s: Fields) -> Reals:
        """X of the centre of mass."""
        mass = self.env.model.body_mass
        return np.einsum("b,nbj->nj", mass, s["xipos"])[:, 0] / mass.sum()

    def costs(self, s: Fields, action: NDArray[np.float32]) -> Any:
        """Of control and of contact."""
        return self.ctrl_cost(s["ctrl"]) + self.impact_cost(s, "contact")

    def healthy(self, s: Fields) -> NDArray[np.bool_]:
        """The height in its range."""
        return self.within(s["qpos"][:, 2], "healthy_z_range")


class HumanoidStandup(_HumanoidObs):
    """HumanoidStandup-v5."""

    def reward(self, s: Fields, velocity: Reals, action: NDArray[np.float32], ok: NDArray[np.bool_]) -> Reals:
        """Height of the root - costs of control and impact + 1."""
        up = s["qpos"][:, 2] / self.env.model.opt.timestep
        return up - self.ctrl_cost(s["ctrl"]) - self.impact_cost(s, "impact") + 1


class InvertedPendulum(Task):
    """InvertedPendulum-v5: 1 a step until the pole leans too far."""

    def obs(self, s: Fields) -> list[Reals]:
        """Positions and velocities."""
        return [s["qpos"], s["qvel"]]

    def healthy(self, s: Fields) -> NDArray[np.bool_]:
        """Finite, and nearly upright."""
        return _finite(s) & ~(np.abs(s["qpos"][:, 1]) > 0.2)

    def reward(self, s: Fields, velocity: Reals, action: NDArray[np.float32], ok: NDArray[np.bool_]) -> Reals:
        """1 while healthy."""
        return ok.astype(np.float64)


class InvertedDoublePendulum(Task):
    """InvertedDoublePendulum-v5: a bonus, less the squares of how far the tip is from its place and how fast."""

    needs = ("site_xpos", "qfrc_constraint")

    def obs(self, s: Fields) -> list[Reals]:
        """Place of the cart, sines and cosines of the angles, velocities, the force that keeps the cart on its rail."""
        angles = s["qpos"][:, 1:]
        velocities, force = np.clip(s["qvel"], -10, 10), np.clip(s["qfrc_constraint"], -10, 10)[:, :1]
        return [s["qpos"][:, :1], np.sin(angles), np.cos(angles), velocities, force]

    def healthy(self, s: Fields) -> NDArray[np.bool_]:
        """The tip is above 1."""
        return ~(s["site_xpos"][:, 0, 2] <= 1)

    def reward(self, s: Fields, velocity: Reals, action: NDArray[np.float32], ok: NDArray[np.bool_]) -> Reals:
        """Bonus - distance - speed."""
        x, y, v1, v2 = s["site_xpos"][:, 0, 0], s["site_xpos"][:, 0, 2], s["qvel"][:, 1], s["qvel"][:, 2]
        distance = 0.01 * x**2 + (y - 2) ** 2
        speed = 1e-3 * v1**2 + 5e-3 * v2**2
        return self.arg("healthy_reward") * ok - distance - speed


class Reacher(Task):
    """Reacher-v5: the fingertip is to come near the target."""

    needs = ("xpos",)

    def obs(self, s: Fields) -> list[Reals]:
        """Cosines and sines of the joints, the target, velocities, the vector between fingertip and target."""
        theta, qpos = s["qpos"][:, :2], s["qpos"]
        return [np.cos(theta), np.sin(theta), qpos[:, 2:], s["qvel"][:, :2], self._gap(s)[:, :2]]

    def reward(self, s: Fields, velocity: Reals, action: NDArray[np.float32], ok: NDArray[np.bool_]) -> Reals:
        """Less the distance and the cost of control."""
        control = -_squares(action) * self.arg("reward_control_weight")
        return -_norm(self._gap(s)) * self.arg("reward_dist_weight") + control

    def _gap(self, s: Fields) -> Reals:
        return s["xpos"][:, self.body("fingertip")] - s["xpos"][:, self.body("target")]


class Pusher(Task):
    """Pusher-v5: the arm is to push the object to the goal."""

    needs = ("xpos",)

    def obs(self, s: Fields) -> list[Reals]:
        """Joints and their velocities; where the tip, the object and the goal are."""
        places = [s["xpos"][:, self.body(name)] for name in ("tips_arm", "object", "goal")]
        return [s["qpos"][:, :7], s["qvel"][:, :7], *places]

    def reward(self, s: Fields, velocity: Reals, action: NDArray[np.float32], ok: NDArray[np.bool_]) -> Reals:
        """Less the distances object to goal and tip to object, and the cost of control."""
        tip, thing, goal = (s["xpos"][:, self.body(name)] for name in ("tips_arm", "object", "goal"))
        near = -_norm(thing - tip) * self.arg("reward_near_weight")
        far = -_norm(thing - goal) * self.arg("reward_dist_weight")
        control = -_squares(action) * self.arg("reward_control_weight")
        return far + control + near


_MODULE = "gymnasium.envs.mujoco"
TASKS: dict[str, Callable[[Any], Task]] = {
    f"{_MODULE}.ant_v5:AntEnv": Ant,
    f"{_MODULE}.half_cheetah_v5:HalfCheetahEnv": HalfCheetah,
    f"{_MODULE}.hopper_v5:HopperEnv": Hopper,
    f"{_MODULE}.humanoid_v5:HumanoidEnv": Humanoid,
    f"{_MODULE}.humanoidstandup_v5:HumanoidStandupEnv": HumanoidStandup,
    f"{_MODULE}.inverted_double_pendulum_v5:InvertedDoublePendulumEnv": InvertedDoublePendulum,
    f"{_MODULE}.inverted_pendulum_v5:InvertedPendulumEnv": InvertedPendulum,
    f"{_MODULE}.pusher_v5:PusherEnv": Pusher,
    f"{_MODULE}.reacher_v5:ReacherEnv": Reacher,
    f"{_MODULE}.swimmer_v5:SwimmerEnv": Swimmer,
    f"{_MODULE}.walker2d_v5:Walker2dEnv": Walker2d,
}
"""By what registers the env."""
