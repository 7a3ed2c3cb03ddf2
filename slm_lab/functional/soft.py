"""Maximum-entropy learning: values that count entropy as a reward. Haarnoja et al. 2018, arXiv:1801.01290."""

from torch import Tensor


def soft_value(q: Tensor, log_prob: Tensor, alpha: Tensor | float) -> Tensor:
    """`Q(s, a) - alpha log pi(a|s)`, an estimate of V(s) from one action of the policy. Haarnoja et al. 2018, (3).

    Args:
        q: [B]
        log_prob: [B]
        alpha: temperature, what a nat of entropy is worth

    Returns:
        [B]

    >>> import torch
    >>> soft_value(torch.tensor([1.0]), torch.tensor([-2.0]), 0.5)
    tensor([2.])
    """
    return q - alpha * log_prob


def expected_soft_value(q: Tensor, log_p: Tensor, alpha: Tensor | float) -> Tensor:
    """`sum_a pi(a|s) (Q(s, a) - alpha log pi(a|s))`: V(s) itself. Christodoulou 2019, (10).

    Args:
        q: [B, n]
        log_p: [B, n], normalized
        alpha: temperature

    Returns:
        [B]

    >>> import torch
    >>> expected_soft_value(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]).log(), 1.0)
    tensor([2.6931])
    """
    return (log_p.exp() * (q - alpha * log_p)).sum(-1)


def temperature_loss(log_alpha: Tensor, entropy: Tensor, target_entropy: Tensor | float) -> Tensor:
    """`mean(log alpha (H - H_target))`: descending on it, alpha rises where the entropy is below its target.

    Haarnoja et al. 2018, arXiv:1812.05905, (18), with log alpha for alpha as in the authors' code: the sign is the
    same, and a temperature that has become small can still move.

    Args:
        log_alpha: one element, carries the gradient
        entropy: [B], a constant; `-log pi(a|s)` is an estimate of it
        target_entropy: in nats

    Returns:
        0-d loss

    >>> import torch
    >>> temperature_loss(torch.tensor(-1.0), torch.tensor([0.5, 0.7]), 0.9)
    tensor(0.3000)
    """
    return (log_alpha * (entropy.detach() - target_entropy)).mean()
