"""Recording and replaying, with a recorder that repeats calls as a CUDA graph repeats kernels: on the same tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from slm_lab.lib import graphs
from slm_lab.lib.compile import Called, Launched, changed_arguments
from slm_lab.lib.graphs import WARM_UP, Graphed, Replayed
from slm_lab.lib.native.record import record

CPU = torch.device("cpu")


class Recorder:
    """Gives its results in the tensors of the first one, as a graph does."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, fn: Callable[[], Any]) -> Callable[[], Any]:
        self.recorded += 1
        out: list[Tensor] = []

        def replay() -> list[Tensor]:
            made = fn()
            if not out:
                out.extend(t.clone() for t in made)
            for old, new in zip(out, made, strict=True):
                old.copy_(new)
            return out

        return replay


def descend(weight: Tensor, batch: Tensor, rate: Tensor) -> tuple[Tensor]:
    """In place on the weight."""
    weight.sub_(rate * batch.mean(0))
    return (weight.sum(),)


def test_replayed_does_each_call_once() -> None:
    recorder, x = Recorder(), torch.zeros(())
    run = Replayed(lambda: (x.add_(1),), CPU, recorder)
    for _ in range(6):
        run()
    assert x == 6
    assert recorder.recorded == 1


def test_replayed_goes_on_where_recording_fails() -> None:
    def refuse(fn: Callable[[], Any]) -> Callable[[], Any]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    x = torch.zeros(())
    run = Replayed(lambda: x.add_(1), CPU, refuse)
    for _ in range(5):
        run()
    assert x == 5


def test_graphed_equals_the_function_whatever_its_arguments_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(graphs, "default_recorder", lambda device: recorder)
    run = Graphed(descend, CPU, held={0})
    plain, weight, rate = torch.zeros(3), torch.zeros(3), torch.tensor(0.1)
    kept, given, batches = [], [], []
    for k in range(12):
        if k == 8:
            # a state was loaded: the parameters lie elsewhere now
            weight = weight.clone()
        rate.fill_(0.1 / (k + 1))
        batch = torch.randn(5, 3)
        # kept, so that no two lie in one place
        batches.append(batch)
        kept.append(descend(plain, batch, rate)[0])
        given.append(run(weight, batch, rate)[0])
        assert torch.equal(plain, weight)
    # results are the caller's own, not those of the last call
    assert torch.equal(torch.stack(kept), torch.stack(given))
    assert recorder.recorded == 2
    assert WARM_UP == 2


def test_nothing_is_recorded_without_a_gpu() -> None:
    x = torch.zeros(2)
    run = Graphed(descend, CPU, held={0})
    for _ in range(5):
        run(x, torch.ones(1, 2), torch.tensor(1.0))
    assert x.tolist() == [-5.0, -5.0]


def adam(weight: Tensor, moments: Tensor, batch: Tensor, rate: Tensor) -> tuple[Tensor]:
    """Changes the weight, and a part of the moments."""
    grad = batch.mean(0)
    moments[0].mul_(0.9).add_(0.1 * grad)
    weight.copy_(weight - rate * moments[0])
    return (grad.sum(),)


def test_which_arguments_a_function_changes() -> None:
    example = [torch.zeros(3), torch.zeros(2, 3), torch.ones(5, 3), torch.ones(())]
    assert changed_arguments(record(adam, example)) == {0, 1}
    assert changed_arguments(record(lambda x, y: (x + y,), example[:1] * 2)) == set()


def test_a_launched_loop_equals_calls_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(graphs, "default_recorder", lambda device: recorder)
    run, plain = Launched(adam, CPU, {0, 1}), Called(adam)
    ours, theirs = ([torch.zeros(3), torch.zeros(2, 3)] for _ in range(2))
    rate = torch.tensor(0.1)
    for k in range(10):
        count = 3 if k % 2 else 2
        batches = torch.randn(count, 5, 3)
        rate.fill_(0.1 / (k + 1))
        for weights, fn in ((ours, run), (theirs, plain)):
            # a first batch is part of the arguments, and is not read
            sums = fn.loop([*weights, batches[0], rate], {2: batches}, count)
            if fn is run:
                found = sums
        torch.testing.assert_close(found[0], sums[0])
        assert found[0].shape == (count,)
        assert all(map(torch.equal, ours, theirs))
        one = torch.randn(5, 3)
        assert torch.equal(run(*ours, one, rate)[0], plain(*theirs, one, rate)[0])
    # one for calls, and one for each number of steps
    assert recorder.recorded == 3
