"""Counts and tensors that processes see alike."""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import run
from sys import executable

import pytest
import torch
from torch import Tensor

from slm_lab.experiment.session.commons import Commons
from slm_lab.lib.files import unnamed_file


@pytest.fixture
def fd() -> Iterator[int]:
    with unnamed_file() as file:
        yield file.fileno()


def tensors(value: float = 0.0) -> dict[str, Tensor]:
    return {"flat": torch.full((5,), value), "step": torch.tensor(value), "matrix": torch.full((2, 3), value)}


def nothing() -> None:
    return None


def test_frames_of_all_are_summed(fd: int) -> None:
    first, second, third = (Commons(fd, i, 3) for i in range(3))
    assert first.frame == 0
    assert [first.add(4), second.add(8), first.add(4)] == [4, 12, 16]
    assert third.frame == 16


def test_who_comes_first_fills_it(fd: int) -> None:
    first, second = Commons(fd, 0, 2), Commons(fd, 1, 2)
    mine = first.join(tensors(1.5), nothing)
    yours = second.join(tensors(9.0), lambda: pytest.fail("filled twice"))
    for name, t in tensors(1.5).items():
        assert torch.equal(mine[name], t)
        assert torch.equal(yours[name], t)
        assert mine[name].shape == t.shape
    mine["matrix"][1, 2] = 7.0
    yours["flat"].add_(1.0)
    assert yours["matrix"][1, 2] == 7.0
    assert torch.equal(mine["flat"], torch.full((5,), 2.5))
    assert all(t.data_ptr() % 64 == 0 for t in mine.values())


@pytest.mark.parametrize(
    ("frame", "played", "lost"), [(30, (10, 20), 0), (50, (10, 20), 20), (29, (10, 20), 0), (8, (8, 0), 0)]
)
def test_a_resumed_trial_goes_on_from_its_last_frame(fd: int, frame: int, played: Sequence[int], lost: int) -> None:
    """Frames that a killed session played after its last checkpoint were learned from: they stay counted."""
    own = tensors()

    def restore() -> tuple[int, Sequence[int]]:
        own["flat"].fill_(3.0)
        return frame, played

    first = Commons(fd, 0, 2)
    common = first.join(own, restore)
    assert torch.equal(common["flat"], torch.full((5,), 3.0))
    assert first.frame == sum(played) + lost
    assert Commons(fd, 1, 2).add(4) == sum(played) + lost + 4


def test_one_that_dies_while_it_fills_leaves_no_half_filled_memory(fd: int) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Commons(fd, 0, 2).join(tensors(1.0), fail)
    assert torch.equal(Commons(fd, 1, 2).join(tensors(2.0), nothing)["flat"], torch.full((5,), 2.0))


def test_waiting_ends_when_the_last_one_comes_or_leaves(fd: int) -> None:
    first, second, third = (Commons(fd, i, 3) for i in range(3))
    waiting = threading.Thread(target=first.wait, args=(lambda: False,), daemon=True)
    waiting.start()
    for one in (third, second):
        waiting.join(0.1)
        assert waiting.is_alive()
        one.leave()
    waiting.join(10)
    assert not waiting.is_alive()


def test_waiting_ends_at_a_stop(fd: int) -> None:
    Commons(fd, 0, 2).wait(lambda: True)


def test_another_process_sees_it(fd: int) -> None:
    mine = Commons(fd, 0, 2)
    common = mine.join(tensors(1.0), nothing)
    code = f"""
import torch
from slm_lab.experiment.session.commons import Commons
other = Commons({fd}, 1, 2)
own = {{"flat": torch.zeros(5), "step": torch.tensor(0.0), "matrix": torch.zeros(2, 3)}}
common = other.join(own, lambda: None)
common["flat"].mul_(3.0)
other.add(5)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    run([executable, "-c", code], pass_fds=[fd], check=True, env=env)
    assert torch.equal(common["flat"], torch.full((5,), 3.0))
    assert mine.frame == 5
