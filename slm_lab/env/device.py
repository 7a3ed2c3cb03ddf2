"""Vector envs that live on a device: tensors in, tensors out, nothing waits for the host.

They are VecEnvs too, for whoever steps them with numpy; `advance` is what training calls. Normalization and clipping
happen on the device: `DevicePipeline` is for them what `wrappers.Pipeline` is for the others.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.env.base import VecEnv, as_step
from slm_lab.env.modes import is_plain
from slm_lab.env.moments import EPSILON
from slm_lab.env.ops import ClipObs, NormalizeObs
from slm_lab.env.snapshot import pack, unpack
from slm_lab.env.translate import Translator
from slm_lab.env.wrappers import check_normalizers, clip_bounds
from slm_lab.lib.stateful import State
from slm_lab.spec.env import EnvSpec
from slm_lab.types import Floats, Raw, Step


class Moved(NamedTuple):
    """One vector step, as tensors on the env's device."""

    obs: Tensor
    """[N, *O] to act on next"""
    reward: Tensor
    """[N] f32"""
    terminated: Tensor
    """[N] bool"""
    truncated: Tensor
    """[N] bool"""
    final_obs: Tensor
    """[N, *O] the true successor"""
    ret: Tensor
    """[N] undiscounted raw return of the episode so far, this step included"""
    length: Tensor
    """[N] its length, likewise"""


class DeviceVec(VecEnv):
    """N envs on a device."""

    seen: Tensor
    """[N, *O] what is to be acted on next, on the device; one tensor from the first step to the last where `capturable`
    is true."""
    capturable = False
    """Whether `advance` works in place on tensors that stay where they are, so that a CUDA graph can repeat it."""

    @abstractmethod
    def advance(self, action: Tensor) -> Moved:
        """One step of every env; reads no number out of a tensor.

        Args:
            action: [N, *A] as the agent gives it, on any device
        """

    def step(self, action: NDArray[Any]) -> Step:
        """See VecEnv; waits for the device."""
        step = on_host(self.advance(torch.from_numpy(np.asarray(action, self.actions.dtype))))
        self.obs = step.obs
        return step


def on_host(moved: Moved) -> Step:
    """A step as arrays; waits for the device."""
    return as_step(x.cpu().numpy() for x in moved)


class DeviceMoments:
    """`moments.Moments` on a device, of batches of N samples: the same numbers but for rounding."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.var = torch.ones(shape, dtype=torch.float64, device=device)

    def update_(self, batch: Tensor) -> None:
        """Take in samples [B, *shape]."""
        batch = batch.double()
        mean, var = batch.mean(0), batch.var(0, correction=0)
        share = len(batch) / (self.count + len(batch))
        delta = mean - self.mean
        self.count.add_(len(batch))
        self.mean.add_(delta * share)
        self.var.copy_(self.var * (1 - share) + var * share + delta.square() * (share * (1 - share)))

    def state_dict(self) -> State:
        """As that of Moments."""
        mean, var = (pack(x.cpu().numpy()) for x in (self.mean, self.var))
        return {"count": int(self.count.item()), "mean": mean, "var": var}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self.count.fill_(state["count"])
        self.mean.copy_(torch.from_numpy(unpack(state["mean"])))
        self.var.copy_(torch.from_numpy(unpack(state["var"])))


class DevicePipeline(DeviceVec):
    """A device env with what the spec asks for: normalize_obs, clip_obs; normalize_reward, clip_reward, reward_scale.

    Args:
        env: what is wrapped; its observations are float32
        spec: says how
        gamma: discount of the return that normalize_reward looks at
        training: whether the statistics learn
    """

    def __init__(self, env: DeviceVec, spec: EnvSpec, *, gamma: float, training: bool) -> None:
        self._env, self._spec, self._gamma, self._training = env, spec, gamma, training
        self.info = replace(env.info, normalized=spec.normalize_obs or spec.normalize_reward)
        self.actions, self.observations = env.actions, env.observations
        self.capturable = env.capturable
        self.obs, self.seen = env.obs, torch.zeros_like(env.seen)
        device = env.seen.device
        self._moments: dict[str, DeviceMoments] = {}
        if spec.normalize_obs:
            self._moments["obs"] = DeviceMoments(env.info.obs_shape, device)
        if spec.normalize_reward:
            self._moments["reward"] = DeviceMoments((), device)
        self._ret = torch.zeros(env.info.num_envs, dtype=torch.float64, device=device)
        self._clip_obs, self._clip_reward = clip_bounds(spec)
        self._obs_ops = spec.normalize_obs or self._clip_obs is not None

    def _see(self, obs: Tensor) -> Tensor:
        """Observations under the current statistics."""
        if (moments := self._moments.get("obs")) is not None:
            obs = ((obs - moments.mean) / (moments.var + EPSILON).sqrt()).float()
        return obs if self._clip_obs is None else obs.clamp(-self._clip_obs, self._clip_obs)

    def _learn(self, obs: Tensor) -> None:
        if self._training and "obs" in self._moments:
            self._moments["obs"].update_(obs)

    def _pay(self, reward: Tensor) -> Tensor:
        """Rewards under the current statistics."""
        if (moments := self._moments.get("reward")) is not None:
            reward = (reward / (moments.var + EPSILON).sqrt()).float()
        if self._clip_reward is not None:
            reward = reward.clamp(*self._clip_reward)
        scale = self._spec.reward_scale
        return reward.sign() if scale == "sign" else reward if scale is None else reward * scale

    def _show(self, moved: Moved) -> Moved:
        """A step as it is to be seen; learns from it."""
        self._learn(moved.obs)
        if self._training and "reward" in self._moments:
            self._ret.mul_(self._gamma).add_(moved.reward)
            self._moments["reward"].update_(self._ret)
            self._ret.masked_fill_(moved.terminated | moved.truncated, 0.0)
        obs = self._see(moved.obs)
        self.seen.copy_(obs)
        return moved._replace(obs=obs, reward=self._pay(moved.reward), final_obs=self._see(moved.final_obs))

    def reset(self, seed: int) -> NDArray[Any]:
        """See VecEnv."""
        self._env.reset(seed)
        self._ret.zero_()
        self._learn(self._env.seen)
        self.seen.copy_(self._see(self._env.seen))
        self.obs = self.seen.cpu().numpy().copy()
        return self.obs

    def advance(self, action: Tensor) -> Moved:
        """See DeviceVec."""
        return self._show(self._env.advance(action))

    def step(self, action: NDArray[Any]) -> Step:
        """See VecEnv."""
        if not self.info.normalized:
            return super().step(action)
        before = self._env.seen.cpu().numpy().copy()
        moved = self._env.advance(torch.from_numpy(np.asarray(action, self.actions.dtype)))
        step = on_host(self._show(moved))
        self.obs = step.obs
        return step._replace(raw=Raw(before, on_host(moved), self))

    def normalize_obs(self, obs: NDArray[Any]) -> NDArray[Any]:
        """See Normalizer."""
        return self._see(torch.from_numpy(obs).to(self._ret.device)).cpu().numpy()

    def normalize_reward(self, reward: Floats) -> Floats:
        """See Normalizer."""
        return self._pay(torch.from_numpy(reward).to(self._ret.device)).cpu().numpy()

    def state_dict(self) -> State:
        """See VecEnv."""
        return {
            **self._identity(),
            "env": self._env.state_dict(),
            "obs": pack(self.seen.cpu().numpy()) if self._obs_ops else None,
            "raw_obs": pack(self._env.seen.cpu().numpy()) if self.info.normalized else None,
            "ops": self._op_states(),
        }

    def _op_states(self) -> list[State]:
        """One each, in the order of `wrappers.Pipeline`: a run can be resumed there."""
        moments, spec = self.normalizer_state(), self._spec
        obs = [moments["obs"]] if spec.normalize_obs else []
        reward = [moments["reward"] | {"ret": self._ret.tolist()}] if spec.normalize_reward else []
        scaled = spec.reward_scale is not None and spec.reward_scale != 1
        idle: State = {}
        return [
            *obs,
            *[idle] * (self._clip_obs is not None),
            *reward,
            *[idle] * (self._clip_reward is not None),
            *[idle] * scaled,
        ]

    def load_state_dict(self, state: State) -> None:
        """See VecEnv."""
        self._check_state(state)
        self._env.load_state_dict(state["env"])
        learned = [op for op in state["ops"] if op]
        for moments, saved in zip(self._moments.values(), learned, strict=True):
            moments.load_state_dict(saved)
        if "reward" in self._moments:
            self._ret.copy_(torch.tensor(learned[-1]["ret"], dtype=torch.float64))
        self.obs = unpack(state["obs"]) if self._obs_ops else self._env.obs
        self.seen.copy_(torch.from_numpy(self.obs))

    def translator(self) -> Translator:
        """See VecEnv."""
        shape, kind = self.info.obs_shape, np.dtype(np.float32)
        ops: list[Any] = []
        if "obs" in self._moments:
            ops.append(NormalizeObs(shape, kind, training=False))
            ops[-1].moments.load_state_dict(self._moments["obs"].state_dict())
        if self._clip_obs is not None:
            ops.append(ClipObs(self._clip_obs, shape, kind))
        return Translator(self.info.name, self.observations, self.actions, ops)

    def normalizer_state(self) -> State:
        """See VecEnv."""
        return {key: moments.state_dict() for key, moments in self._moments.items()}

    def load_normalizer_state(self, state: State) -> None:
        """See VecEnv."""
        check_normalizers(self.info.name, list(self._moments), list(state))
        for key, moments in self._moments.items():
            moments.load_state_dict(state[key])

    def render(self) -> NDArray[np.uint8] | None:
        """See VecEnv."""
        return self._env.render()

    def close(self) -> None:
        """See VecEnv."""
        self._env.close()


def wrap_device(env: DeviceVec, spec: EnvSpec, *, gamma: float, training: bool) -> DeviceVec:
    """The env with what the spec asks for; see DevicePipeline."""
    return env if is_plain(spec) else DevicePipeline(env, spec, gamma=gamma, training=training)
