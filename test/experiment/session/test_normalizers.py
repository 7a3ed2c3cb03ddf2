"""Running statistics learn in training; evaluation and enjoy use them as they stand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from slm_lab import api
from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.env.moments import Moments
from slm_lab.env.snapshot import unpack
from slm_lab.experiment.play.enjoy import SavedPolicy
from slm_lab.experiment.session.evaluate import Evaluator
from slm_lab.experiment.session.run import Mode, Options, Run
from slm_lab.experiment.session.session import Session, checkpoint
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
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


@pytest.mark.parametrize("memory", [{"name": "Replay"}, {"name": "PrioritizedReplay", "alpha": 0.6, "epsilon": 0.01}])
def test_a_replay_memory_keeps_what_the_env_gave(options: Options, memory: dict[str, Any]) -> None:
    algorithm = {"name": "DQN", "gamma": 0.99, "training_frequency": 50}
    env = {"name": "CartPole-v1", "num_envs": 2, "max_frame": 600, "normalize_obs": True, "normalize_reward": True}
    net = {"type": "MLPNet", "hid_layers": [4]}
    agent = {"name": "a", "algorithm": algorithm, "memory": {"batch_size": 8, "max_size": 500, **memory}, "net": net}
    spec = load_spec({"name": "kept", "agent": agent, "env": env, "meta": {"version": 6}})
    layout = Layout.new(options.out, spec.name)
    layout.make_folders()
    session = Session(Run(spec, Mode.TRAIN, layout, options=options))
    session.run()
    tree = checkpoint.load(layout.checkpoint(0, 0))
    arrays = tree["agent"]["memory"]["arrays"]
    # CartPole pays 1 in each step
    assert arrays["reward"].unique().tolist() == [1.0]
    assert torch.equal(arrays["obs"]["obs"][tree["agent"]["memory"]["head"]], torch.from_numpy(raw_obs(tree)))
    drawn = session.agent.memory.sample()
    scale = 1 / np.sqrt(float(unpack(tree["normalizer"]["reward"]["var"])))
    assert drawn.reward.tolist() == pytest.approx([scale] * 8)
    kept = arrays["obs"]["obs"].flatten(0, 1)[drawn.index].numpy()
    moments = Moments((4,))
    moments.load_state_dict(tree["normalizer"]["obs"])
    expected = np.clip((kept - moments.mean) / np.sqrt(moments.var), -10, 10)
    np.testing.assert_allclose(drawn.obs.numpy(), expected, rtol=1e-4, atol=1e-5)


def raw_obs(tree: dict[str, Any]) -> np.ndarray:
    """What the env itself shows in a checkpoint."""
    return unpack(tree["env"]["raw_obs"])


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
