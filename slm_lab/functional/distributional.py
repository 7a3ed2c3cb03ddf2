"""Distributions of returns: critics that learn more than the mean.

Two ways to write a distribution down. *Categorical* (C51): fixed values on an evenly spaced support, a probability
for each. *Quantiles* (QR-DQN): fixed probabilities, a value for each. The first has to be projected back onto its
support after every Bellman step; the second is regressed onto samples of its target.
"""

import torch
from torch import Tensor


def make_support(v_min: float, v_max: float, atoms: int, device: torch.device | None = None) -> Tensor:
    """`z_i = v_min + i * (v_max - v_min) / (K - 1)`. Bellemare et al. 2017, arXiv:1707.06887, section 4.1.

    Args:
        v_min: lowest return of the support
        v_max: highest one
        atoms: K, at least 2
        device: of the result

    Returns:
        [K]

    >>> make_support(-1.0, 1.0, 5)
    tensor([-1.0000, -0.5000,  0.0000,  0.5000,  1.0000])
    """
    # not linspace, which lib/native does not know; exact at both ends
    i, last = torch.arange(atoms, device=device), atoms - 1
    return ((last - i) * v_min + i * v_max) / last


def categorical_mean(logits: Tensor, support: Tensor) -> Tensor:
    """`Q = sum_i z_i p_i`, `p = softmax(logits)`. Bellemare et al. 2017, section 4.1.

    Args:
        logits: [..., K]
        support: [K]

    Returns:
        [...]

    >>> categorical_mean(torch.tensor([[0.0, 0.0], [-100.0, 100.0]]), torch.tensor([1.0, 3.0]))
    tensor([2., 3.])
    """
    return (logits.softmax(-1) * support).sum(-1)


def categorical_projection(value: Tensor, prob: Tensor, support: Tensor) -> Tensor:
    """Project a distribution onto a support. Bellemare et al. 2017, (7).

    `m_i = sum_j p_j * max(0, 1 - |clip(x_j, v_min, v_max) - z_i| / dz)`: the mass of each value is shared between its
    two neighbours on the support, the nearer one gets more. The mean is kept where nothing is clipped. A value exactly
    on an atom gives all its mass to it; with the usual `floor` and `ceil` that are equal there, its mass would be lost.

    The values of C51 are `td_target(r[:, None], terminated[:, None], support, gamma)`, p those of the next action.

    Args:
        value: x, [B, J], in any order
        prob: p, [B, J], sums to 1 in each row
        support: z, [K], evenly spaced

    Returns:
        [B, K], sums to 1 in each row; no gradient is needed

    >>> value = torch.tensor([[0.25, 1.0], [-9.0, 9.0]])
    >>> categorical_projection(value, torch.tensor([[0.5, 0.5]]).expand(2, 2), torch.tensor([0.0, 1.0, 2.0]))
    tensor([[0.3750, 0.6250, 0.0000],
            [0.5000, 0.0000, 0.5000]])
    """
    last = len(support) - 1
    # in units of atoms: the shares of two neighbours then sum to 1 without rounding
    place = ((value - support[0]) * (last / (support[-1] - support[0]))).clamp(0, last)
    floor = place.floor()
    upper = prob * (place - floor)
    # a place that is no number must not become an index out of bounds
    atom = floor.long().clamp(0, last)
    atoms = torch.cat([atom, (atom + 1).clamp(max=last)], -1)
    empty = torch.zeros(len(prob), last + 1, dtype=prob.dtype, device=prob.device)
    return empty.scatter_add(-1, atoms, torch.cat([prob - upper, upper], -1))


def categorical_loss(logits: Tensor, target: Tensor) -> Tensor:
    """`-sum_i m_i log p_i`, the cross entropy: `KL(m || p)` up to a constant. Bellemare et al. 2017, Algorithm 1.

    Args:
        logits: [B, K], carries the gradient
        target: m, [B, K], a constant

    Returns:
        [B]

    >>> categorical_loss(torch.zeros(1, 4), torch.tensor([[0.0, 0.5, 0.5, 0.0]])).exp()
    tensor([4.])
    """
    return -(target.detach() * logits.log_softmax(-1)).sum(-1)


def quantile_fractions(n: int, device: torch.device | None = None) -> Tensor:
    """`tau_i = (2i - 1) / 2N`, the middles of N equal parts of [0, 1]. Dabney et al. 2018, arXiv:1710.10044, Lemma 2.

    Args:
        n: N, quantiles
        device: of the result

    Returns:
        [N]

    >>> quantile_fractions(4)
    tensor([0.1250, 0.3750, 0.6250, 0.8750])
    """
    return (torch.arange(n, device=device) + 0.5) / n


def quantile_huber_loss(quantile: Tensor, target: Tensor, fraction: Tensor, kappa: float = 1.0) -> Tensor:
    """Quantile regression onto samples of the target. Dabney et al. 2018, arXiv:1710.10044, (9), (10), Algorithm 1.

    `sum_i mean_j |tau_i - 1{u_ij < 0}| * L(u_ij)`, `u_ij = y_j - theta_i`; `L(u) = u^2 / 2` where `|u| <= kappa`, else
    `kappa * (|u| - kappa / 2)`. With kappa 0, `L(u) = |u|`: plain quantile regression. Its minimum has a share tau_i of
    the target below theta_i.

    Args:
        quantile: theta, [B, N], carries the gradient
        target: y, [B, M], a constant
        fraction: tau, [N]
        kappa: where squares turn into absolute values, in units of the return

    Returns:
        [B]; divide by N where a mean over quantiles is meant (TQC)

    >>> quantile_huber_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, -1.0]]), torch.tensor([0.25, 0.75]))
    tensor([1.5000])
    """
    u = target.detach().unsqueeze(-2) - quantile.unsqueeze(-1)
    size = u.abs()
    loss = size if kappa == 0 else torch.where(size <= kappa, 0.5 * u * u, kappa * (size - 0.5 * kappa))
    return ((fraction.unsqueeze(-1) - (u < 0).to(u.dtype)).abs() * loss).mean(-1).sum(-1)


def truncated_quantiles(quantile: Tensor, drop: int) -> Tensor:
    """The lowest of all quantiles of several critics. Kuznetsov et al. 2020, arXiv:2005.04269, (11).

    Args:
        quantile: [B, N, M], M quantiles of N critics, in any order
        drop: how many of the N * M highest are left out

    Returns:
        [B, N * M - drop], in rising order

    >>> truncated_quantiles(torch.tensor([[[1.0, 9.0, 3.0], [2.0, 8.0, 4.0]]]), 2)
    tensor([[1., 2., 3., 4.]])
    """
    pooled = quantile.flatten(1).sort(-1).values
    return pooled[:, : pooled.shape[1] - drop]
