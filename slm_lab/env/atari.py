"""Atari games by ale-py's own vector env: preprocessed and stepped in its threads, outside of Python.

Every use sees the same pictures: 84x84 gray, the last 4, of every fourth frame the brighter pixels of its last two;
an episode begins after up to 30 no-ops and FIRE. `env` keys of the spec change that, see `ARGUMENTS`.
"""

from dataclasses import replace
from typing import Any

import ale_py
import numpy as np
from ale_py.roms import get_rom_path
from ale_py.vector_env import AtariVectorEnv
from loguru import logger
from numpy.typing import NDArray

from slm_lab.env.actions import map_actions
from slm_lab.env.base import VecEnv
from slm_lab.env.observations import ObsMap
from slm_lab.env.parts import BYTE, PartMap
from slm_lab.env.rows import picture
from slm_lab.env.snapshot import ActionLog, checksum, pack, unpack
from slm_lab.lib.cores import available_cores
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.types import EnvInfo, Step

ARGUMENTS: dict[str, tuple[type, float, float]] = {
    "repeat_action_probability": (float, 0, 1),
    "full_action_space": (bool, 0, 1),
    "frameskip": (int, 1, 1000),
    "stack_num": (int, 1, 1000),
    "img_height": (int, 1, 10_000),
    "img_width": (int, 1, 10_000),
    "grayscale": (bool, 0, 1),
    "maxpool": (bool, 0, 1),
    "noop_max": (int, 0, 10_000),
    "use_fire_reset": (bool, 0, 1),
    "life_loss_info": (bool, 0, 1),
    "continuous": (bool, 0, 1),
    "continuous_action_threshold": (float, 0, 1),
    "max_num_frames_per_episode": (int, 1, 2**30),
}
"""What a spec may say: kind, least and greatest value. `life_loss_info`: a lost life ends an episode for the agent that
learns (`Step.terminated`), but neither the game nor its score."""
RESEED = 20_000
"""Steps of an env after which its next game begins from a seed of its own. A game's inner state is out of reach, so it
is saved as what has been done since the last seed. Seeding takes as long as some hundred steps."""
NEVER = 2**30
"""Steps after which ALE's own limit would end a game: games are cut off here."""


def check_arguments(given: dict[str, Any]) -> list[str]:
    """What is wrong with the values, as lines `env.<key>: ...`: ALE itself hangs on some and ignores others."""
    faults = []
    for key, (kind, low, high) in ARGUMENTS.items():
        value: Any = given.get(key, kind(low))
        known = (int, float) if kind is float else (kind,)
        # True is no number here
        if type(value) not in known or not low <= value <= high:
            what = (
                "true or false" if kind is bool else f"{'a number' if kind is float else 'whole,'} from {low} to {high}"
            )
            faults.append(f"env.{key}: must be {what} (got {value!r})")
    return faults


class Atari(VecEnv):
    """N games. Rewards are the game's; `wrappers` clip them.

    Args:
        game: name of the ROM.
        max_t: steps after which an episode is truncated, if max_num_frames_per_episode does not say fewer.
        training: whether life_loss_info counts.
        threads: that step the games, at most; None: one a core.
        arguments: see ARGUMENTS.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        *,
        game: str,
        max_t: int,
        render: str | None = None,
        training: bool = True,
        threads: int | None = None,
        **arguments: Any,
    ) -> None:
        n = num_envs
        own_limit = max(1, arguments.pop("max_num_frames_per_episode", 108_000) // arguments.get("frameskip", 4))
        self._max_t = min(own_limit, max_t)
        self._heeds_lives = arguments.pop("life_loss_info", False) and training
        arguments |= {"reward_clipping": False, "max_num_frames_per_episode": NEVER}
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        workers = min(n, threads or available_cores())
        self._games: Any = AtariVectorEnv(game, n, num_threads=workers, **arguments)
        self.actions = map_actions(self._games.single_action_space, name)
        shape: tuple[int, ...] = self._games.single_observation_space.shape or ()
        part = PartMap("", (), shape, shape, BYTE, image=True)
        if len(shape) == 4:
            # colours [stack, H, W, 3] as [3 * stack, H, W], which nets can read
            part = replace(part, shape=(shape[0] * shape[3], *shape[1:3]), axes=(0, 3, 1, 2))
        shape = part.shape
        self.observations = ObsMap(shape, BYTE, (part,))
        self.info = EnvInfo(name, shape, "uint8", self.actions.space, n, self._max_t)
        self.obs = np.zeros((n, *shape), np.uint8)
        self._reward, self._returns = np.zeros(n, np.float32), np.zeros(n)
        self._lives = np.zeros(n, np.int32)
        self._seed = 0
        self._picture = _Picture(game, render, arguments) if render is not None else None
        self._forget()

    def _forget(self) -> None:
        n = self.info.num_envs
        self._log = ActionLog((n, *self.actions.shape), self.actions.dtype)
        """Actions since each env was seeded."""
        self._t = 0
        self._start = [0] * n
        """When each episode began, on the clock of _t."""
        self._seeds = [0] * n
        """How often each env was seeded."""

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        self._forget()
        self._seed = seed
        self._returns.fill(0)
        self._begin(list(range(self.info.num_envs)), anew=True)
        return self.obs

    def step(self, action: NDArray[Any]) -> Step:
        """See VecEnv."""
        action = np.asarray(action, self.actions.dtype)
        self._log.append(action)
        self._t += 1
        # ALE gives new arrays each time
        seen, gain, terminated, _, info = self._play(action)
        self.obs = self._image(seen)
        self._reward[...] = gain
        self._returns += gain
        lives, before = info["lives"], self._lives
        self._lives = lives
        late = self._t - min(self._start) >= self._max_t
        if late or 1 in terminated.tobytes():
            return self._end_episodes(terminated, before)
        if self._heeds_lives:
            terminated = lives < before
        return Step(self.obs, self._reward, terminated, np.zeros_like(terminated), self.obs, [], [])

    def _image(self, seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[N, ...] as the games show it -> [N, C, H, W]"""
        if self.observations.plain:
            return seen
        return self.observations.parts[0].turn(seen).reshape(len(seen), *self.info.obs_shape)

    def _play(self, action: NDArray[Any]) -> Any:
        decoded = self.actions.decode(action)
        if self._picture is not None:
            self._picture.step(decoded[:1])
        return self._games.step(decoded)

    def _end_episodes(self, terminated: NDArray[np.bool_], before: NDArray[np.int32]) -> Step:
        late = self._t - np.array(self._start) >= self._max_t
        ended = np.flatnonzero(terminated | late).tolist()
        final_obs = self.obs
        returns = [float(self._returns[i]) for i in ended]
        lengths = [self._t - self._start[i] for i in ended]
        if self._heeds_lives:
            terminated = terminated | (self._lives < before)
        self._returns[ended] = 0
        self._begin_next(ended)
        return Step(self.obs, self._reward, terminated, late & ~terminated, final_obs, returns, lengths)

    def _begin_next(self, ended: list[int]) -> None:
        """Begin the next games of envs, from seeds where it is time for that."""
        log = self._log
        due = [i for i in ended if log.end - log.begin[i] >= RESEED]
        if due:
            self._begin(due, anew=True)
        rest = [i for i in ended if i not in due]
        if rest:
            self._begin(rest, anew=False)

    def _begin(self, which: list[int], *, anew: bool) -> None:
        """Start games; `anew`: from the next seed of each env."""
        mask = np.zeros(self.info.num_envs, np.bool_)
        mask[which] = True
        seeds = None
        if anew:
            for i in which:
                self._seeds[i] += 1
                self._log.begin[i] = self._log.end
            # ALE takes a seed only from 1 on
            seeds = np.array([1 + derive(self._seed, i, self._seeds[i]) // 2 for i in which])
        seen, info = self._games.reset(seed=seeds, options={"reset_mask": mask})
        self.obs = self._image(seen)
        self._lives = info["lives"]
        for i in which:
            self._start[i] = self._t
        if self._picture is not None and 0 in which:
            self._picture.reset(None if seeds is None else seeds[:1])

    def state_dict(self) -> State:
        """See VecEnv."""
        n, log = self.info.num_envs, self._log
        # actions are few: a byte each, but for continuous ones
        kind = np.uint8 if self.actions.dtype.kind == "i" else self.actions.dtype
        return {
            **self._identity(),
            "seed": self._seed,
            "seeds": list(self._seeds),
            "actions": [pack(log.actions(i).astype(kind)) for i in range(n)],
            "check": checksum(self._returns, self.obs),
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv. Plays again what was played since the last seed of each env."""
        self._check_state(state)
        actions = [unpack(a).astype(self.actions.dtype) for a in state["actions"]]
        ages = [len(a) for a in actions]
        end = max(ages)
        if sum(ages) > RESEED:
            logger.info("env: playing {} steps again, to continue {} where it was", sum(ages), self.info.name)
        # some games can only begin when all have begun once
        self.reset(state["seed"])
        # all end together: who has less to do begins later, and does nothing before
        moves = np.zeros((end, self.info.num_envs, *self.actions.shape), self.actions.dtype)
        for i, played in enumerate(actions):
            moves[end - ages[i] :, i] = played
        for t in range(end + 1):
            which = [i for i, age in enumerate(ages) if end - age == t]
            if which:
                self._t = t
                self._returns[which] = 0
                for i in which:
                    self._seeds[i] = state["seeds"][i] - 1
                self._begin(which, anew=True)
            if t < end:
                self._repeat(moves[t], [i for i, age in enumerate(ages) if end - age <= t])
        self._log.set_actions(actions)
        if checksum(self._returns, self.obs) != state["check"]:
            logger.warning("env: {} took another course when it was played again: another version?", self.info.name)

    def _repeat(self, action: NDArray[Any], alive: list[int]) -> None:
        """A step of those whose history is being played again: `step` without what it reports."""
        self._t += 1
        seen, gain, terminated, _, info = self._play(action)
        self.obs = self._image(seen)
        self._lives = info["lives"]
        self._returns += gain
        ended = [i for i in alive if terminated[i] or self._t - self._start[i] >= self._max_t]
        if ended:
            self._returns[ended] = 0
            self._begin(ended, anew=False)

    def render(self) -> NDArray[np.uint8] | None:
        """See VecEnv."""
        return None if self._picture is None else picture(self.info.name, self._picture.show)

    def close(self) -> None:
        """See VecEnv."""
        if self._picture is not None:
            self._picture.close()
        # its threads end with it; there is no other way to stop them
        self._games = None


class _Picture:
    """A twin of env 0 that plays the same game in colour and full size; the vector env shows what is learned from."""

    def __init__(self, game: str, render: str, arguments: dict[str, Any]) -> None:
        screen: Any = ale_py.ALEInterface()
        screen.loadROM(get_rom_path(game))
        height, width = screen.getScreenDims()
        arguments = {**arguments, "grayscale": False, "stack_num": 1, "img_height": height, "img_width": width}
        self._game = AtariVectorEnv(game, 1, num_threads=1, **arguments)
        self._frame = np.zeros((height, width, 3), np.uint8)
        self._window = _Window(game, width, height) if render == "human" else None

    def reset(self, seeds: NDArray[Any] | None) -> None:
        self._look(self._game.reset(seed=seeds)[0])

    def step(self, action: NDArray[Any]) -> None:
        self._look(self._game.step(action)[0])

    def _look(self, obs: NDArray[np.uint8]) -> None:
        self._frame = obs[0, 0]
        if self._window is not None:
            self._window.draw(self._frame)

    def show(self) -> NDArray[np.uint8]:
        return self._frame

    def close(self) -> None:
        if self._window is not None:
            self._window.close()


class _Window:
    """Shows frames at the speed of the console."""

    SCALE, FPS = 3, 15

    def __init__(self, title: str, width: int, height: int) -> None:
        import pygame

        self._pygame: Any = pygame
        pygame.display.init()
        self._size = (width * self.SCALE, height * self.SCALE)
        self._surface = pygame.display.set_mode(self._size)
        pygame.display.set_caption(title)
        self._clock = pygame.time.Clock()

    def draw(self, frame: NDArray[np.uint8]) -> None:
        pygame = self._pygame
        pygame.event.pump()
        image = pygame.surfarray.make_surface(frame.swapaxes(0, 1))
        self._surface.blit(pygame.transform.scale(image, self._size), (0, 0))
        pygame.display.flip()
        self._clock.tick(self.FPS)

    def close(self) -> None:
        self._pygame.display.quit()
