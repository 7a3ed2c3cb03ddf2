"""Tasks that take turns: calls made together give what each call gives by itself."""

import random
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from loguru import logger
from torch import Tensor

from slm_lab.lib.batch import Batch, Task
from slm_lab.lib.compile import CompileError, compile_function
from slm_lab.lib.stacked import Program

pytestmark = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")

Run = Callable[[], list[Tensor]]


def together(*runs: Run, size: int | None = None) -> list[list[Tensor]]:
    return Batch(size or len(runs)).run([Task(run, lambda: 0) for run in runs])


def descend(weight: Tensor, x: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
    """A step of gradient descent with momentum in place; what it gives is the loss."""
    w, moment = weight[0], weight[1]
    error = x @ w - 1
    moment.lerp_(x.mT @ error, 0.1)
    moment.clamp_(-1, 1)
    w.addcmul_(moment, rate.expand_as(w), value=-1.0)
    return (error.square().sum(),)


def training(seed: int, steps: int = 5) -> Run:
    """Steps one by one, and as many again in a loop."""

    def run() -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        weight, data = (torch.randn(shape, generator=generator) for shape in ((2, 3, 1), (steps, 4, 3)))
        rate = torch.tensor(0.1 * (1 + seed))
        step = compile_function(descend, [weight, data[0], rate], quick=True)
        losses = [step(weight, data[k], rate)[0] for k in range(steps)]
        [more] = step.loop([weight, data[0], rate], {1: data}, steps)
        return [weight, torch.stack(losses), more]

    return run


def walk(table: Tensor, now: Tensor, following: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
    """Where one argument's rows are another's one step later, and a third is all of them."""
    following.copy_(now * 0.5 + noise + table[0])
    return ()


def walking(seed: int) -> Run:
    def run() -> list[Tensor]:
        table = torch.zeros(6, 3)
        table[0] = seed
        noise = torch.randn((5, 3), generator=torch.Generator().manual_seed(seed))
        rows = {1: table[:-1], 2: table[1:], 3: noise}
        step = compile_function(walk, [table, table[0], table[1], noise[0]], quick=True)
        step.loop([table, table[0], table[1], noise[0]], rows, 5)
        return [table]

    return run


@pytest.mark.parametrize("task", [training, walking])
def test_together_they_compute_what_each_computes_alone(task: Callable[[int], Run]) -> None:
    alone = [task(seed)() for seed in range(3)]
    found = together(*(task(seed) for seed in range(3)))
    for a, b in zip(alone, found, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y)
    assert not torch.equal(found[0][0], found[1][0])


def test_it_does_not_matter_who_takes_part() -> None:
    whole = together(*(training(seed) for seed in range(3)))
    # one ends early, one has nothing to do
    parts = together(training(0), training(7, steps=2), list)
    for x, y in zip(whole[0], parts[0], strict=True):
        assert torch.equal(x, y)
    [lone] = together(training(0), size=3)
    for x, y in zip(whole[0], lone, strict=True):
        assert torch.equal(x, y)


def test_calls_are_made_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = [], Program.run
    monkeypatch.setattr(Program, "run", lambda self, calls: (sizes.append(len(calls)), run(self, calls)))
    together(*(training(seed) for seed in range(3)))
    assert sizes == [3] * 6
    sizes.clear()
    # the one that lags catches up first
    far = [3, 0]

    def late() -> list[Tensor]:
        weight, x, rate = torch.ones(2, 3, 1), torch.ones(4, 3), torch.tensor(0.1)
        step = compile_function(descend, [weight, x, rate], quick=True)
        for far[1] in range(5):
            step(weight, x, rate)
        return []

    Batch(2).run([Task(training(0, steps=1), lambda: far[0]), Task(late, lambda: far[1])])
    assert sizes == [1, 1, 1, 2, 1, 1]


def test_what_vmap_does_not_know_is_done_one_after_the_other() -> None:
    lines: list[str] = []
    handler = logger.add(lines.append, format="{message}")

    def gather(x: Tensor) -> tuple[Tensor, ...]:
        # what is not batched can't take in what is
        return (torch.zeros(3).add_(x),)

    def task(seed: int) -> Run:
        args = [torch.arange(3.0) + seed]
        return lambda: list(compile_function(gather, args, quick=True)(*args))

    found = together(task(0), task(1))
    assert [x[0].tolist() for x in found] == [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    logger.remove(handler)
    assert any("one after the other" in line for line in lines)


def test_random_streams_are_those_of_the_task() -> None:
    def draw(seed: int) -> Run:
        def run() -> list[Tensor]:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            found = []
            x = torch.zeros(2, 3, 1), torch.zeros(4, 3), torch.tensor(0.1)
            step = compile_function(descend, x, quick=True)
            for _ in range(3):
                found.append(torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))]))
                step(*x)
            return found

        return run

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]
    both = together(draw(1), draw(2))
    assert before == [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]
    for found, seed in zip(both, (1, 2), strict=True):
        for x, y in zip(found, draw(seed)(), strict=True):
            assert torch.equal(x, y)


def test_errors_stay_with_their_task() -> None:
    def fails() -> list[Tensor]:
        raise ValueError("mine")

    ended = []

    def ends() -> list[Tensor]:
        ended.append(training(0)())
        return []

    with pytest.raises(ValueError, match="mine"):
        together(ends, fails, ends)
    assert len(ended) == 2


def test_an_error_of_a_call_reaches_all_of_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, calls: object) -> None:
        raise RuntimeError("the device is gone")

    caught = []

    def catches() -> list[Tensor]:
        try:
            training(0)()
        except RuntimeError as e:
            caught.append(str(e))
        return []

    monkeypatch.setattr(Program, "run", broken)
    together(catches, catches)
    assert caught == ["the device is gone"] * 2


def test_tasks_that_can_t_take_turns_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> int:
        raise KeyError("progress")

    with pytest.raises((KeyError, RuntimeError)):
        Batch(2).run([Task(training(seed), lost) for seed in range(2)])


def test_a_call_of_another_shape_is_made_alone() -> None:
    def task(columns: int) -> Run:
        def run() -> list[Tensor]:
            step = compile_function(lambda x: (x * 2,), [torch.ones(3)], quick=True)
            return [step(torch.ones(columns)[:3])[0], step(torch.ones(columns))[0][:3]]

        return run

    assert all(torch.equal(x, torch.full((3,), 2.0)) for found in together(task(3), task(4)) for x in found)


@pytest.mark.parametrize("offset", [0, 1])
def test_memory_is_shared_at_the_place_of_the_example_or_the_call_is_made_alone(offset: int) -> None:
    def run() -> list[Tensor]:
        table = torch.arange(8.0)
        step = compile_function(lambda x, y: (x.add_(y),), [table[:2], table[4:6]], quick=True)
        step(table[offset : offset + 2], table[4 + offset : 6 + offset])
        return [table]

    wanted = torch.arange(8.0)
    wanted[offset : offset + 2] += wanted[4 + offset : 6 + offset]
    assert all(torch.equal(found[0], wanted) for found in together(run, run))


def test_what_can_t_be_compiled_for_one_either(monkeypatch: pytest.MonkeyPatch) -> None:
    from slm_lab.lib import compile as door

    monkeypatch.setattr(door, "compiler", lambda: None)
    with pytest.raises(CompileError, match="no C\\+\\+ compiler"):
        together(training(0), training(1))
