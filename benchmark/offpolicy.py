"""The workloads that learn from a replay memory: as parts of a spec of this project, and as the peer's model."""

import os
from typing import Any

WORKLOADS: dict[str, dict[str, Any]] = {
    "W2": {
        "algorithm": "dqn",
        "hidden": [64, 64],
        "batch": 64,
        "buffer": 50_000,
        "start": 1000,
        "frequency": 4,
        "lr": 1e-3,
        "num_envs": 1,
        "log_frequency": 500,
        "frames": 200_000,
        "peer_frames": 50_000,
    },
    "W3": {
        "algorithm": "sac",
        "env": {"name": "HalfCheetah-v5"},
        "hidden": [256, 256],
        "batch": 256,
        "buffer": 1_000_000,
        "start": 100,
        "frequency": 1,
        "lr": 3e-4,
        "threads": 2,
        "cores": 2,
        "num_envs": 1,
        "log_frequency": 500,
        "frames": 5000,
        "peer_frames": 2500,
    },
}
"""hidden: relu layers; start: frames of random actions before the first update; frequency: frames between updates."""
WORKLOADS["W3-bf16"] = {**WORKLOADS["W3"], "precision": "bf16"}
EXPLORE_FRAMES, EXPLORE_END = 20_000, 0.04


def slm_lab_agent(w: dict[str, Any]) -> dict[str, Any]:
    """The `agent` part of a spec."""
    dqn = w["algorithm"] == "dqn"
    algorithm: dict[str, Any] = {
        "name": "DQN" if dqn else "SoftActorCritic",
        "gamma": 0.99,
        "training_frequency": w["frequency"],
        "training_iter": 1,
        "training_start_step": w["start"],
    }
    net: dict[str, Any] = {
        "type": "MLPNet",
        "hid_layers": w["hidden"],
        "hid_layers_activation": "relu",
        "optim_spec": {"name": "Adam", "lr": w["lr"]},
    }
    if dqn:
        line = {"name": "linear_decay", "start_val": 1.0, "end_val": EXPLORE_END, "end_step": EXPLORE_FRAMES}
        algorithm |= {"action_policy": "epsilon_greedy", "explore_var_spec": line}
        net |= {"loss_spec": {"name": "SmoothL1Loss"}, "clip_grad_val": 10.0}
        net |= {"update_type": "replace", "update_frequency": 500}
    else:
        net |= {"update_type": "polyak", "update_frequency": 1, "polyak_coef": 0.005}
    memory = {"name": "Replay", "batch_size": w["batch"], "max_size": w["buffer"]}
    return {"name": w["algorithm"], "algorithm": algorithm, "memory": memory, "net": net}


def peer_model(w: dict[str, Any], env: Any, frames: int, seed: int, *, jax: bool) -> Any:
    """The same in Stable-Baselines3, or in its sister in JAX."""
    if jax:
        from sbx import DQN, SAC
    else:
        from stable_baselines3 import DQN, SAC

    shared = {
        "policy": "MlpPolicy",
        "env": env,
        "gamma": 0.99,
        "learning_rate": w["lr"],
        "buffer_size": w["buffer"],
        "learning_starts": w["start"],
        "batch_size": w["batch"],
        "train_freq": w["frequency"],
        "gradient_steps": 1,
        "policy_kwargs": {"net_arch": w["hidden"]},
        "device": os.environ.get("PEER_DEVICE", "cpu"),
        "seed": seed,
    }
    if w["algorithm"] == "sac":
        return SAC(tau=0.005, **shared)
    if not jax:  # which does not clip
        shared["max_grad_norm"] = 10.0
    return DQN(
        target_update_interval=500,
        exploration_fraction=EXPLORE_FRAMES / frames,
        exploration_final_eps=EXPLORE_END,
        **shared,
    )
