"""Targets of Q functions by hand, and the optimism that the double one is there to cure."""

import torch

from slm_lab.functional.targets import double_value, max_value, polyak_, taken_value, td_target

ONLINE = torch.tensor([[1.0, 2.0, 0.0], [5.0, 4.0, 3.0]])
TARGET = torch.tensor([[7.0, 1.0, 9.0], [2.0, 8.0, 6.0]])


def test_values_of_the_successor() -> None:
    assert max_value(TARGET).tolist() == [9.0, 8.0]
    # the online net chooses actions 1 and 0
    assert double_value(ONLINE, TARGET).tolist() == [1.0, 2.0]
    assert taken_value(TARGET, torch.tensor([2, 1])).tolist() == [9.0, 8.0]


def test_only_a_true_end_cuts_the_bootstrap() -> None:
    reward, value = torch.tensor([1.0, 1.0, -2.0]), torch.tensor([10.0, 10.0, 10.0])
    for ends in (torch.tensor([False, True, False]), torch.tensor([0.0, 1.0, 0.0])):
        torch.testing.assert_close(td_target(reward, ends, value, 0.5), torch.tensor([6.0, 1.0, 3.0]))


def test_a_double_estimate_of_noise_is_not_optimistic() -> None:
    a, b = torch.randn(2, 20_000, 10, generator=torch.Generator().manual_seed(0))
    # all actions are worth 0; the maximum of ten standard normals is 1.54 on average
    assert abs(max_value(a).mean() - 1.54) < 0.02
    assert abs(double_value(a, b).mean()) < 0.03


def test_polyak_moves_a_share_of_the_way() -> None:
    target = torch.tensor([0.0, 8.0])
    polyak_(target, torch.tensor([4.0, 0.0]), 0.25)
    assert target.tolist() == [1.0, 6.0]
    polyak_(target, torch.tensor([4.0, 0.1]), 1.0)
    assert torch.equal(target, torch.tensor([4.0, 0.1]))
