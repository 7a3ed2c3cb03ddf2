"""Some gymnasium envs and how they are stepped: one after the other or in threads. `workers` does it elsewhere."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from slm_lab.env.actions import map_actions
from slm_lab.env.observations import map_obs
from slm_lab.env.outfit import VectorReward
from slm_lab.env.parts import ALL, Seen
from slm_lab.env.snapshot import Seeded
from slm_lab.env.threads import Threads
from slm_lab.lib.errors import LabError, one_line
from slm_lab.types import Array, Bools

Make = Callable[[int], gym.Env[Any, Any]]
"""Makes env i."""
Spaces = tuple[gym.Space[Any], gym.Space[Any]]
"""Of actions, and of observations."""


def picture(name: str, render: Callable[[], Any]) -> NDArray[np.uint8] | None:
    """What an env shows.

    Raises:
        LabError: it can't: what its libraries raise where there is no screen is for them to choose.
    """
    try:
        frame = render()
    except Exception as e:
        why = one_line(e)
        raise LabError(f"env: can't render {name}: {why}{display_hint(why)}") from e
    return None if frame is None else np.asarray(frame)


class OldStep(LabError):
    """What an env's step gave is not what gymnasium asks for."""

    def __init__(self, name: str, told: Any) -> None:
        got = len(told) if isinstance(told, tuple | list) else told if told is None else type(told).__name__
        super().__init__(
            f"env: step of {name} must give 5 values, as gymnasium asks: observation, reward, terminated, truncated, "
            f"info (got {got}): is it made for an older gym?"
        )

    @staticmethod
    def fits(told: Any) -> bool:
        """Whether it is what gymnasium asks for."""
        return isinstance(told, tuple | list) and len(told) == 5


def no_display() -> bool:
    """Whether this machine has no display that a window could open on."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return sys.platform.startswith("linux") and not any(os.environ.get(name) for name in names)


def display_hint(error: str) -> str:
    """What helps where an error is about drawing on a machine without a display."""
    about = re.search(r"\bgl(fw|ew|x|ad)|opengl|\begl\b|\bdisplay\b|\bx11\b", error, re.IGNORECASE)
    return " (on a machine without a display, set MUJOCO_GL=egl or osmesa)" if about else ""


def make_all(make: Make, which: Iterable[int]) -> list[gym.Env[Any, Any]]:
    """Make some envs; where one can't be made, those made before it are closed."""
    made: list[gym.Env[Any, Any]] = []
    try:
        for i in which:
            made.append(make(i))  # noqa: PERF401  what was made must be known where the next one fails
    except BaseException:
        close_all(made)
        raise
    return made


def close_all(envs: Iterable[gym.Env[Any, Any]]) -> None:
    """Close some envs."""
    for env in envs:
        env.close()


class LocalRows:
    """K gymnasium envs of this process, as rows of arrays: they count nothing and begin an episode only when asked.

    Args:
        name: id, for messages.
        envs: all alike.
        threads: that step them; more than one pays where the env releases Python's lock.
        seen: what is to be seen of their observations.
        spaces: of actions and observations; None: those of the first env.

    Raises:
        LabError: spaces the lab can't deal with; the envs are closed then.
    """

    def __init__(
        self,
        name: str,
        envs: Sequence[gym.Env[Any, Any]],
        threads: int = 1,
        seen: Seen = ALL,
        spaces: Spaces | None = None,
    ) -> None:
        self.name = name
        self._envs = list(envs)
        self.action_space, self.observation_space = spaces or (envs[0].action_space, envs[0].observation_space)
        try:
            self.actions = map_actions(self.action_space, name)
            self.observations = map_obs(self.observation_space, name, seen)
        except LabError:
            close_all(self._envs)
            raise
        self._write = None if self.observations.plain else self.observations.write
        self._seeded = [Seeded(env) for env in envs]
        self._steps = [env.step for env in envs]
        self._threads = Threads(max(1, min(threads, len(self._envs))))

    def begin(self, which: Sequence[int], seeds: Sequence[int], obs: Array) -> None:
        """Begin an episode of some, each from its seed; their first observations go to their rows of obs [K, *O]."""
        for i, seed in zip(which, seeds, strict=True):
            self.observations.write(obs[i, ...], self._seeded[i].begin(seed))

    def step(self, action: Array, obs: Array, gain: Array, terminated: Bools, truncated: Bools) -> None:
        """One step of each.

        Args:
            action: [K, *A] as the agent gives it.
            obs: [K, *O] gets what they show.
            gain: [K] f64 gets the rewards.
            terminated: [K] gets what they say of it.
            truncated: [K] likewise.
        """
        steps, decoded, write = self._steps, self.actions.each(action), self._write

        def one(i: int) -> None:
            told = steps[i](decoded[i])
            if not OldStep.fits(told):
                raise OldStep(self.name, told)
            if told[1] is None:
                self._number(None)  # which numpy would take for a NaN
            try:
                seen, gain[i], terminated[i], truncated[i], _ = told
            except (TypeError, ValueError):
                seen, _, terminated[i], truncated[i], _ = told
                gain[i] = self._number(told[1])
            if write is None:
                obs[i] = seen
            else:
                write(obs[i, ...], seen)

        self._threads.each(one, len(steps))

    def restore(self, seeds: Sequence[int], actions: Sequence[Array], obs: Array) -> list[float]:
        """Begin an episode of each from its seed and take its actions [age, *A]; gives their returns."""
        returns = []
        for i, seeded in enumerate(self._seeded):
            seen, ret = seeded.begin(seeds[i]), 0.0
            for one in self.actions.each(actions[i]):
                seen, gain, *_ = self._steps[i](one)
                ret += self._number(gain)
            self.observations.write(obs[i, ...], seen)
            returns.append(ret)
        return returns

    def _number(self, reward: Any) -> float:
        """A reward as a number; some envs give an array of one."""
        numbers = np.asarray(reward)
        if numbers.size != 1:
            raise VectorReward(self.name, numbers.size)
        try:
            return float(numbers.item())
        except (TypeError, ValueError):
            raise LabError(f"env: step of {self.name} must give a number as its reward (got {reward!r:.80})") from None

    def render(self) -> NDArray[np.uint8] | None:
        """An RGB frame of the first env, if it was made for that."""
        env = self._envs[0]
        if env.render_mode != "rgb_array":
            return None
        return picture(self.name, env.render)

    def close(self) -> None:
        """Close them. Calling it twice is harmless."""
        self._threads.close()
        close_all(self._envs)
