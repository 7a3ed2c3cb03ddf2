"""Cycles, steps and updates of a DQN as one call: the same as one after the other, and exact after a resumption."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.dqn import DQN
from slm_lab.agent.algorithm.learner import NonFiniteLoss
from slm_lab.env.make import make_env
from slm_lab.env.tensor import TensorVec
from slm_lab.experiment.session.cycles import Cycles, learns_in_cycles
from slm_lab.experiment.session.rollouts import rollouts_for
from slm_lab.lib.seeding import derive
from slm_lab.spec.load import load_spec
from slm_lab.types import Stats

pytestmark = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")
LINE = {"name": "linear_decay", "start_val": 1.0, "end_val": 0.04, "end_step": 200}
POLYAK = {"update_type": "polyak", "polyak_coef": 0.1, "update_frequency": 4}
KINDS: dict[str, dict[str, Any]] = {
    # four steps of one env; a target net that is replaced in the middle of a call
    "one env": {"algorithm": {"name": "DQN", "training_frequency": 4}, "num_envs": 1},
    # several gradient steps after each vector step; a memory that overflows
    "four envs": {
        "algorithm": {"name": "DoubleDQN", "training_frequency": 4, "training_iter": 2},
        "net": POLYAK,
        "num_envs": 4,
    },
    "no target": {"algorithm": {"name": "VanillaDQN", "training_frequency": 4}, "num_envs": 2},
}


def make(kind: str = "one env", *, compile: bool = True, **keys: dict[str, Any]) -> tuple[Agent, TensorVec, Any]:
    said: dict[str, Any] = {k: dict(KINDS[kind].get(k, {})) | keys.get(k, {}) for k in ("algorithm", "net", "memory")}
    replace = {"update_type": "replace", "update_frequency": 12} if kind != "no target" else {}
    raw = {
        "name": "cycles",
        "agent": {
            "name": "dqn",
            "algorithm": {"explore_var_spec": LINE, "gamma": 0.9, "training_start_step": 20, **said["algorithm"]},
            "memory": {"name": "Replay", "batch_size": 8, "max_size": 200, **said["memory"]},
            "net": {
                "type": "MLPNet",
                "hid_layers": [8],
                "optim_spec": {"name": "Adam", "lr": 0.01},
                "lr_scheduler_spec": {"name": "LinearToZero", "frame": 3000},
                **replace,
                **said["net"],
            },
        },
        "env": {"name": "CartPole-v1", "num_envs": KINDS[kind]["num_envs"], "max_frame": 2000, "max_t": 15},
        "meta": {},
    }
    spec = load_spec(raw)
    env: Any = make_env(spec.env.model_copy(update={"vectorization": "tensor"}))
    env._compile = False
    env.reset(derive(0, 0))
    agent = Agent(spec, env.info, seed=1, compile=compile)
    return agent, env, rollouts_for(agent, env) if compile else None


def play(agent: Agent, env: TensorVec, rollouts: Any, begin: int, steps: int, most: int = 100) -> tuple[Any, Stats]:
    """Act, step and learn, in calls of at most so many steps; gives returns and the statistics of the last update."""
    n, t, found, stats = env.info.num_envs, begin, [], None
    while t < begin + steps:
        left = begin + steps - t
        k = 0 if rollouts is None else rollouts.left(n * min(left, most))
        if k:
            found += rollouts.play(k)[0]
        else:
            k, obs = 1, env.obs
            action = agent.act(obs)
            step = env.step(action)
            agent.observe(obs, action, step)
            found += step.episode_return
        t += k
        stats = agent.maybe_update(t * n) or (rollouts and rollouts.learned) or stats
    assert stats is not None
    return found, stats


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_is_many_cycles_and_a_resumption_is_exact(kind: str) -> None:
    whole, single, resumed = make(kind), make(kind, compile=False), make(kind)
    assert isinstance(whole[2], Cycles)
    (returns, stats), (expected, said) = (play(*run, 0, 150) for run in (whole, single))
    assert returns == expected
    assert whole[0].opt_step == single[0].opt_step
    for name, value in stats.items():
        torch.testing.assert_close(value, said[name], rtol=1e-3, atol=1e-4)
    for name, weight in whole[0].weights().items():
        torch.testing.assert_close(weight, single[0].weights()[name], rtol=1e-4, atol=1e-4)
    resumed[0].load_state_dict(whole[0].state_dict())
    resumed[1].load_state_dict(whole[1].state_dict())
    # one cycle at a time here, many there
    (returns, stats), (expected, said) = play(*whole, 150, 150), play(*resumed, 150, 150, most=whole[2]._each)
    assert returns == expected
    assert all(torch.equal(stats[name], said[name]) for name in stats)
    for name, weight in whole[0].weights().items():
        assert torch.equal(weight, resumed[0].weights()[name])
    algorithm: Any = whole[0].algorithm
    if algorithm.target is not None:
        assert torch.equal(algorithm.target.params.flat, resumed[0].algorithm.target.params.flat)  # type: ignore[attr-defined]


class Odd(DQN):
    """Learns twice on each batch."""

    def learn(self, memory: Any) -> None:
        super().learn(memory)
        super().learn(memory)


@pytest.mark.parametrize(
    "keys",
    [
        {"memory": {"use_cer": True}},
        {"algorithm": {"num_step_returns": 3}},
        {"algorithm": {"training_batch_iter": 2}},
        {"algorithm": {"training_frequency": 9}},
        {"algorithm": {"training_iter": 5}},
        {"net": {"noisy_std": 0.5}, "algorithm": {"explore_var_spec": None}},
    ],
)
def test_what_is_not_alike_each_time_is_learned_one_by_one(keys: dict[str, Any]) -> None:
    agent, env, _ = make(compile=False, **keys)
    agent.algorithm.learner.compile = True  # type: ignore[attr-defined]
    assert not learns_in_cycles(agent, env)


def test_who_learns_in_a_way_of_its_own_is_asked_each_time() -> None:
    agent, env, _ = make(compile=False)
    algorithm: Any = agent.algorithm
    algorithm.learner.compile = True
    assert learns_in_cycles(agent, env)
    algorithm.__class__ = Odd
    assert not learns_in_cycles(agent, env)


def test_an_env_that_was_reset_from_outside_begins_no_cycle() -> None:
    agent, env, cycles = make()
    play(agent, env, cycles, 0, 40)
    assert cycles.left(1000) == 32
    cycles.play(32)
    assert agent.opt_step == 13
    assert cycles.learned is not None
    env.reset(5)
    assert cycles.left(1000) == 4
    before = agent.opt_step
    cycles.play(4)
    assert agent.opt_step == before
    assert cycles.learned is None


def test_what_is_not_finite_stops_the_run() -> None:
    agent, env, cycles = make()
    play(agent, env, cycles, 0, 40)
    with torch.no_grad():
        agent.algorithm.optims["net"].flat.fill_(np.inf)
    with pytest.raises(NonFiniteLoss, match=f"gradient step {agent.opt_step + 1};"):
        cycles.play(cycles.left(1000))
