"""The processing between an env and its agent: a pipeline of small vectorized steps, in one order for all envs.

Actions are rescaled and returns summed up by the env itself, so returns stay those of the env. Then, in this order:
frame_op, normalize_obs, clip_obs; normalize_reward, clip_reward, reward_scale.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from slm_lab.env.base import VecEnv
from slm_lab.env.moments import clip
from slm_lab.env.ops import ClipObs, Frames, MapReward, NormalizeObs, NormalizeReward, ObsOp, RewardOp
from slm_lab.env.snapshot import pack, unpack
from slm_lab.env.translate import Translator
from slm_lab.lib.errors import LabError
from slm_lab.lib.stateful import State
from slm_lab.spec.model import EnvSpec
from slm_lab.types import Array, Floats, Raw, Step

DEFAULT_CLIP = 10.0
"""In standard deviations, of what is normalized."""


class Pipeline(VecEnv):
    """An env seen through such steps. The statistics of the steps are updated while `training`, and fixed otherwise.

    Where there are running statistics, each `Step` also holds what it was before them, and the pipeline is the
    `Normalizer` of such raw steps.
    """

    def __init__(self, env: VecEnv, obs_ops: Sequence[ObsOp], reward_ops: Sequence[RewardOp]) -> None:
        self._env, self._obs_ops, self._reward_ops = env, list(obs_ops), list(reward_ops)
        self.actions, self.observations = env.actions, env.observations
        self._ops: list[ObsOp | RewardOp] = [*obs_ops, *reward_ops]
        first = next((i for i, op in enumerate(obs_ops) if isinstance(op, NormalizeObs)), len(obs_ops))
        self._raw_ops, self._running_ops = self._obs_ops[:first], self._obs_ops[first:]
        """Changes of observations before running statistics come in, and from there on."""
        self.info = replace(env.info, normalized=len(self._normalizers()) > 0)
        if obs_ops:
            self.info = replace(self.info, obs_shape=obs_ops[-1].shape, obs_dtype=obs_ops[-1].dtype.name)

    def reset(self, seed: int) -> Array:
        """See VecEnv."""
        obs = self._env.reset(seed)
        for obs_op in self._raw_ops:
            obs = obs_op.reset(obs)
        self._raw_obs = obs
        for running_op in self._running_ops:
            obs = running_op.reset(obs)
        for reward_op in self._reward_ops:
            reward_op.reset()
        self.obs = obs
        return obs

    def step(self, action: Array) -> Step:
        """See VecEnv."""
        step = self._env.step(action)
        obs, reward, terminated, truncated, final_obs, returns, lengths, raw = step
        ended = None if final_obs is obs else terminated | truncated
        for obs_op in self._raw_ops:
            obs, final_obs = obs_op.step(obs, final_obs, ended)
        if self.info.normalized:
            raw = Raw(self._raw_obs, step._replace(obs=obs, final_obs=final_obs), self)
            self._raw_obs = obs
        for running_op in self._running_ops:
            obs, final_obs = running_op.step(obs, final_obs, ended)
        if self._reward_ops:
            done = terminated | truncated
            for reward_op in self._reward_ops:
                reward = reward_op.step(reward, done)
        self.obs = obs
        return Step(obs, reward, terminated, truncated, final_obs, returns, lengths, raw)

    def normalize_obs(self, obs: Array) -> Array:
        """See Normalizer."""
        for op in self._running_ops:
            obs = op.apply(obs)
        return obs

    def normalize_reward(self, reward: Floats) -> Floats:
        """See Normalizer."""
        for op in self._reward_ops:
            reward = op.apply(reward)
        return reward

    def state_dict(self) -> State:
        """See VecEnv."""
        return {
            **self._identity(),
            "env": self._env.state_dict(),
            "obs": pack(self.obs) if self._obs_ops else None,
            "raw_obs": pack(self._raw_obs) if self.info.normalized else None,
            "ops": [op.state_dict() for op in self._ops],
        }

    def load_state_dict(self, state: State) -> None:
        """See VecEnv."""
        self._check_state(state)
        self._env.load_state_dict(state["env"])
        for op, saved in zip(self._ops, state["ops"], strict=True):
            op.load_state_dict(saved)
        self.obs = unpack(state["obs"]) if self._obs_ops else self._env.obs
        # states of older versions lack it; so do their replay memories, which are refused
        raw = state.get("raw_obs")
        self._raw_obs = self.obs if raw is None else unpack(raw)

    def translator(self) -> Translator:
        """See VecEnv."""
        ops = copy.deepcopy(self._obs_ops)
        for op in ops:
            if isinstance(op, NormalizeObs):
                op.training = False
        return Translator(self.info.name, self.observations, self.actions, ops)

    def normalizer_state(self) -> State:
        """See VecEnv."""
        return {op.key: op.moments.state_dict() for op in self._normalizers()}

    def load_normalizer_state(self, state: State) -> None:
        """See VecEnv."""
        check_normalizers(self.info.name, [op.key for op in self._normalizers()], list(state))
        for op in self._normalizers():
            op.moments.load_state_dict(state[op.key])

    def _normalizers(self) -> "list[NormalizeObs | NormalizeReward]":
        return [op for op in self._ops if isinstance(op, NormalizeObs | NormalizeReward)]

    def render(self) -> NDArray[np.uint8] | None:
        """See VecEnv."""
        return self._env.render()

    def close(self) -> None:
        """See VecEnv."""
        self._env.close()


def check_normalizers(name: str, ours: list[str], theirs: list[str]) -> None:
    """Refuse statistics that are not of what an env normalizes, by name: obs, reward."""
    if sorted(ours) != sorted(theirs):
        raise LabError(
            f"env: {name} normalizes {' and '.join(sorted(ours)) or 'nothing'}, "
            f"but the saved policy learned with {' and '.join(sorted(theirs)) or 'nothing'} normalized"
        )


def clip_bounds(spec: EnvSpec, clip_reward: float | None = None) -> tuple[float | None, tuple[float, float] | None]:
    """What observations and rewards are clipped to; None: they are not.

    Args:
        spec: says it.
        clip_reward: bound of rewards where the spec says nothing, and rewards are not normalized.
    """
    obs = DEFAULT_CLIP if spec.clip_obs is None and spec.normalize_obs else spec.clip_obs or None
    reward = spec.clip_reward
    if reward is None:
        reward = DEFAULT_CLIP if spec.normalize_reward else clip_reward
    return obs, reward if isinstance(reward, tuple) else (-reward, reward) if reward else None


def wrap(env: VecEnv, spec: EnvSpec, *, gamma: float, training: bool, clip_reward: float | None = None) -> VecEnv:
    """The env with the wrappers that the spec asks for.

    Args:
        env: what is wrapped.
        spec: says how.
        gamma: discount of the return that normalize_reward looks at.
        training: whether statistics learn.
        clip_reward: bound of rewards where the spec says nothing, and rewards are not normalized.
    """
    obs_ops: list[ObsOp] = []
    n, shape, dtype = env.info.num_envs, env.info.obs_shape, np.dtype(env.info.obs_dtype)
    if spec.frame_op is not None and spec.frame_op_len is not None:
        obs_ops.append(Frames(spec.frame_op, spec.frame_op_len, n, shape, dtype))
        shape = obs_ops[-1].shape
    if spec.normalize_obs:
        obs_ops.append(NormalizeObs(shape, dtype, training=training))
        dtype = obs_ops[-1].dtype
    clip_obs, bounds = clip_bounds(spec, clip_reward)
    if clip_obs is not None:
        obs_ops.append(ClipObs(clip_obs, shape, dtype))
    reward_ops: list[RewardOp] = []
    if spec.normalize_reward:
        reward_ops.append(NormalizeReward(n, gamma, training=training))
    if bounds is not None:
        low, high = (np.array(bound, np.float32) for bound in bounds)
        reward_ops.append(MapReward(partial(clip, low=low, high=high)))
    if spec.reward_scale == "sign":
        reward_ops.append(MapReward(np.sign))
    elif spec.reward_scale is not None and spec.reward_scale != 1:
        reward_ops.append(MapReward(partial(np.multiply, np.array(spec.reward_scale, np.float32))))
    return Pipeline(env, obs_ops, reward_ops) if obs_ops or reward_ops else env
