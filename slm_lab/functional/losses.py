"""Losses of policies and value functions. All are means over the batch: their scale does not depend on its size."""

from collections.abc import Sequence

import torch
from torch import Tensor


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """`-mean(log pi(a|s) * A)`: its gradient is the policy gradient. Sutton and Barto 2018, (13.8).

    Args:
        log_prob: [B], carries the gradient
        advantage: [B], a constant; returns in REINFORCE

    Returns:
        0-d loss

    >>> policy_gradient_loss(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 3.0]))
    tensor(3.5000)
    """
    return -(log_prob * advantage.detach()).mean()


def ppo_clip_loss(log_ratio: Tensor, advantage: Tensor, clip_eps: Tensor) -> Tensor:
    """`-mean(min(rho * A, clip(rho, 1 - eps, 1 + eps) * A))`, rho = exp(log_ratio). Schulman et al. 2017, (7).

    Args:
        log_ratio: [B], log pi(a|s) - log pi_old(a|s), carries the gradient
        advantage: [B], a constant
        clip_eps: 0-d eps, half the width of the trust region

    Returns:
        0-d loss

    >>> ppo_clip_loss(torch.tensor([1.5, 0.5]).log(), torch.tensor([1.0, -1.0]), torch.tensor(0.2))
    tensor(-0.2000)
    """
    ratio = log_ratio.exp()
    advantage = advantage.detach()
    clipped = torch.clamp(ratio, 1 - clip_eps, 1 + clip_eps)
    return -torch.min(ratio * advantage, clipped * advantage).mean()


def clipped_value_loss(value: Tensor, old_value: Tensor, ret: Tensor, clip_eps: Tensor) -> Tensor:
    """`mean(max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2))`: the value moves at most eps per update.

    As in OpenAI Baselines' PPO; not in the paper. eps is in units of the return.

    Args:
        value: [B], carries the gradient
        old_value: [B], V before the update
        ret: [B], targets
        clip_eps: 0-d eps

    Returns:
        0-d loss

    >>> clipped_value_loss(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([3.0]), torch.tensor(0.5))
    tensor(6.2500)
    """
    near = old_value + torch.clamp(value - old_value, -clip_eps, clip_eps)
    return torch.max((value - ret) ** 2, (near - ret) ** 2).mean()


def self_imitation_losses(log_prob: Tensor, value: Tensor, ret: Tensor) -> tuple[Tensor, Tensor]:
    """`-mean(log pi(a|s) (R - V)+)` and `mean(((R - V)+)^2) / 2`. Oh et al. 2018, arXiv:1806.05635, (2), (3).

    Args:
        log_prob: [B], carries the gradient of the first
        value: [B], carries the gradient of the second
        ret: [B], what once came of the action

    Returns:
        0-d policy loss, 0-d value loss

    >>> self_imitation_losses(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.0]))
    (tensor(1.), tensor(1.))
    """
    gain = (ret - value).clamp(min=0)
    return policy_gradient_loss(log_prob, gain), 0.5 * (gain**2).mean()


def ensemble_loss(losses: Sequence[Tensor], weight: Tensor) -> Tensor:
    """`mean_b w_b sum_i l_ib`: critics learn side by side, each as if it were alone.

    Args:
        losses: [B] of each critic
        weight: [B] importance weights

    Returns:
        0-d loss

    >>> ensemble_loss([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])], torch.tensor([1.0, 0.5]))
    tensor(3.5000)
    """
    return (weight * sum(losses[1:], losses[0])).mean()
