"""Rollouts of tensor envs in one call: the same as step by step, and exact after a resumption."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from slm_lab import api
from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.dqn import DoubleDQN
from slm_lab.agent.algorithm.ppo import PPO
from slm_lab.agent.algorithm.random import Random
from slm_lab.env.make import make_env
from slm_lab.env.tensor import TensorVec
from slm_lab.experiment.session.rollouts import Rollouts, _acts_by_inputs, rollouts_for
from slm_lab.lib.seeding import derive
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec
from slm_lab.types import Act

pytestmark = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")
SPECS = Path(__file__).parents[3] / "specs"
FILE = SPECS / "ppo" / "ppo_cartpole.json"
TINY = {"agent.net.hid_layers": "[8]", "agent.memory.batch_size": "8", "agent.algorithm.training_start_step": "20"}
KINDS: dict[str, tuple[Path, str, dict[str, str]]] = {
    "ppo": (FILE, "ppo_cartpole", {"agent.net.hid_layers": "[8]"}),
    # a memory with priorities, several envs, an epsilon that moves in every step
    "dqn": (SPECS / "dqn" / "ddqn_per_cartpole.json", "ddqn_per_cartpole", TINY | {"env.num_envs": "3"}),
    # random actions at first, an episode that is cut off
    "sac": (SPECS / "sac" / "sac_pendulum.json", "sac_pendulum", TINY | {"env.max_t": "40"}),
}


def spec(kind: str) -> Spec:
    file, name, sets = KINDS[kind]
    return load_spec(file, name, sets=sets)


def make(kind: str, whole: bool) -> tuple[Agent, TensorVec, Rollouts | None]:
    made: Any = make_env(spec(kind).env.model_copy(update={"vectorization": "tensor"}))
    made._compile = False
    made.reset(derive(0, 0))
    agent = Agent(spec(kind), made.info, seed=1, compile=whole)
    return agent, made, rollouts_for(agent, made) if whole else None


def play(agent: Agent, env: TensorVec, rollouts: Rollouts | None, begin: int, steps: int) -> list[float]:
    """Act, step and learn, in calls of at most 13 steps; gives returns."""
    found: list[float] = []
    n = env.info.num_envs
    t, end = begin, begin + steps
    while t < end:
        k = 0 if rollouts is None else rollouts.left(n * min(13, end - t))
        if rollouts is not None and k:
            found += rollouts.play(k)[0]
        else:
            k, obs = 1, env.obs
            action = agent.act(obs)
            step = env.step(action)
            agent.observe(obs, action, step)
            found += step.episode_return
        t += k
        agent.maybe_update(t * n)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_is_many_steps_and_a_resumption_is_exact(kind: str) -> None:
    whole, single, resumed = make(kind, True), make(kind, False), make(kind, True)
    assert whole[2] is not None
    assert resumed[2] is not None
    returns = [play(*run, 0, 70) for run in (whole, single)]
    np.testing.assert_allclose(*returns, rtol=1e-5)
    assert returns[0]
    for name, weight in whole[0].weights().items():
        torch.testing.assert_close(weight, single[0].weights()[name], rtol=1e-4, atol=1e-5)
    resumed[0].load_state_dict(whole[0].state_dict())
    resumed[1].load_state_dict(whole[1].state_dict())
    assert play(*whole, 70, 100) == play(*resumed, 70, 100)
    assert np.array_equal(whole[1].obs, resumed[1].obs)
    for name, weight in whole[0].weights().items():
        assert torch.equal(weight, resumed[0].weights()[name])


def test_who_acts_in_a_way_of_its_own_is_not_played() -> None:
    class Odd(PPO):
        """Acts against its policy."""

        def act(self, obs: Tensor, explore: bool = True) -> Act:
            return Act(1 - super().act(obs, explore).action)

    assert _acts_by_inputs(PPO)
    assert _acts_by_inputs(DoubleDQN)
    assert not _acts_by_inputs(Odd)
    assert not _acts_by_inputs(Random)


@pytest.mark.parametrize(("first", "then"), [("off", "on"), ("on", "off")])
def test_a_run_goes_on_with_the_kind_of_env_it_began_with(first: str, then: str, tmp_path: Path) -> None:
    sets = {"meta.max_session": "1", "env.max_frame": "256", "meta.compile": first}
    done = api.run(FILE, "ppo_cartpole", sets=sets, out=tmp_path)
    ended = api.resume(done.folder, sets={"env.max_frame": "512", "meta.compile": then})
    assert not ended.crashed
    assert ended.metrics["frame"] == 512
