"""A policy as one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.specs import TINY

from slm_lab import api
from slm_lab.experiment.enjoy import SavedPolicy
from slm_lab.experiment.export import export
from slm_lab.lib.errors import LabError
from slm_lab.spec.load import load_spec

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
    import torch

    policy, mine = saved(tmp_path, {"name": "CartPole-v1"})
    done = export(policy, tmp_path / "policy.pt2")
    program = torch.export.load(done.path).module()
    obs = np.random.default_rng(1).normal(size=(256, 4)).astype(np.float32)
    assert program(torch.from_numpy(obs))[0].tolist() == mine.act(obs).tolist()
    with pytest.raises(LabError, match=r"policy.onx: unknown kind of file, did you mean '.onnx'\?"):
        export(policy, tmp_path / "policy.onx")
    with pytest.raises(LabError, match="there is no folder"):
        export(policy, tmp_path / "nowhere" / "policy.onnx")
    assert {path.name for path in tmp_path.glob("policy*")} == {"policy.pt2"}
