"""What can only be seen on an NVIDIA GPU. `uv run pytest -m gpu`; skipped without one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from slm_lab.agent.agent import Agent
from slm_lab.env.counted import CountedVec
from slm_lab.env.make import make_env
from slm_lab.experiment.session.rollouts import DeviceRollouts, rollouts_for
from slm_lab.experiment.session.run import Mode, Options, Run
from slm_lab.experiment.session.session import Session
from slm_lab.lib.files import write_json
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")]
CUDA = "cuda:0"
T, N = 16, 64


def make_spec(algorithm: str, compile_mode: str) -> Spec:
    """PPO in tensor envs, or SAC in gymnasium's."""
    clip = {"name": "no_decay", "start_val": 0.2}
    ppo = {"name": "PPO", "clip_eps_spec": clip, "time_horizon": T, "minibatch_size": 256, "training_epoch": 2}
    sac = {"name": "SoftActorCritic", "training_start_step": 100, "training_frequency": 4}
    replay = {"name": "PrioritizedReplay", "batch_size": 32, "max_size": 5000, "alpha": 0.6, "epsilon": 0.01}
    env: dict[str, Any] = {"name": "CartPole-v1", "num_envs": N, "max_frame": 12 * T * N}
    if algorithm == "sac":
        env = {"name": "Pendulum-v1", "num_envs": 2, "max_frame": 800}
    return load_spec(
        {
            "name": "gpu",
            "agent": {
                "name": algorithm,
                "algorithm": ppo if algorithm == "ppo" else sac,
                "memory": {"name": "OnPolicyBatchReplay"} if algorithm == "ppo" else replay,
                "net": {"type": "MLPNet", "hid_layers": [32]},
            },
            "env": env,
            "meta": {"max_session": 1, "log_frequency": 400, "checkpoint_interval": 0, "compile": compile_mode},
        }
    )


def train(spec: Spec, layout: Layout, device: str, stop_after: int | None = None) -> Session:
    if not layout.spec().exists():
        layout.make_folders()
        write_json(layout.spec(), spec.to_dict())
    calls = iter(range(10**9))
    stop = None if stop_after is None else lambda: next(calls) >= stop_after
    session = Session(Run(spec, Mode.TRAIN, layout, threads=1, options=Options(device=device)), stop=stop)
    session.run()
    return session


@pytest.mark.parametrize("compile_mode", ["off", "on"])
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_the_same_seed_gives_the_same_weights(algorithm: str, compile_mode: str, tmp_path: Path) -> None:
    """Dense layers on one GPU are bitwise equal from run to run; convolutions need not be."""
    spec = make_spec(algorithm, compile_mode)
    one, other = (train(spec, Layout.new(tmp_path / k, spec.name), CUDA) for k in "ab")
    weights = other.agent.weights()
    assert all(torch.equal(w, weights[name]) for name, w in one.agent.weights().items())


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_run_goes_on_from_a_gpu_to_a_cpu_and_back(algorithm: str, tmp_path: Path) -> None:
    spec = make_spec(algorithm, "off")
    layout, warnings = Layout.new(tmp_path, spec.name), []
    handler = logger.add(lambda message: warnings.append(message.record["message"]), level="WARNING")
    stops = (3, 5, None) if algorithm == "ppo" else (150, 100, None)
    frames = [train(spec, layout, d, s).frame for d, s in zip((CUDA, "cpu", CUDA), stops, strict=True)]
    logger.remove(handler)
    assert 0 < frames[0] < frames[1] < frames[2] == spec.env.max_frame
    assert [w for w in warnings if f"made with device {CUDA}, this is cpu: not the same bits" in w]
    assert [w for w in warnings if f"made with device cpu, this is {CUDA}: not the same bits" in w]


def test_a_recorded_rollout_and_update_equal_plain_ones() -> None:
    weights, returns = [], []
    for recorded in (True, False):
        spec = make_spec("ppo", "on" if recorded else "off")
        env: Any = make_env(spec.env.model_copy(update={"vectorization": "tensor"}), device=CUDA)
        assert isinstance(env, CountedVec)
        env.reset(3)
        agent = Agent(spec, env.info, seed=0, device=CUDA, compile=recorded)
        rollouts: Any = rollouts_for(agent, env)
        assert isinstance(rollouts, DeviceRollouts)
        if not recorded:
            rollouts._replayed = None
        returns.append([])
        for _ in range(5):
            returns[-1] += rollouts.play(T)[0]
            agent.maybe_update(1)
        weights.append(agent.weights())
    assert len(returns[0]) > N
    # the first rollouts are the same to the bit; later ones follow from weights that differ in their last bits
    assert returns[0][:N] == returns[1][:N]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-2, atol=1e-3)


def test_tf32_is_on_where_it_is_asked_for(tmp_path: Path) -> None:
    spec = make_spec("ppo", "off")
    before = torch.backends.cudnn.allow_tf32
    tf32 = spec.model_copy(update={"meta": spec.meta.model_copy(update={"precision": "tf32"})})
    assert train(tf32, Layout.new(tmp_path, spec.name), CUDA).agent.precision == "tf32"
    assert torch.backends.cudnn.allow_tf32 == before
