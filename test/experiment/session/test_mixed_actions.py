"""Actions that are tuples or dicts of Discrete, MultiDiscrete, MultiBinary and Box, from the spec to the policy."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

from slm_lab import api
from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.experiment.play.enjoy import SavedPolicy, enjoy
from slm_lab.experiment.play.export import export, part_of
from slm_lab.experiment.session.run import Options
from slm_lab.lib.errors import SpecError
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec

SPACE = spaces.Dict(
    {
        "gear": spaces.Discrete(3, start=1),
        "arm": spaces.Tuple([spaces.Box(0.0, 4.0, (2,), np.float32), spaces.MultiBinary(2)]),
        "keys": spaces.MultiDiscrete([2, 3]),
    }
)


class Machine(gym.Env[Any, Any]):
    """Pays for each part that is right: gear 3, arm at 3 and 1 with switches 1 and 0, keys 1 and 2; at most 5.5."""

    action_space = SPACE
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(2, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        reals, switches = action["arm"]
        gain = 1.0 * (action["gear"] == 3) + (switches == [1, 0]).sum() + (action["keys"] == [1, 2]).sum()
        gain += 0.5 - float(((reals - np.array([3.0, 1.0])) ** 2).sum()) / 4
        return np.ones(2, np.float32), gain, True, False, {}


gym.register("Machine-v0", entry_point=Machine)
PPO = {
    "name": "PPO",
    "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
    "time_horizon": 16,
    "minibatch_size": 64,
    "training_epoch": 4,
}
A2C = {"name": "ActorCritic", "lam": 0.9, "training_frequency": 16}
REINFORCE = {"name": "Reinforce", "training_frequency": 16}


def raw(algorithm: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {
        "name": "machine",
        "agent": {
            "name": "machine",
            "algorithm": algorithm,
            "memory": {"name": "OnPolicyBatchReplay"},
            "net": {"type": "MLPNet", "hid_layers": [16], "optim_spec": {"name": "Adam", "lr": 0.01}},
        },
        "env": {"name": "Machine-v0", "num_envs": 8, "max_frame": 512, **keys},
        "meta": {"compile": "off", "log_frequency": 256},
    }


@pytest.mark.parametrize(
    "algorithm",
    [PPO, A2C, REINFORCE, {"name": "Random"}],
    ids=["ppo", "a2c", "reinforce", "random"],
)
def test_every_action_is_one_of_the_env(algorithm: dict[str, Any], tmp_path: Path) -> None:
    spec = raw(algorithm)
    if algorithm["name"] == "Random":
        del spec["agent"]["net"]["optim_spec"]
    done = api.run(load_spec(spec), out=tmp_path, device="cpu")
    assert not done.crashed
    assert done.metrics["frame"] == 512


def test_ppo_learns_all_parts_and_the_policy_gives_the_envs_own_actions(tmp_path: Path) -> None:
    done = api.run(load_spec(raw(PPO, max_frame=12_000)), out=tmp_path, device="cpu")
    assert done.metrics["final_total_reward"] > 4.5
    policy = api.load_agent(done.folder)
    action = policy.act(np.ones(2, np.float32))
    assert SPACE.contains(action)
    assert action["gear"] == 3
    assert action["keys"].tolist() == [1, 2]
    both = policy.act(np.ones((2, 2), np.float32))
    assert len(both) == 2
    assert all(SPACE.contains(one) for one in both)


@pytest.mark.parametrize("algorithm", [PPO, A2C, REINFORCE], ids=["ppo", "a2c", "reinforce"])
def test_compiled_as_eager(algorithm: dict[str, Any]) -> None:
    keys = raw(algorithm)
    # not Adam: advantages of equal observations sum up to 0, and it makes steps of what rounding leaves of that
    keys["agent"]["net"]["optim_spec"] = {"name": "SGD", "lr": 0.1}
    spec = load_spec(keys)
    env = make_env(spec.env)
    agents = [Agent(spec, env.info, seed=0, compile=c) for c in (False, True)]
    for agent in agents:
        obs, rng = env.reset(0), np.random.default_rng(0)
        for frame in range(8, 8 * 17, 8):
            agent.act(obs)
            action = np.concatenate(
                [rng.normal(size=(8, 2)), rng.integers(2, size=(8, 2)), rng.integers(2, size=(8, 3))], 1
            ).astype(np.float32)
            agent.observe(obs, action, env.step(action))
            agent.maybe_update(frame)
    assert agents[1].opt_step > 0
    assert agents[1].compiled
    torch.testing.assert_close(agents[0].weights(), agents[1].weights(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("algorithm", [PPO, A2C, REINFORCE], ids=["ppo", "a2c", "reinforce"])
def test_stopped_and_resumed_as_if_it_had_not_been(algorithm: dict[str, Any], tmp_path: Path) -> None:
    spec = load_spec(raw(algorithm))
    weights = []
    for name, stop in (("whole", None), ("halves", lambda: True)):
        done = api.run(spec, out=tmp_path / name, device="cpu", quiet=True, should_stop=stop)
        if stop is not None:
            assert done.stopped
            done = api.resume(done.folder, quiet=True)
        assert done.metrics["frame"] == 512
        weights.append(load_file(Layout.open(done.folder).weights(0, 0, best=False)))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_enjoy_and_both_kinds_of_files_give_the_envs_own_actions(tmp_path: Path) -> None:
    done = api.run(load_spec(raw(PPO)), out=tmp_path, device="cpu", quiet=True)
    # the env takes no action that is not of its space
    assert len(enjoy(done.folder, Options(out=tmp_path, device="cpu"), episodes=2)) == 2
    obs = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    wanted = api.load_agent(done.folder).act(obs)
    for suffix in (".pt2", ".onnx"):
        made = export(SavedPolicy.open(done.folder), tmp_path / f"policy{suffix}")
        assert made.outputs == ["action.arm.0", "action.arm.1", "action.gear", "action.keys"]
        if suffix == ".pt2":
            found = [x.numpy() for x in torch.export.load(made.path).module()(torch.from_numpy(obs))]
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
            found = session.run(None, {"obs": obs})
        for path, action in zip([("arm", 0), ("arm", 1), ("gear",), ("keys",)], found, strict=True):
            own = part_of(wanted, path)
            assert action.dtype == own.dtype
            np.testing.assert_allclose(action, own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["DQN", "SoftActorCritic", "TD3"])
def test_algorithms_that_can_not_act_so_refuse_it(name: str) -> None:
    keys = {"training_frequency": 4} if name == "DQN" else {}
    spec = raw({"name": name, **keys})
    spec["agent"]["memory"] = {"name": "Replay", "batch_size": 8, "max_size": 100}
    loaded = load_spec(spec)
    with pytest.raises(SpecError, match="Tuple or Dict"):
        Agent(loaded, make_env(loaded.env).info, seed=0)
