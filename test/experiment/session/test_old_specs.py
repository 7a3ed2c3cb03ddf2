"""Specs of SLM-Lab 4 and 5 run: those of test/golden/old, and one a combination of algorithm, net, memory and env."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from slm_lab.experiment import launch
from slm_lab.experiment.records.runs import RunFile, Status
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.experiment.trial.check import load_spec
from slm_lab.experiment.trial.trial import Trial
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import read_file
from slm_lab.spec.migrate import sweep

OLD = Path(__file__).resolve().parents[2] / "golden" / "old"
NAMES = [
    (path, name)
    for path in sorted(OLD.iterdir())
    for raw_name, raw in read_file(path).items()
    for name in list(sweep(raw, raw_name))[:1]
    if path.name != "v4_gone.json" and name != "ppo_playground"
]
SAMPLE = (
    "a2c_nstep_pong",
    "sac_lunar",
    "sac_lunar_arc",
    "crossq_pendulum",
    "crossq_pong",
    "ppo_saved_by_a_run",
    "dqn_rnn",
    "sil_cartpole",
)

LINE = {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "start_step": 0, "end_step": 200}
FLAT = {"name": "no_decay", "start_val": 0.1, "end_val": 0.1, "start_step": 0, "end_step": 0}
TD = {"training_batch_iter": 1, "training_iter": 1, "training_frequency": 8, "training_start_step": 32}
GREEDY = {"action_pdtype": "Argmax", "action_policy": "epsilon_greedy", "explore_var_spec": LINE, "gamma": 0.99}
AC = {"lam": 0.95, "num_step_returns": None, "entropy_coef_spec": FLAT, "val_loss_coef": 0.5, "gamma": 0.99}
SIL = {"sil_policy_loss_coef": 0.5, "sil_val_loss_coef": 0.1, "training_batch_iter": 1, "training_iter": 1}
BATCH, EPISODES = {"name": "OnPolicyBatchReplay"}, {"name": "OnPolicyReplay"}
BEST = {"name": "OnPolicyCrossEntropy", "cross_entropy": 0.5}
RING = {"name": "Replay", "batch_size": 16, "max_size": 1000, "use_cer": True}
RANKED = {"name": "PrioritizedReplay", "alpha": 0.6, "epsilon": 0.0001, **{k: RING[k] for k in RING if k != "name"}}
SIL_RING = {"sil_replay_name": "Replay", "batch_size": 16, "max_size": 1000, "use_cer": False}
ON_POLICY = {
    "reinforce": {"name": "Reinforce", "gamma": 0.99, "entropy_coef_spec": FLAT},
    "a2c": {"name": "ActorCritic", **AC},
    "a2c_nstep": {"name": "ActorCritic", **AC, "lam": None, "num_step_returns": 16},
    "sarsa": {"name": "SARSA", **GREEDY},
    "sil": {"name": "SIL", **AC, **SIL},
}
PPO = {"clip_eps_spec": FLAT, "time_horizon": 16, "minibatch_size": 16, "training_epoch": 1}
OFF_POLICY = {name: {"name": name, **GREEDY, **TD} for name in ("VanillaDQN", "DQN", "DoubleDQN")}
COMBINATIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *((a | {"training_frequency": 16}, BATCH) for a in ON_POLICY.values()),
    *((a | {"training_frequency": 1}, EPISODES) for name, a in ON_POLICY.items() if name != "a2c_nstep"),
    (ON_POLICY["reinforce"] | {"training_frequency": 2}, BEST),
    ({"name": "PPO", **AC, **PPO}, BATCH),
    ({"name": "PPOSIL", **AC, **PPO, **SIL}, BATCH),
    *itertools.product(OFF_POLICY.values(), (RING, RANKED)),
    *((({"name": "SoftActorCritic", "gamma": 0.99, **TD}), memory) for memory in (RING, RANKED)),
    ({"name": "Random"}, BATCH),
]
COMMON = {
    "shared": False,
    "use_same_optim": False,
    "hid_layers_activation": "relu",
    "optim_spec": {"name": "Adam", "lr": 1e-3},
    "actor_optim_spec": {"name": "Adam", "lr": 1e-3},
    "critic_optim_spec": {"name": "Adam", "lr": 1e-3},
    "lr_scheduler_spec": {"name": "StepLR", "step_size": 100, "gamma": 0.9},
    "update_type": "polyak",
    "update_frequency": 4,
    "polyak_coef": 0.1,
}
CONV = {"conv_hid_layers": [[4, 8, 4, 0, 1], [4, 4, 2, 0, 1]], "fc_hid_layers": [16], "init_fn": "orthogonal_"}
GRAPH = {"input": "x", "modules": {"body": ["x"]}, "output": "body"}
LAYERS = [{"LazyConv2d": {"out_channels": 4, "kernel_size": 8, "stride": 8}}, {"ReLU": None}, {"Flatten": None}]
NETS: dict[str, dict[str, Any]] = {
    "MLPNet": {"hid_layers": [16], "normalize": True},
    "DuelingMLPNet": {"hid_layers": [16]},
    "RecurrentNet": {"fc_hid_layers": [8], "rnn_hidden_size": 8, "seq_len": 4, "cell_type": "GRU"},
    "TorchArcNet": {
        "arc": {
            "modules": {"body": {"Sequential": [{"LazyLinear": {"out_features": 16}}, {"Tanh": None}]}},
            "graph": GRAPH,
        }
    },
    "ConvNet": CONV,
    "DuelingConvNet": CONV,
    "TorchArcNet of images": {"arc": {"modules": {"body": {"Sequential": LAYERS}}, "graph": GRAPH}},
}
ENVS = {
    "classic": {"name": "CartPole-v0", "frame_op": "concat", "frame_op_len": 2},
    "box2d": {"name": "BipedalWalker-v2"},
    "robots": {"name": "RoboschoolHopper-v1"},
    "atari": {"name": "PongNoFrameskip-v4", "frame_op": "concat", "frame_op_len": 4, "reward_scale": "sign"},
}
VALUES = ("SARSA", "VanillaDQN", "DQN", "DoubleDQN")


def fits(algorithm: str, net: str, env: str) -> bool:
    """Whether the combination ever made sense."""
    if algorithm == "Random":
        return net == "MLPNet"
    images = "Conv" in net or "images" in net
    discrete = env in ("classic", "atari")
    return (
        images == (env == "atari")
        and (discrete or algorithm not in VALUES)
        and ("Dueling" not in net or algorithm in VALUES)
    )


MATRIX = [
    (f"{algorithm['name']}-{memory['name']}-{net}-{env}".replace(" ", "_"), algorithm, memory, net, env)
    for (algorithm, memory), net, env in itertools.product(COMBINATIONS, NETS, ENVS)
    if fits(algorithm["name"], net, env)
]


def run(source: Any, name: str, frames: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # graphs take longer than these runs
    monkeypatch.setattr(Trial, "_draw", lambda *args: None)
    sets = {"env.max_frame": str(frames), "meta.max_session": "1", "meta.log_frequency": "100"}
    spec = load_spec(source, name, sets={**sets, **({"env": "CartPole-v0"} if name == "a2c_gae_rnn" else {})})
    done = launch.run_spec(spec, Mode.DEV, Options(out=folder, device="cpu", progress=False))
    assert done.crashed == []
    assert done.metrics["frame"] >= frames
    assert RunFile.open(Layout.open(done.folder)).status is Status.COMPLETED


def matrix_spec(algorithm: dict[str, Any], memory: dict[str, Any], net: str, env: str) -> dict[str, Any]:
    """A raw spec of version 4."""
    kind = net.split(maxsplit=1)[0]
    raw = {
        "agent": [
            {
                "name": "A",
                "algorithm": algorithm,
                "memory": memory | (SIL_RING if "SIL" in algorithm["name"] else {}),
                "net": {} if algorithm["name"] == "Random" else {"type": kind, **COMMON, **NETS[net]},
            }
        ],
        "env": [{"max_t": None, "max_frame": 100, "num_envs": 1, **ENVS[env]}],
        "body": {"product": "outer", "num": 1},
        "meta": {"distributed": False, "eval_frequency": 100, "max_session": 1, "max_trial": 1},
    }
    return {"x": raw}


@pytest.mark.parametrize("name", SAMPLE)
def test_some(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = [path for path, other in NAMES if other == name]
    run(path, name, 160, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "name"), NAMES, ids=[name for _, name in NAMES])
def test_golden(path: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(path, name, 300, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "memory", "net", "env"), [m[1:] for m in MATRIX], ids=[m[0] for m in MATRIX])
def test_each_combination(
    algorithm: dict[str, Any],
    memory: dict[str, Any],
    net: str,
    env: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(matrix_spec(algorithm, memory, net, env), "x", 200, tmp_path, monkeypatch)
