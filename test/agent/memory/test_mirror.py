"""Observations on the agent's device: the same batches. The device is a CPU here."""

from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger

from slm_lab.agent.memory import replay
from slm_lab.agent.memory.mirror import Mirror, mirrors, to_device
from slm_lab.agent.memory.prioritized import PrioritizedReplay
from slm_lab.agent.memory.replay import Replay
from slm_lab.types import Discrete, EnvInfo, Step

N = 3
SHAPES = {"vector": ((5,), "float32"), "stack": ((4, 16, 16), "uint8")}
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


class Owner:
    seed, device, training_frequency, training_start_step = 3, CPU, 1, 0

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.info = EnvInfo("x", shape, dtype, Discrete(3), N, None)


def stream(kind: str, steps: int) -> Any:
    """Vector steps with episodes of different lengths; of stacks each frame follows the one before."""
    shape, dtype = SHAPES[kind]
    rng = np.random.default_rng(0)

    def fresh() -> Any:
        new = (rng.random(shape) * 200).astype(dtype)
        return np.repeat(new[:1], shape[0], 0) if kind == "stack" else new

    obs = np.stack([fresh() for _ in range(N)])
    for _ in range(steps):
        final = np.stack([fresh() for _ in range(N)])
        if kind == "stack":
            final = np.concatenate([obs[:, 1:], final[:, -1:]], 1)
        done, cut = rng.random(N) < 0.15, rng.random(N) < 0.1
        then = final.copy()
        for i in np.flatnonzero(done | cut):
            then[i] = fresh()
        lengths = [1] * int((done | cut).sum())
        yield (
            obs,
            rng.integers(3, size=N),
            Step(then, rng.random(N, np.float32), done, cut & ~done, final, [0.0] * len(lengths), lengths),
        )
        obs = then


def make(cls: Any, kind: str, **keys: Any) -> Any:
    more = {"alpha": 0.6, "epsilon": 0.01} if cls is PrioritizedReplay else {}
    return cls(cls.Spec(name=cls.__name__, batch_size=32, max_size=60, **more, **keys), Owner(*SHAPES[kind]))


@pytest.mark.parametrize("cls", [Replay, PrioritizedReplay])
@pytest.mark.parametrize("kind", SHAPES)
def test_batches_are_those_of_the_host(cls: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make(cls, kind)
    for obs, action, step in stream(kind, 1):
        plain.add(obs, action, step)
    monkeypatch.setattr(replay, "mirrors", lambda *args, **more: True)
    mirrored, again = make(cls, kind), make(cls, kind)
    for k, (obs, action, step) in enumerate(stream(kind, 70)):
        if k:
            plain.add(obs, action, step)
        mirrored.add(obs, action, step)
        if k == 40:
            # a resumption fills the device from what was saved
            again.load_state_dict(mirrored.state_dict())
            mirrored = again
        if k > 5:
            ours, theirs = mirrored.sample(steps=1 + k % 3, gamma=0.9), plain.sample(steps=1 + k % 3, gamma=0.9)
            assert all(map(torch.equal, ours, theirs))
            for memory in (mirrored, plain):
                memory.update_priority(ours.index, ours.reward)
    assert mirrored._mirrored
    assert not plain._mirrored


def test_a_mirror_is_apart_from_the_host() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    mirror = Mirror(rows, CPU)
    rows[:] = 0
    mirror.put(1, np.full((2, 2), 7, np.float32))
    assert mirror.take(np.array([[0, 2], [3, 5]])).tolist() == [[[0, 1], [7, 7]], [[7, 7], [10, 11]]]


@pytest.mark.parametrize(
    ("asked", "device", "nbytes", "normalized", "there"),
    [
        ("auto", CPU, 1, False, False),
        ("cuda", CPU, 1, False, False),
        ("cpu", CUDA, 1, False, False),
        ("cuda", CUDA, 10**12, False, True),
        ("cuda", CUDA, 1, True, False),
        ("auto", CUDA, 50, False, True),
        ("auto", CUDA, 51, False, False),
        ("auto", CUDA, 1, True, False),
    ],
)
def test_when_observations_lie_on_the_device(
    asked: str, device: torch.device, nbytes: int, normalized: bool, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    warnings: list[str] = []
    handler = logger.add(lambda message: warnings.append(message.record["message"]), level="WARNING")
    assert mirrors(asked, device, nbytes, normalized=normalized) is there
    logger.remove(handler)
    assert bool(warnings) is (asked == "cuda" and not there)


def test_what_is_there_already_stays() -> None:
    x = torch.ones(2)
    assert to_device(x, CPU) is x
