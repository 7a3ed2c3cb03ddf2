"""Rollouts of envs that live on a device; the device is a CPU here, and a recorder stands in for CUDA's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.learner import NonFiniteLoss
from slm_lab.env.make import make_env
from slm_lab.experiment.session import session as session_module
from slm_lab.experiment.session.rollouts import DeviceRollouts, plays_rollouts, rollouts_for
from slm_lab.experiment.session.run import Mode, Options, Run
from slm_lab.experiment.session.session import Session
from slm_lab.lib.files import write_json
from slm_lab.lib.graphs import Replayed
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

N, T = 6, 16
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")
"""Operations whose results a host has to wait for."""


def make_spec(**env: Any) -> Spec:
    clip = {"name": "no_decay", "start_val": 0.2}
    return load_spec(
        {
            "name": "device",
            "agent": {
                "name": "PPO",
                "algorithm": {
                    "name": "PPO",
                    "clip_eps_spec": clip,
                    "time_horizon": T,
                    "minibatch_size": 32,
                    "training_epoch": 2,
                },
                "memory": {"name": "OnPolicyBatchReplay"},
                "net": {"type": "MLPNet", "hid_layers": [16], "optim_spec": {"name": "RMSprop", "lr": 0.001}},
            },
            "env": {"name": "CartPole-v1", "num_envs": N, "max_t": 20, "max_frame": 20 * N * T, **env},
            "meta": {"max_session": 1, "log_frequency": 500, "checkpoint_interval": 0, "compile": "off"},
        }
    )


def make(**env: Any) -> tuple[Agent, Any]:
    spec = make_spec(vectorization="tensor", **env)
    made = make_env(spec.env, device="cpu:0")
    made.reset(4)
    return Agent(spec, made.info, seed=1), made


def play(agent: Agent, env: Any, rollouts: Any, calls: list[int]) -> list[float]:
    found: list[float] = []
    for steps in calls:
        found += rollouts.play(steps)[0]
        agent.maybe_update(1)
    return found


class NoWaiting(TorchDispatchMode):
    """Nothing inside may wait for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(word in str(func) for word in WAITS), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("env", [{}, {"name": "Pendulum-v1", "normalize_obs": True, "normalize_reward": True}])
def test_the_same_as_step_by_step(env: dict[str, Any]) -> None:
    agent, device = make(**env)
    rollouts = rollouts_for(agent, device)
    assert isinstance(rollouts, DeviceRollouts)
    returns = play(agent, device, rollouts, [T, 5, T - 5, T, T])
    single, other = make(**env)
    found: list[float] = []
    for _ in range(4 * T):
        obs = other.obs
        action = single.act(obs)
        step = other.step(action)
        single.observe(obs, action, step)
        found += step.episode_return
        single.maybe_update(1)
    assert len(returns) > N
    assert returns == pytest.approx(found)
    for name, weight in agent.weights().items():
        torch.testing.assert_close(weight, single.weights()[name], rtol=1e-4, atol=1e-5)


def test_goes_on_exactly_in_the_middle_of_a_rollout() -> None:
    agent, env = make()
    rollouts = rollouts_for(agent, env)
    play(agent, env, rollouts, [T, T, 7])
    states = agent.state_dict(), env.state_dict()
    other, again = make()
    other.load_state_dict(states[0])
    again.load_state_dict(states[1])
    rest = [T - 7, T, T]
    assert play(agent, env, rollouts, rest) == play(other, again, rollouts_for(other, again), rest)
    assert np.array_equal(env.seen, again.seen)
    for name, weight in agent.weights().items():
        assert torch.equal(weight, other.weights()[name])


@pytest.mark.parametrize("env", [{}, {"name": "Pendulum-v1", "normalize_obs": True, "normalize_reward": True}])
def test_nothing_waits_inside_of_a_rollout(env: dict[str, Any]) -> None:
    agent, device = make(**env)
    rollouts: Any = rollouts_for(agent, device)
    with NoWaiting(), torch.no_grad():
        rollouts._steps(0, T)
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        torch.ones(()).item()


def test_nothing_waits_inside_of_an_update() -> None:
    agent, device = make()
    rollouts: Any = rollouts_for(agent, device)
    rollouts.play(T)
    learner = agent.algorithm.learner  # type: ignore[attr-defined]
    learner.defers_check = True
    batch = agent.memory.sample()
    with NoWaiting(), torch.no_grad():
        stats = agent.algorithm.update(batch)
    agent._cpu = False
    agent.check(stats)
    learner.optims["net"].params.flat[3] = torch.inf
    learner._since = 0
    with torch.no_grad():
        broken = agent.algorithm.update(batch)
    with pytest.raises(NonFiniteLoss, match=r"not finite \(loss nan"):
        agent.check(broken)


class Tape(TorchDispatchMode):
    """A stand-in for a CUDA graph: repeats operations on the very tensors of the recording."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.before: dict[int, tuple[Any, Any]] = {}
        self.own: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for storage in (t.untyped_storage() for t in tensors_of((args, kwargs))):
            if storage.data_ptr() not in self.own | self.before.keys():
                self.before[storage.data_ptr()] = storage, storage.clone()
        out = func(*args, **kwargs)
        made = tensors_of(out)
        self.own |= {t.untyped_storage().data_ptr() for t in made} - self.before.keys()
        self.operations.append((func, args, kwargs, made))
        return out

    def replay(self) -> None:
        for func, args, kwargs, made in self.operations:
            for new, old in zip(tensors_of(func(*args, **kwargs)), made, strict=True):
                if new.data_ptr() != old.data_ptr():
                    old.copy_(new)


def tensors_of(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def record(fn: Callable[[], Any]) -> Callable[[], Any]:
    """As `lib.graphs.record_cuda`: the recording itself changes nothing."""
    with Tape() as tape:
        fn()
    for storage, content in tape.before.values():
        storage.copy_(content)
    return tape.replay


@pytest.mark.parametrize(
    "keys", [{}, {"normalize_obs": True, "normalize_reward": True}, {"clip_obs": 0.03}, {"reward_scale": 0.5}]
)
def test_a_recorded_rollout_is_the_same(keys: dict[str, Any]) -> None:
    agent, env = make(**keys)
    rollouts: Any = rollouts_for(agent, env)
    rollouts._replayed = Replayed(lambda: rollouts._steps(0, T), torch.device("cpu"), record)
    plain, other = make(**keys)
    calls = [T] * 6
    assert play(agent, env, rollouts, calls) == play(plain, other, rollouts_for(plain, other), calls)
    assert len(rollouts._replayed._replay.__self__.operations) > T
    for name, weight in agent.weights().items():
        assert torch.equal(weight, plain.weights()[name])
    # a shorter stretch is not recorded, and goes on from where the recording has led
    assert play(agent, env, rollouts, [5]) == play(plain, other, rollouts_for(plain, other), [5])
    assert torch.equal(env.seen, other.seen)


def test_a_session_on_a_device_is_resumed_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "take_device", lambda run: "cpu:0")
    spec = make_spec()

    def run(name: str, stop_after: int | None = None, layout: Layout | None = None) -> tuple[Layout, Session]:
        if layout is None:
            layout = Layout.new(tmp_path / name, spec.name)
            layout.make_folders()
            write_json(layout.spec(), spec.to_dict())
        calls = iter(range(10**6))
        stop = None if stop_after is None else lambda: next(calls) >= stop_after
        made = Session(Run(spec, Mode.TRAIN, layout, threads=1, options=Options(device="cpu")), stop=stop)
        made.run()
        return layout, made

    play, played = DeviceRollouts.play, []
    monkeypatch.setattr(DeviceRollouts, "play", lambda self, steps: played.append(steps) or play(self, steps))
    _, whole = run("whole")
    assert sum(played) * N == whole.frame
    layout, _ = run("parts", stop_after=7)
    _, parts = run("parts", layout=layout)
    assert whole.frame == parts.frame == spec.env.max_frame
    weights = parts.agent.weights()
    assert all(torch.equal(w, weights[name]) for name, w in whole.agent.weights().items())
    hidden = ("fps", "wall_t")
    rows, again = (
        [{k: v for k, v in row.items() if k not in hidden} for row in s.tracker.rows] for s in (whole, parts)
    )
    assert rows == again


def test_only_rollouts_that_stay_there_are_played_on_a_device() -> None:
    dqn = {"name": "DQN", "gamma": 0.99, "training_frequency": 4, "training_start_step": 32}
    raw = make_spec().to_dict()
    raw["agent"] |= {"algorithm": dqn, "memory": {"name": "Replay", "batch_size": 32, "max_size": 1000}}
    assert plays_rollouts(make_spec(), on_device=True)
    assert not plays_rollouts(load_spec(raw), on_device=True)
