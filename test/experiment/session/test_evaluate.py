import dataclasses
import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch

from slm_lab.agent.agent import Agent
from slm_lab.env.base import VecEnv
from slm_lab.env.make import make_env
from slm_lab.experiment.session import evaluate
from slm_lab.experiment.session.evaluate import Evaluator, play
from slm_lab.experiment.session.run import Run
from slm_lab.experiment.session.session import Session
from slm_lab.spec.model import Spec

Tiny = Callable[..., Spec]


def make(spec: Spec, num_envs: int) -> tuple[Agent, VecEnv]:
    env = make_env(spec.env, num_envs=num_envs)
    return Agent(spec, env.info, seed=0), env


def test_every_env_plays_its_share(tiny: Tiny) -> None:
    agent, env = make(tiny(), 3)
    returns, lengths = play(agent, env, 7, seed=5)
    assert len(returns) == len(lengths) == 7
    # CartPole pays 1 a step
    assert returns == [float(n) for n in lengths]
    # the same three envs, one after the other
    expected = []
    for i, share in enumerate([3, 2, 2]):
        env.reset(5)
        found: list[float] = []
        while len(found) < share:
            step = env.step(agent.act(env.obs, explore=False))
            ended = np.flatnonzero(step.terminated | step.truncated).tolist()
            if i in ended:
                found.append(step.episode_return[ended.index(i)])
        expected += found
    assert returns == expected


def test_it_is_greedy_and_repeats(tiny: Tiny) -> None:
    agent, env = make(tiny(), 2)
    assert play(agent, env, 4, seed=1) == play(agent, env, 4, seed=1)
    assert play(agent, env, 4, seed=1) != play(agent, env, 4, seed=2)


def test_on_step_sees_the_beginning_and_each_step(tiny: Tiny) -> None:
    agent, env = make(tiny(), 1)
    seen: list[list[float]] = []
    _, [length] = play(agent, env, 1, seed=1, on_step=lambda env: seen.append(env.obs[0].tolist()))
    assert len(seen) == length
    assert seen[0] == env.reset(1)[0].tolist()


def test_the_global_streams_are_put_back(tiny: Tiny, monkeypatch: object) -> None:
    spec = tiny()
    agent, _ = make(spec, 2)
    evaluator = Evaluator(spec.env, 3, seed=0)

    class Noisy:
        """An env that draws from everything."""

        info = evaluator._env.info

        def __init__(self, env: VecEnv) -> None:
            self._inner = env

        def reset(self, seed: int) -> np.ndarray:
            random.seed(seed), np.random.seed(seed % 2**32), torch.manual_seed(seed)
            return self._inner.reset(seed)

        def step(self, action: np.ndarray) -> object:
            random.random(), np.random.random(), torch.rand(1)
            return self._inner.step(action)

    evaluator._env = Noisy(evaluator._env)  # type: ignore[assignment]
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    evaluator(agent, 100)
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected


def test_an_evaluation_takes_the_threads_of_its_session_alone(
    new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int | None] = []

    def make_envs(*args: Any, **keys: Any) -> VecEnv:
        threads.append(keys.get("threads"))
        return make_env(*args, **keys)

    monkeypatch.setattr(evaluate, "make_env", make_envs)
    run = dataclasses.replace(new_run(meta__max_session=4, meta__rigorous_eval=2, meta__eval_frequency=500), cores=8)
    with ExitStack() as stack:
        Session(run)._build(stack)
    assert threads == [2]


def test_evaluations_at_other_frames_are_others(tiny: Tiny) -> None:
    spec = tiny()
    agent, _ = make(spec, 2)
    evaluator = Evaluator(spec.env, 5, seed=0)
    first = evaluator(agent, 100)
    assert evaluator(agent, 200) != first
    assert evaluator(agent, 100) == first
    evaluator.close()
