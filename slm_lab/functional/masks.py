"""Action masks: values and logits of actions that are not allowed are so low that nothing chooses them.

Huang and Ontanon 2022, arXiv:2006.14171: with masked logits the policy gradient is that of the renormalized policy.
"""

import math

import torch
from torch import Tensor

LOWEST = -1e9
"""Of masked actions: finite, so that 0 * log p and differences stay numbers; far below every value and logit."""


def fill_masked(out: Tensor, allowed: Tensor, each: int = 1) -> Tensor:
    """LOWEST for the outputs of masked actions.

    Args:
        out: [B, n * K], logits or values
        allowed: [B, n] bool
        each: K, outputs of each action

    Returns:
        [B, n * K]; no gradient goes to what was filled

    >>> fill_masked(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[True, False, True]])).tolist()
    [[1.0, -1000000000.0, 3.0]]
    """
    if each == 1:
        return out.masked_fill(~allowed, LOWEST)
    return out.masked_fill(~allowed.repeat_interleave(each, -1), LOWEST)


def is_allowed(value: Tensor) -> Tensor:
    """Whether a value or logit is not one that `fill_masked` filled in.

    >>> is_allowed(torch.tensor([3.0, LOWEST])).tolist()
    [True, False]
    """
    return value > LOWEST / 2


def pick_allowed(allowed: Tensor, u: Tensor) -> Tensor:
    """One of the allowed actions, each equally likely: number `floor(u * count)` of them.

    Args:
        allowed: [B, n] bool, at least one in each row
        u: [B] uniform in [0, 1)

    Returns:
        [B] int64

    >>> allowed = torch.tensor([[False, True, False, True]]).expand(3, 4)
    >>> pick_allowed(allowed, torch.tensor([0.0, 0.49, 0.5])).tolist()
    [1, 1, 3]
    """
    count = allowed.sum(-1)
    rank = torch.minimum((u.clamp(max=1) * count).long(), count - 1)
    return (allowed.cumsum(-1) > rank.unsqueeze(-1)).to(torch.int64).argmax(-1)


def entropy_share(allowed: Tensor) -> Tensor:
    """`ln k / ln n`: the largest entropy with k of n actions allowed, as a share of the largest with all of them.

    Args:
        allowed: [B, n] bool, at least one in each row

    Returns:
        [B] from 0 to 1

    >>> entropy_share(torch.tensor([[True, True, True, True], [True, False, True, False], [False, True, False, False]]))
    tensor([1.0000, 0.5000, 0.0000])
    """
    return allowed.float().sum(-1).log() / math.log(max(allowed.shape[-1], 2))
