"""Rollouts of tensor envs in one call: the same as step by step, and exact after a resumption."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slm_lab import api
from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.env.tensor import TensorVec
from slm_lab.experiment.rollouts import Rollouts, rollouts_for
from slm_lab.lib.seeding import derive
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

pytestmark = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")
FILE = Path(__file__).parents[2] / "specs" / "ppo" / "ppo_cartpole.json"


def spec() -> Spec:
    return load_spec(FILE, "ppo_cartpole", sets={})


def make(whole: bool) -> tuple[Agent, TensorVec, Rollouts | None]:
    made: Any = make_env(spec().env.model_copy(update={"vectorization": "tensor"}))
    made.reset(derive(0, 0))
    agent = Agent(spec(), made.info, seed=1, compile=True)
    return agent, made, rollouts_for(agent, made) if whole else None


def play(agent: Agent, env: TensorVec, rollouts: Rollouts | None, steps: int) -> list[float]:
    """Act, step and learn, in calls of at most 13 steps; gives returns."""
    found: list[float] = []
    while steps:
        if rollouts is not None:
            k = min(13, steps, rollouts.left())
            found += rollouts.play(k)[0]
        else:
            k, obs = 1, env.obs
            action = agent.act(obs)
            step = env.step(action)
            agent.observe(obs, action, step)
            found += step.episode_return
        steps -= k
        agent.maybe_update(1)
    return found


def test_one_call_is_many_steps_and_a_resumption_is_exact() -> None:
    whole, single, resumed = make(True), make(False), make(True)
    assert whole[2] is not None
    assert resumed[2] is not None
    assert single[2] is None
    returns = [play(*run, 70) for run in (whole, single)]
    assert returns[0] == returns[1] != []
    for name, weight in whole[0].weights().items():
        torch.testing.assert_close(weight, single[0].weights()[name], rtol=1e-4, atol=1e-5)
    resumed[0].load_state_dict(whole[0].state_dict())
    resumed[1].load_state_dict(whole[1].state_dict())
    assert play(*whole, 100) == play(*resumed, 100)
    assert np.array_equal(whole[1].obs, resumed[1].obs)
    for name, weight in whole[0].weights().items():
        assert torch.equal(weight, resumed[0].weights()[name])


@pytest.mark.parametrize(("first", "then"), [("off", "on"), ("on", "off")])
def test_a_run_goes_on_with_the_kind_of_env_it_began_with(first: str, then: str, tmp_path: Path) -> None:
    sets = {"meta.max_session": "1", "env.max_frame": "256", "meta.compile": first}
    done = api.run(FILE, "ppo_cartpole", sets=sets, out=tmp_path)
    ended = api.resume(done.folder, sets={"env.max_frame": "512", "meta.compile": then})
    assert not ended.crashed
    assert ended.metrics["frame"] == 512
