"""The workloads in other labs; each runs in an environment of its own, which knows nothing of this project.

`run_sb3` is Stable-Baselines3 and `run_sbx` its sister in JAX: the same loop and arguments, other updates.
`run_rejax` compiles the env (gymnax), the rollout and the update into one program.
"""

import os
import statistics
import time
from typing import Any

import offpolicy
from workloads import ADAM, RMSPROP, workload

Marks = list[tuple[float, float]]
"""(frame, seconds), ascending; the first is the start."""


def run_sb3(name: str, frames: int, seed: int) -> dict[str, Any]:
    """One run in this process: marks, and the mean return of the last episodes."""
    import torch

    torch.set_num_threads(workload(name)["threads"])
    return _learn(name, frames, seed, jax=False)


def run_sbx(name: str, frames: int, seed: int) -> dict[str, Any]:
    """The same with the updates in JAX."""
    return _learn(name, frames, seed, jax=True)


def run_rejax(name: str, frames: int, seed: int) -> dict[str, Any]:
    """One run in this process: marks, seconds of compiling, and the mean return of the policy in the end."""
    import jax
    from rejax import PPO
    from rejax.evaluate import evaluate

    w = workload(name)
    algorithm = PPO.create(
        env=w["env"]["name"],
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        total_timesteps=frames,
        eval_freq=frames,
        skip_initial_evaluation=True,
        num_envs=w["num_envs"],
        num_steps=w["horizon"],
        num_epochs=w["epochs"],
        num_minibatches=w["num_envs"] * w["horizon"] // w["minibatch"],
        learning_rate=w["lr"],
        max_grad_norm=0.5,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=w["clip_eps"],
        ent_coef=w["entropy_coef"],
        vf_coef=0.5,
    ).replace(eval_callback=lambda algorithm, state, key: ())
    key = jax.random.PRNGKey(seed)
    begin = time.perf_counter()
    train = jax.jit(algorithm.train).lower(key).compile()
    compiled = time.perf_counter()
    state, _ = jax.block_until_ready(train(key))
    marks = [(0.0, compiled), (float(state.global_step), time.perf_counter())]
    steps = algorithm.env_params.max_steps_in_episode
    _, returns = evaluate(algorithm.make_act(state), key, algorithm.env, algorithm.env_params, 100, steps)
    return {"marks": marks, "compile_s": compiled - begin, "score": float(returns.mean())}


def _learn(name: str, frames: int, seed: int, *, jax: bool) -> dict[str, Any]:
    from stable_baselines3.common.callbacks import BaseCallback

    w = workload(name)

    class Timer(BaseCallback):
        """(frame, seconds) at the end of each rollout: between two of them lie one update and one rollout."""

        def _on_training_start(self) -> None:
            self.marks: Marks = [(0.0, time.perf_counter())]

        def _on_rollout_end(self) -> None:
            self.marks.append((self.num_timesteps, time.perf_counter()))

        def _on_step(self) -> bool:
            return True

    env, timer = _env(w, seed), Timer()
    make = offpolicy.peer_model if name in offpolicy.WORKLOADS else _model
    model = make(w, env, frames, seed, jax=jax)
    model.learn(frames, callback=timer)
    return {"marks": timer.marks, "score": statistics.fmean(episode["r"] for episode in model.ep_info_buffer)}


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


def _model(w: dict[str, Any], env: Any, frames: int, seed: int, *, jax: bool) -> Any:
    convolutional = w["net"] == "conv"
    policy: dict[str, Any] = {}
    if not convolutional:
        policy = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": _tanh(jax=jax)}
    shared = {
        "policy": "CnnPolicy" if convolutional else "MlpPolicy",
        "env": env,
        "gamma": 0.99,
        "ent_coef": w["entropy_coef"],
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "n_steps": w["horizon"],
        "policy_kwargs": policy,
        "device": os.environ.get("PEER_DEVICE", "cpu"),
        "seed": seed,
    }
    if w["algorithm"] == "a2c":
        from stable_baselines3 import A2C

        return A2C(learning_rate=RMSPROP["lr"], rms_prop_eps=RMSPROP["eps"], normalize_advantage=True, **shared)
    if jax:
        from sbx import PPO
    else:
        from stable_baselines3 import PPO
    policy["optimizer_kwargs"] = {"eps": ADAM["eps"]}
    return PPO(
        learning_rate=w["lr"],
        batch_size=w["minibatch"],
        n_epochs=w["epochs"],
        gae_lambda=0.95,
        clip_range=w["clip_eps"],
        **shared,
    )


def _tanh(*, jax: bool) -> Any:
    if jax:
        from flax import linen

        return linen.tanh
    from torch import nn

    return nn.Tanh
