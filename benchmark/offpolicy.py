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
WORKLOADS["W3-bf16"] = {**WORKLOADS["W3"], "precision": "bf16"}
_HOPPER = {**WORKLOADS["W3"], "env": {"name": "Hopper-v5"}}
WORKLOADS |= {
    "W7": {**_HOPPER, "algorithm": "td3"},
    "W8": {**_HOPPER, "algorithm": "tqc"},
    "W9": {**WORKLOADS["W2"], "algorithm": "qrdqn", "lr": 5e-4, "peer_frames": 30_000},
    "W10": {**_HOPPER, "algorithm": "crossq", "lr": 1e-3, "peer_frames": 1500},
}
"""hidden: relu layers; start: frames of random actions before the first update; frequency: frames between updates."""
NAMES = {"dqn": "DQN", "sac": "SoftActorCritic", "td3": "TD3", "tqc": "TQC", "qrdqn": "QRDQN", "crossq": "CrossQ"}
EXPLORE_FRAMES, EXPLORE_END = 20_000, 0.04
QUANTILES = 50


def slm_lab_agent(w: dict[str, Any]) -> dict[str, Any]:
    """The `agent` part of a spec."""
    kind = w["algorithm"]
    discrete = kind in ("dqn", "qrdqn")
    algorithm: dict[str, Any] = {
        "name": NAMES[kind],
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
    if discrete:
        line = {"name": "linear_decay", "start_val": 1.0, "end_val": EXPLORE_END, "end_step": EXPLORE_FRAMES}
        algorithm |= {"action_policy": "epsilon_greedy", "explore_var_spec": line}
        net |= {"clip_grad_val": 10.0, "update_type": "replace", "update_frequency": 500}
        net |= {"loss_spec": {"name": "SmoothL1Loss"}} if kind == "dqn" else {}
        algorithm |= {"quantiles": QUANTILES} if kind == "qrdqn" else {}
    elif kind == "crossq":
        algorithm["policy_delay"] = 3
        arc = _renormalized(w["hidden"])
        net = {"type": "TorchArcNet", "actor_arc": arc, "critic_arc": arc, "optim_spec": net["optim_spec"]}
    else:
        net |= {"update_type": "polyak", "update_frequency": 1, "polyak_coef": 0.005}
        algorithm |= {"num_critics": 2} if kind == "tqc" else {}
    memory = {"name": "Replay", "batch_size": w["batch"], "max_size": w["buffer"]}
    return {"name": kind, "algorithm": algorithm, "memory": memory, "net": net}


def _renormalized(hidden: list[int]) -> dict[str, Any]:
    """Layers of CrossQ: each behind a batch renormalization, which the output layer is behind, too."""
    norm = {"LazyBatchRenorm1d": {"momentum": 0.01, "eps": 0.001, "warmup_steps": 100_000}}
    layers = [layer for width in hidden for layer in (norm, {"LazyLinear": {"out_features": width}}, "ReLU")]
    body = {"Sequential": [*layers, norm]}
    return {"modules": {"body": body}, "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"}}


def peer_model(w: dict[str, Any], env: Any, frames: int, seed: int, *, jax: bool) -> Any:
    """The same in Stable-Baselines3 and its collection of further algorithms, or in its sister in JAX."""
    kind = w["algorithm"]
    policy: dict[str, Any] = {"net_arch": w["hidden"]}
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
        "policy_kwargs": policy,
        "device": os.environ.get("PEER_DEVICE", "cpu"),
        "seed": seed,
    }
    if kind in ("dqn", "qrdqn"):
        if not jax:  # which does not clip
            shared["max_grad_norm"] = 10.0
        policy |= {"n_quantiles": QUANTILES} if kind == "qrdqn" else {}
        shared |= {"target_update_interval": 500, "exploration_fraction": EXPLORE_FRAMES / frames}
        shared["exploration_final_eps"] = EXPLORE_END
    elif kind != "crossq":
        shared["tau"] = 0.005
    if kind == "td3":
        import numpy as np
        from stable_baselines3.common.noise import NormalActionNoise

        places = env.action_space.shape
        shared["action_noise"] = NormalActionNoise(np.zeros(places), np.full(places, 0.1))
    return _peer_class(kind, jax=jax)(**shared)


def _peer_class(kind: str, *, jax: bool) -> Any:
    if jax:
        from sbx import DQN, SAC

        return {"dqn": DQN, "sac": SAC}[kind]
    import stable_baselines3

    name = {"sac": "SAC"}.get(kind, NAMES[kind])
    if hasattr(stable_baselines3, name):
        return getattr(stable_baselines3, name)
    import sb3_contrib

    return getattr(sb3_contrib, name)
