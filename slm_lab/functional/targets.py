"""Targets of Q functions: of SARSA and of the DQN family; and target nets that follow the online net slowly."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """`y = r + gamma * (1 - terminated) * v'`. Sutton and Barto 2018, (6.2).

    Args:
        reward: [B]
        terminated: [B] bool, or 1 and 0
        next_value: [B], what the successor is worth
        gamma: discount per step

    Returns:
        [B]

    >>> td_target(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([10.0, 10.0]), 0.9)
    tensor([10.,  1.])
    """
    return reward + gamma * (1 - terminated.to(reward.dtype)) * next_value


def taken_value(q: Tensor, action: Tensor) -> Tensor:
    """`Q(s, a)` of the actions taken.

    Args:
        q: [B, n]
        action: [B] int64

    Returns:
        [B]

    >>> taken_value(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0]))
    tensor([2., 3.])
    """
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def max_value(q: Tensor) -> Tensor:
    """`max_a Q(s', a)`: one net chooses the action and evaluates it. Watkins 1989; Mnih et al. 2015.

    Args:
        q: [B, n]

    Returns:
        [B]

    >>> max_value(torch.tensor([[1.0, 2.0]]))
    tensor([2.])
    """
    return torch.amax(q, -1)


def double_value(online_q: Tensor, target_q: Tensor) -> Tensor:
    """`Q_target(s', argmax_a Q(s', a))`: one net chooses, the other evaluates. Van Hasselt et al. 2016, (4).

    arXiv:1509.06461. The maximum of noisy estimates is too high on average; with the noise of two nets the excess is
    mostly gone.

    Args:
        online_q: [B, n], chooses
        target_q: [B, n], evaluates

    Returns:
        [B]

    >>> double_value(torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, 3.0]]))
    tensor([3.])
    """
    return taken_value(target_q, online_q.argmax(-1))


def lowest(qs: Sequence[Tensor], subset: Tensor | None = None) -> Tensor:
    """`min_i Q_i(s, a)` over all critics or some of them. Fujimoto et al. 2018, (10); Chen et al. 2021, Algorithm 1.

    arXiv:1802.09477, 2101.05982. A maximum over actions prefers what the critics overestimate; the lowest prediction of
    several makes up for it, the more of them the more.

    Args:
        qs: N of [B, ...]
        subset: [M] int64, which of them; None: all

    Returns:
        [B, ...]

    >>> qs = torch.tensor([3.0, 5.0]), torch.tensor([4.0, 2.0]), torch.tensor([0.0, 0.0])
    >>> lowest(qs), lowest(qs, torch.tensor([0, 1]))
    (tensor([0., 0.]), tensor([3., 2.]))
    """
    if subset is not None:
        return torch.stack(tuple(qs)).index_select(0, subset).amin(0)
    return reduce(torch.minimum, qs)


def polyak_(target: Tensor, online: Tensor, coef: float) -> None:
    """`target = (1 - coef) * target + coef * online`; coef 1 is a copy.

    Args:
        target: changed in place
        online: the same shape
        coef: share of the online net

    >>> t = torch.tensor([0.0])
    >>> polyak_(t, torch.tensor([10.0]), 0.1)
    >>> t
    tensor([1.])
    """
    if coef == 1:
        target.copy_(online)
    else:
        target.lerp_(online, coef)
