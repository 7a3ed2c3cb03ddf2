"""The workloads in Stable-Baselines3; runs in the peer's environment, which knows nothing of this project."""

import statistics
import time
from typing import Any

from offpolicy import WORKLOADS, sb3_model
from workloads import ADAM, RMSPROP, workload


def run_sb3(name: str, frames: int, seed: int) -> tuple[list[tuple[float, float]], float]:
    """One run in this process.

    Returns:
        (frame, seconds) at the end of each rollout, and the mean return of the last episodes.
    """
    import torch
    from stable_baselines3.common.callbacks import BaseCallback

    w = workload(name)
    torch.set_num_threads(w["threads"])

    class Marks(BaseCallback):
        """(frame, seconds) at the end of each rollout: between two of them lie one update and one rollout."""

        def _on_training_start(self) -> None:
            self.marks: list[tuple[float, float]] = []

        def _on_rollout_end(self) -> None:
            self.marks.append((self.num_timesteps, time.perf_counter()))

        def _on_step(self) -> bool:
            return True

    env, timer = _env(w, seed), Marks()
    model = sb3_model(w, env, frames, seed) if name in WORKLOADS else _model(w, env, seed)
    model.learn(frames, callback=timer)
    return timer.marks, statistics.fmean(episode["r"] for episode in model.ep_info_buffer)


def _env(w: dict[str, Any], seed: int) -> Any:
    """As the peer's own scripts make it."""
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

    name = w["env"]["name"]
    if name.startswith("ALE/"):
        import ale_py
        import gymnasium

        gymnasium.register_envs(ale_py)
        # its wrappers skip frames themselves; at v5 the env would skip some of its own
        kwargs = {"frameskip": 1, "repeat_action_probability": 0.0}
        sticky = {"action_repeat_probability": 0.25}
        env = make_atari_env(name, n_envs=w["num_envs"], seed=seed, env_kwargs=kwargs, wrapper_kwargs=sticky)
        return VecFrameStack(env, 4)
    env = make_vec_env(name, n_envs=w["num_envs"], seed=seed)
    return VecNormalize(env, gamma=0.99) if w["env"].get("normalize_obs") else env


def _model(w: dict[str, Any], env: Any, seed: int) -> Any:
    import torch
    from stable_baselines3 import A2C, PPO

    convolutional = w["net"] == "conv"
    policy: dict[str, Any] = {}
    if not convolutional:
        policy = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh}
    shared = {
        "policy": "CnnPolicy" if convolutional else "MlpPolicy",
        "env": env,
        "gamma": 0.99,
        "ent_coef": w["entropy_coef"],
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "n_steps": w["horizon"],
        "policy_kwargs": policy,
        "device": "cpu",
        "seed": seed,
    }
    if w["algorithm"] == "a2c":
        return A2C(learning_rate=RMSPROP["lr"], rms_prop_eps=RMSPROP["eps"], normalize_advantage=True, **shared)
    policy["optimizer_kwargs"] = {"eps": ADAM["eps"]}
    return PPO(
        learning_rate=w["lr"],
        batch_size=w["minibatch"],
        n_epochs=w["epochs"],
        gae_lambda=0.95,
        clip_range=w["clip_eps"],
        **shared,
    )
