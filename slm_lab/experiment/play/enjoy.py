"""Watch what was learned: a saved policy plays greedily. Nothing of the training is touched."""

import math
import re
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from slm_lab.agent.agent import Agent
from slm_lab.env.base import VecEnv
from slm_lab.env.make import make_env
from slm_lab.experiment.records.runs import find_run, read_best_trial
from slm_lab.experiment.session import checkpoint
from slm_lab.experiment.session.evaluate import play
from slm_lab.experiment.session.run import Options
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import read_json
from slm_lab.lib.layout import Layout
from slm_lab.lib.registry import import_plugins
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

FPS = 30
"""Of a video."""
VIDEOS = (".mp4", ".gif", ".mkv", ".mov", ".webm")
"""Kinds of video, by suffix."""


@dataclass(frozen=True)
class SavedPolicy:
    """What is needed to act as a training session did."""

    path: Path
    """The checkpoint."""
    spec: Spec
    session: int
    frame: int
    """Frames it had learned from."""
    state: State
    """Of the nets."""
    normalizer: State
    """Running statistics of the env it was trained in."""

    @classmethod
    def open(cls, target: str | Path, out: Path = Path("data")) -> "SavedPolicy":
        """Find and read one.

        Args:
            target: a checkpoint file; or a run folder, a spec file in one, or `latest`: then the best policy of the
                best session is meant, by total_reward_ma; its latest one, with a warning, where that can't be read.
            out: where `latest` looks.

        Raises:
            LabError: there is none, or it can't be read.
        """
        path = Path(target).expanduser()
        if path.is_file() and path.suffix == ".pt":
            tree = checkpoint.load(path)
        else:
            path = best_checkpoint(find_run(target, out))
            tree = _load(path)
        import_plugins(tree["spec"]["meta"].get("plugins", []))
        return cls(
            path,
            load_spec(tree["spec"]),
            tree["session"],
            tree["counters"]["frame"],
            # the whole checkpoint holds the nets among the state of its agent, the best one nothing but the nets
            tree["policy"] if "policy" in tree else tree["agent"]["algorithm"]["nets"],
            tree["normalizer"],
        )

    def env(self, num_envs: int = 1, render: str | None = None) -> VecEnv:
        """Envs as it was trained in; their running statistics do not change."""
        env = make_env(self.spec.env, num_envs=num_envs, render=render, training=False)
        env.load_normalizer_state(self.normalizer)
        return env

    def agent(self, env: VecEnv, device: str = "cpu", seed: int = 0) -> Agent:
        """An agent for the env, with these nets; the seed is that of actions it draws."""
        agent = Agent(self.spec, env.info, seed=seed, device=device)
        agent.load_policy_state(self.state)
        return agent


def enjoy(target: str | Path, options: Options, *, episodes: int = 10, video: Path | None = None) -> list[float]:
    """Play episodes with a saved policy, see `SavedPolicy.open`; gives their undiscounted returns.

    Of the options `out`, `seed`, `render` and `device` count. The video is a file to write, one of VIDEOS.

    Raises:
        LabError: no such policy; the env can't be made or rendered.
    """
    policy = SavedPolicy.open(target, options.out)
    logger.info("{}: session {} at frame {}", policy.path, policy.session, policy.frame)
    render = "rgb_array" if video is not None else "human" if options.render else None
    device = "cpu" if options.device == "auto" else options.device
    returns: list[float] = []
    with ExitStack() as stack:
        env = policy.env(render=render)
        stack.callback(env.close)
        agent = policy.agent(env, device)
        if video is not None:
            camera = stack.enter_context(Camera(video))
        for i in range(episodes):
            seed = derive(options.seed or 0, i)
            [ret], [length] = play(agent, env, 1, seed, on_step=camera.shoot if video is not None else None)
            limit = " (the limit)" if length == env.info.max_t else ""
            logger.info("episode {}: total_reward {:.2f}, {} steps{}", i + 1, ret, length, limit)
            returns.append(ret)
    spread = f", standard deviation {np.std(returns, ddof=1):.2f}" if len(returns) > 1 else ""
    episodes_played = "1 episode" if len(returns) == 1 else f"{len(returns)} episodes"
    logger.info("total_reward of {}: mean {:.2f}{}", episodes_played, np.mean(returns), spread)
    return returns


class Camera:
    """Films an env. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        import imageio  # only who films needs it

        path = Path(path)
        kind = path.suffix.lower()
        if kind not in VIDEOS:
            raise LabError(f"video: can't write {path.name} (known: {', '.join(VIDEOS)})")
        if not path.parent.is_dir():
            raise LabError(f"video: no such folder: {path.parent}")
        self._path = path
        self._old = path.exists()
        try:
            path.open("ab").close()
        except OSError as e:
            raise self._unwritable(e) from e
        self._shape: tuple[int, ...] | None = None
        if kind == ".gif":
            self._writer: Any = imageio.get_writer(path, duration=1000 / FPS, loop=0)
        else:
            self._writer = imageio.get_writer(path, format="FFMPEG", fps=FPS, macro_block_size=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._writer.close()
        except OSError as e:
            if error is None:
                raise self._unwritable(e) from e
        finally:
            if error is not None and not self._old:
                # not a video of what was asked for
                self._path.unlink(missing_ok=True)

    def shoot(self, env: VecEnv) -> None:
        """Add what the env shows."""
        frame: NDArray[np.uint8] | None = env.render()
        if frame is None:
            raise LabError(f"video: {env.info.name} gives no pictures")
        if frame.ndim != 3 or frame.shape[2] not in (3, 4) or frame.dtype != np.uint8:
            what = f"{frame.dtype}, shape {frame.shape}"
            raise LabError(f"video: {env.info.name} gives no RGB pictures (uint8, [height, width, 3]): {what}")
        if frame.shape != self._shape:
            if self._shape is not None:
                raise LabError(
                    f"video: the pictures of {env.info.name} change their size: {self._shape}, {frame.shape}"
                )
            self._shape = frame.shape
        # the usual pixel format halves the colour's resolution: sides must be even
        height, width = frame.shape[:2]
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._writer.append_data(even)
        except OSError as e:
            raise self._unwritable(e) from e

    def _unwritable(self, error: OSError) -> LabError:
        # what ffmpeg has to say is pages long, and names its pipe instead of the cause
        return LabError(f"video: {self._path} can't be written{f': {error.strerror}' if error.strerror else ''}")


def _load(path: Path) -> State:
    """What is in a checkpoint; the session's latest where its best can't be read."""
    try:
        return checkpoint.load(path)
    except LabError as e:
        latest = path.with_name(path.name.replace("_ckpt-best.pt", "_ckpt.pt"))
        if latest == path or not checkpoint.exists(latest):
            raise
        logger.warning("{}\ngoing on with the latest checkpoint, {}", e, latest.name)
        return checkpoint.load(latest)


def best_checkpoint(layout: Layout) -> Path:
    """The best policy of the session with the highest total_reward_ma, of those in the run folder.

    Of a search it is the best trial's, as long as its models are kept. Where a session has no metrics yet its best
    checkpoint tells.
    """
    found, best_trial = [], read_best_trial(layout)
    for best in [*layout.root.glob("model/*_ckpt-best.pt"), *layout.root.glob("model/*_ckpt.pt")]:
        trial, session = indices(layout, best)
        score, is_best = None, best.name.endswith("_ckpt-best.pt")
        with suppress(LabError):
            score = read_json(layout.session_scalar(trial, session)).get("total_reward_ma")
        if score is None and is_best:
            with suppress(LabError):
                score = checkpoint.load(best)["total_reward_ma"]
        # of one session the best comes before the last
        value = -math.inf if score is None else score
        found.append((trial == best_trial, value, is_best, -session, best))
    if not found:
        raise LabError(f"{layout.root}: no checkpoint in its model folder; did a session get far enough to save one?")
    return max(found)[-1]


def indices(layout: Layout, path: Path) -> tuple[int, int]:
    """Trial and session of a checkpoint."""
    found = re.match(r"_t(\d+)_s(\d+)_ckpt", path.name.removeprefix(layout.name))
    if found is None:
        raise LabError(f"{path}: not a checkpoint of '{layout.name}'")
    return int(found[1]), int(found[2])
