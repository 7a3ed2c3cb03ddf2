"""Running statistics learn in training; evaluation and enjoy use them as they stand."""

from collections.abc import Callable

import numpy as np
import pytest

from slm_lab import api
from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.env.moments import Moments
from slm_lab.experiment import checkpoint
from slm_lab.experiment.enjoy import SavedPolicy
from slm_lab.experiment.evaluate import Evaluator
from slm_lab.experiment.run import Run
from slm_lab.experiment.session import Session
from slm_lab.spec.model import Spec

Tiny = Callable[..., Spec]


@pytest.fixture
def run(new_run: Callable[..., Run]) -> Run:
    """Of a whole session with statistics and evaluations."""
    run = new_run(env__normalize_obs=True, env__normalize_reward=True, meta__rigorous_eval=2, meta__eval_frequency=500)
    Session(run).run()
    return run


def test_they_are_saved_with_the_policy(run: Run) -> None:
    for path in (run.layout.checkpoint(0, 0), run.layout.best(0, 0)):
        tree = checkpoint.load(path)
        saved = SavedPolicy.open(path)
        env = saved.env(num_envs=2)
        assert env.normalizer_state() == tree["normalizer"]
        # what all frames have shown: one obs of each env at the beginning, then one a frame
        assert tree["normalizer"]["obs"]["count"] == tree["counters"]["frame"] + 4
        assert tree["normalizer"]["reward"]["count"] == tree["counters"]["frame"]
        env.reset(0)
        for _ in range(20):
            env.step(np.zeros(2, np.int64))
        assert env.normalizer_state() == tree["normalizer"]


def test_evaluation_sees_with_the_statistics_of_training(tiny: Tiny) -> None:
    spec = tiny(env__normalize_obs=True)
    train = make_env(spec.env)
    train.reset(0)
    for _ in range(30):
        train.step(np.zeros(4, np.int64))
    agent = Agent(spec, train.info, seed=0)
    evaluator = Evaluator(spec.env, 1, seed=0)
    seen: list[np.ndarray] = []
    act = agent.act
    agent.act = lambda obs, explore=True: seen.append(obs.copy()) or act(obs, explore)  # type: ignore[method-assign]
    state = train.normalizer_state()
    evaluator(agent, 100, state)
    assert evaluator._env.normalizer_state() == train.normalizer_state() == state
    moments = Moments((4,))
    moments.load_state_dict(state["obs"])
    raw = np.array(seen) * np.sqrt(moments.var) + moments.mean
    # within CartPole's bounds, which normalized observations leave
    assert np.abs(raw[0]).max() <= 0.05 + 1e-6
    assert np.abs(seen[0]).max() > 0.05


def test_the_library_evaluates_with_them_too(run: Run) -> None:
    policy = api.load_agent(run.layout.checkpoint(0, 0))
    first = policy.evaluate(4, num_envs=2, seed=1)
    assert first == policy.evaluate(4, num_envs=2, seed=1)
