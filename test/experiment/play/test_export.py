"""A policy as one file."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from support.specs import TINY
from support.twofold import Twofold

from slm_lab import api
from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.experiment.play.enjoy import SavedPolicy
from slm_lab.experiment.play.export import draw_observations, export, nested
from slm_lab.lib.errors import LabError
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

RNN = {"type": "RecurrentNet", "rnn_hidden_size": 8, "seq_len": 4, "fc_hid_layers": []}


def saved(folder: Path, env: dict[str, Any], net: dict[str, Any] | None = None) -> tuple[SavedPolicy, api.Policy]:
    spec = {**TINY, "env": {"num_envs": 2, "max_frame": 300, **env}}
    if net is not None:
        spec["agent"] = {**spec["agent"], "net": net}
    done = api.run(load_spec(spec), out=folder, device="cpu", quiet=True)
    return SavedPolicy.open(done.folder), api.load_agent(done.folder)


def onnx_runner(path: Path) -> Callable[..., list[np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, inputs)


def program_runner(path: Path) -> Callable[..., list[np.ndarray]]:
    program = torch.export.load(path).module()
    return lambda **inputs: [out.numpy() for out in program(*map(torch.from_numpy, inputs.values()))]


def test_onnx_gives_the_actions_of_the_policy(tmp_path: Path) -> None:
    policy, mine = saved(tmp_path, {"name": "Pendulum-v1", "normalize_obs": True})
    done = export(policy, tmp_path / "policy.onnx")
    assert done.inputs == ["obs [N, 3] float32"]
    assert done.error <= 1e-5
    obs = np.random.default_rng(1).normal(size=(256, 3)).astype(np.float32) * [1, 1, 4]
    obs = obs.astype(np.float32)
    [action] = onnx_runner(done.path)(obs=obs)
    assert np.abs(action - mine.act(obs)).max() <= 1e-5
    assert np.abs(action).max() <= 2
    assert np.unique(action).size > 100


def test_memories_go_in_and_come_out(tmp_path: Path) -> None:
    policy, mine = saved(tmp_path, {"name": "CartPole-v1", "frame_op": "stack", "frame_op_len": 2}, RNN)
    done = export(policy, tmp_path / "policy.onnx")
    assert done.outputs == ["action", "next_frames", "next_hidden"]
    run = onnx_runner(done.path)
    rng = np.random.default_rng(1)
    frames, hidden = np.zeros((8, 2, 4), np.float32), np.zeros((8, 8), np.float32)
    begins = np.ones(8, np.bool_)
    for _ in range(32):
        obs = rng.normal(size=(8, 4)).astype(np.float32)
        mine.reset(begins)
        action, frames, hidden = run(obs=obs, begins=begins, frames=frames, hidden=hidden)
        assert action.tolist() == mine.act(obs).tolist()
        begins = rng.random(8) < 0.2


def test_a_torch_program(tmp_path: Path) -> None:
    policy, mine = saved(tmp_path, {"name": "CartPole-v1"})
    done = export(policy, tmp_path / "policy.pt2")
    obs = np.random.default_rng(1).normal(size=(256, 4)).astype(np.float32)
    assert program_runner(done.path)(obs=obs)[0].tolist() == mine.act(obs).tolist()
    with pytest.raises(LabError, match=r"policy.onx: unknown kind of file, did you mean '.onnx'\?"):
        export(policy, tmp_path / "policy.onx")
    with pytest.raises(LabError, match="there is no folder"):
        export(policy, tmp_path / "nowhere" / "policy.onnx")
    assert {path.name for path in tmp_path.glob("policy*")} == {"policy.pt2"}


class Choices(gym.Env):
    """Takes two integers, the second of which is counted from -1."""

    observation_space = spaces.Tuple((spaces.MultiDiscrete([3, 2], start=[1, -1]), spaces.Box(0, 7, (4,), np.uint8)))
    action_space = spaces.MultiDiscrete([3, 4], start=[0, -1])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


class Masked(Twofold):
    """Twofold with a mask."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space["action_mask"] = spaces.MultiBinary(2)

    def see(self):
        return {**super().see(), "action_mask": np.ones(2, np.int8)}


@pytest.fixture(autouse=True)
def _no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter tells of each of its steps, and pytest keeps all of it: that takes longer than the export."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.fixture
def _envs() -> Iterator[None]:
    made = {"Twofold-v0": Twofold, "Choices-v0": Choices, "Masked-v0": Masked}
    for name, env in made.items():
        gym.register(name, env)
    yield
    for name in made:
        gym.registry.pop(name)


def tiny(env: str, net: dict[str, Any] | None = None, **keys: Any) -> Spec:
    net = net or {"type": "MultiInputNet", "fc_hid_layers": [8], "joint_hid_layers": [8]}
    agent = {**TINY["agent"], "net": net}
    return load_spec({**TINY, "agent": agent, "env": {"name": env, "num_envs": 2, "max_frame": 100, **keys}})


def bundled(name: str, **sets: str) -> Spec:
    small = {"agent.net.hid_layers": "[16]"} if "agent.net" not in str(sets) else {}
    return load_spec(f"{name.partition('_')[0]}/{name}.json", name, sets={**small, **sets})


CONVOLUTIONS = {"agent.net.conv_hid_layers": "[[4,8,4,0,1],[4,4,2,0,1]]", "agent.net.fc_hid_layers": "[16]"}
POLICIES: dict[str, Callable[[], Spec]] = {
    "ppo, convolutions, Atari": lambda: bundled("ppo_atari", env="ALE/Pong-v5", **CONVOLUTIONS),
    "sac, discrete": lambda: bundled("sac_cartpole"),
    "sac, continuous": lambda: bundled("sac_pendulum"),
    "td3": lambda: bundled("td3_pendulum"),
    "dqn, dueling, C51, noisy": lambda: bundled("rainbow_cartpole"),
    "qrdqn": lambda: bundled("qrdqn_cartpole"),
    "crossq, batch norm": lambda: bundled("crossq_pendulum", **{"agent.net.type": "TorchArcNet"}),
    "recurrent": lambda: bundled("ppo_rnn_cartpole", **{"agent.net.rnn_hidden_size": "8"}),
    "several integers": lambda: tiny("Choices-v0"),
    "image and vectors": lambda: tiny("Twofold-v0", normalize_obs=True, frame_op="concat", frame_op_len=2),
    "image and vectors, recurrent": lambda: tiny("Twofold-v0", RNN),
    "image and vectors, masked, recurrent": lambda: tiny("Masked-v0", RNN, action_mask=True, normalize_obs=True),
}


def fresh(spec: Spec) -> SavedPolicy:
    """As if it had been trained: every weight and running statistic is another one."""
    generator = torch.Generator().manual_seed(0)
    env = make_env(spec.env, num_envs=2)
    try:
        env.reset(0)
        state = Agent(spec, env.info, seed=0).policy_state()
        for tensors in state.values():
            for name, tensor in tensors.items():
                if tensor.is_floating_point():
                    tensor.add_(0.5 * torch.randn(tensor.shape, generator=generator))
                if "var" in name:
                    tensor.abs_()
        return SavedPolicy(Path("policy.pt"), spec, 0, 0, state, env.normalizer_state())
    finally:
        env.close()


@pytest.mark.usefixtures("_envs")
@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=pytest.mark.ci)])
@pytest.mark.parametrize("kind", POLICIES)
def test_every_kind_of_policy(kind: str, suffix: str, tmp_path: Path) -> None:
    """Episodes of several steps, in an order that the command's own check does not have."""
    policy = fresh(POLICIES[kind]())
    mine = api.Policy(policy)
    done = export(policy, tmp_path / f"policy{suffix}")
    run = {".onnx": onnx_runner, ".pt2": program_runner}[suffix](done.path)
    names = [told.partition(" ")[0] for told in done.inputs]
    raw = [part[::-1].copy() for part in draw_observations(mine._translator, 120)]
    begins, states = np.ones(8, np.bool_), {}
    for name, told in zip(names, done.inputs, strict=True):
        if name.startswith(("frames", "hidden")):
            shape = [int(n) for n in told.partition("[N, ")[2].partition("]")[0].split(", ")]
            states[name] = np.zeros((8, *shape), np.float32 if told.endswith("float32") else np.uint8)
    actions = []
    for step in range(15):
        parts = [part[8 * step : 8 * step + 8] for part in raw]
        inputs = dict(zip(names, parts, strict=False)) | states | ({"begins": begins} if states else {})
        mine.reset(begins)
        action, *after = run(**{name: inputs[name] for name in names})
        states = dict(zip(states, after, strict=True))
        wanted = mine.act(nested(mine._translator.observations.parts, parts))
        assert action.dtype == wanted.dtype
        assert np.abs(action - wanted).max() <= 1e-5
        begins = np.arange(8) % 5 == step % 5
        actions.append(action)
    assert len(np.unique(np.concatenate(actions), axis=0)) > 1
