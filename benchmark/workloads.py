"""What `throughput.py` measures: the workloads, and each as a spec of this project. Nothing heavy is imported."""

from typing import Any

import offpolicy

WORKLOADS: dict[str, dict[str, Any]] = {
    "W1": {"algorithm": "ppo", "num_envs": 4, "horizon": 32, "frames": 300_000, "peer_frames": 60_000},
    "W1b": {"algorithm": "ppo", "num_envs": 8, "horizon": 128, "frames": 300_000, "peer_frames": 60_000},
    "W4": {
        "algorithm": "ppo",
        "env": {"name": "Hopper-v5", "normalize_obs": True, "normalize_reward": True},
        "num_envs": 16,
        "horizon": 128,
        "cores": 2,
        "log_frequency": 2048,
        "frames": 120 * 2048,
        "peer_frames": 30 * 2048,
    },
    "W5": {
        "algorithm": "ppo",
        "env": {"name": "ALE/Pong-v5"},
        "net": "conv",
        "num_envs": 16,
        "horizon": 128,
        "minibatch": 256,
        "epochs": 4,
        "lr": 2.5e-4,
        "clip_eps": 0.1,
        "entropy_coef": 0.01,
        "threads": 2,
        "cores": 2,
        "log_frequency": 2048,
        "frames": 16 * 2048,
        "peer_frames": 8 * 2048,
    },
    **offpolicy.WORKLOADS,
    "W6": {"algorithm": "a2c", "num_envs": 8, "horizon": 5, "frames": 400_000, "peer_frames": 150_000},
}
"""CartPole-v1 and separate 64x64 tanh nets unless stated; net "conv": that of Mnih et al. 2015, shared. horizon: steps
of each env between updates; threads: of torch; cores: that the process may use, on every side."""
WORKLOADS["W5-bf16"] = {**WORKLOADS["W5"], "precision": "bf16"}
DEFAULTS: dict[str, Any] = {
    "cores": 1,
    "env": {"name": "CartPole-v1"},
    "net": "mlp",
    "minibatch": 64,
    "epochs": 10,
    "lr": 3e-4,
    "clip_eps": 0.2,
    "entropy_coef": 0.0,
    "threads": 1,
    "precision": "float32",
    "log_frequency": 500,
}
ADAM = {"name": "Adam", "eps": 1e-5}
RMSPROP = {"name": "RMSprop", "lr": 7e-4, "alpha": 0.99, "eps": 1e-5}


def workload(name: str) -> dict[str, Any]:
    """A workload with all its keys."""
    return {**DEFAULTS, **WORKLOADS[name]}


def slm_lab_spec(name: str, frames: int, *, sessions: int = 1, compile_mode: str = "auto") -> dict[str, Any]:
    """The workload as a spec of this project."""
    w = workload(name)
    return {
        "name": f"throughput_{name.lower()}",
        "agent": offpolicy.slm_lab_agent(w) if name in offpolicy.WORKLOADS else _agent(w),
        "env": {**w["env"], "num_envs": w["num_envs"], "max_frame": frames},
        "meta": {
            "max_session": sessions,
            "log_frequency": w["log_frequency"],
            "random_seed": 0,
            "compile": compile_mode,
            "precision": w["precision"],
        },
    }


def _agent(w: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": w["algorithm"],
        "algorithm": _algorithm(w),
        "memory": {"name": "OnPolicyBatchReplay"},
        "net": _net(w),
    }


def _algorithm(w: dict[str, Any]) -> dict[str, Any]:
    shared = {
        "gamma": 0.99,
        "entropy_coef_spec": {"name": "no_decay", "start_val": w["entropy_coef"]},
        "val_loss_coef": 0.5,
    }
    if w["algorithm"] == "a2c":
        return {"name": "ActorCritic", "num_step_returns": w["horizon"], "training_frequency": w["horizon"], **shared}
    return {
        "name": "PPO",
        "lam": 0.95,
        "clip_eps_spec": {"name": "no_decay", "start_val": w["clip_eps"]},
        "time_horizon": w["horizon"],
        "minibatch_size": w["minibatch"],
        "training_epoch": w["epochs"],
        **shared,
    }


def _net(w: dict[str, Any]) -> dict[str, Any]:
    net = {
        "init_fn": "orthogonal_",
        "actor_init_std": 0.01,
        "critic_init_std": 1.0,
        "clip_grad_val": 0.5,
        "optim_spec": {**ADAM, "lr": w["lr"]} if w["algorithm"] == "ppo" else RMSPROP,
    }
    if w["net"] == "conv":
        convolutions = [[32, 8, 4, 0, 1], [64, 4, 2, 0, 1], [64, 3, 1, 0, 1]]
        layers = {"conv_hid_layers": convolutions, "fc_hid_layers": [512], "hid_layers_activation": "relu"}
        return {"type": "ConvNet", "shared": True, **layers, **net}
    continuous = {"log_std_init": 0.0} if w["env"]["name"] != "CartPole-v1" else {}
    layers = {"hid_layers": [64, 64], "hid_layers_activation": "tanh"}
    return {"type": "MLPNet", "shared": False, **layers, **continuous, **net}
