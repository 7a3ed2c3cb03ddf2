"""Normalization layers that know by themselves whether the net is learning."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from slm_lab.functional.normalize import batch_renorm


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of [B, F] or [B, C, H, W]. Ioffe and Szegedy 2015, arXiv:1502.03167.

    By the batch where gradients are taken, by its running statistics where the net only answers. These change outside
    of what a step of the learner returns, so updates with it are not compiled. A lone value has no variance: it is
    normalized by the running statistics, which do not move.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x"""
        mean, var, momentum = self.running_mean, self.running_var, self.momentum
        by_batch = torch.is_grad_enabled() and x.numel() > x.shape[1]
        if by_batch and momentum is None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked)  # the mean of all batches
        momentum = momentum or 0.0
        return batch_norm(x, mean, var, self.weight, self.bias, by_batch, momentum, self.eps)


class BatchRenorm(nn.Module):
    """Batch renormalization of [B, F], with a learned scale and shift. Ioffe 2017, arXiv:1702.03275.

    Where gradients are taken, by the batch, corrected towards the running statistics, which then move on; where the net
    only answers, or is in eval mode, by the running statistics. The first `warmup_steps` batches are normalized without
    the correction, until there is something to be corrected towards; then in full, as the authors of CrossQ do it. A
    lone row has no variance: it is normalized by the running statistics, which do not move.

    Args:
        num_features: F
        eps: added to variances
        momentum: share of a batch in the running statistics
        warmup_steps: batches
        r_max: greatest correction of the scale, either way
        d_max: greatest correction of the mean, in standard deviations

    Raises:
        ValueError: an argument is out of bounds.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-3,
        momentum: float = 0.01,
        warmup_steps: int = 10_000,
        r_max: float = 3.0,
        d_max: float = 5.0,
    ) -> None:
        super().__init__()
        bounds = {
            "num_features": (num_features, 1, None),
            "eps": (eps, 0, None),
            "momentum": (momentum, 0, 1),
            "warmup_steps": (warmup_steps, 0, None),
            "r_max": (r_max, 1, None),
            "d_max": (d_max, 0, None),
        }
        for name, (value, least, most) in bounds.items():
            if not least <= value or (most is not None and value > most):
                span = f"at least {least}" if most is None else f"from {least} to {most}"
                raise ValueError(f"{name} must be {span} (got {value!r})")
        self.eps, self.momentum, self.warmup_steps = eps, momentum, warmup_steps
        self.r_max, self.d_max = r_max, d_max
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """[B, F] -> [B, F]"""
        if x.dim() != 2 or x.shape[1] != len(self.weight):
            raise ValueError(f"expected [B, {len(self.weight)}], got {list(x.shape)}")
        # bfloat16 is too coarse for the small differences of statistics
        x = x.to(self.weight.dtype)
        if not (self.training and torch.is_grad_enabled() and len(x) > 1):
            scale = self.weight / (self.running_var + self.eps).sqrt()
            return (x - self.running_mean) * scale + self.bias
        warm = (self.num_batches_tracked >= self.warmup_steps).to(x.dtype)
        made = batch_renorm(
            x, self.running_mean, self.running_var, 1 + (self.r_max - 1) * warm, self.d_max * warm, self.eps
        )
        self.running_mean.lerp_(made.mean, self.momentum)
        self.running_var.lerp_(made.var, self.momentum)
        self.num_batches_tracked.add_(1)
        return made.x * self.weight + self.bias

    def extra_repr(self) -> str:
        """Width, momentum, warm-up."""
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}, warmup_steps={self.warmup_steps}"


def normalized_layers(net: nn.Module) -> list[nn.Linear]:
    """Linear layers whose outputs are normalized by the batch: their scale has no effect.

    >>> net = nn.Sequential(nn.Linear(2, 3), BatchRenorm(3), nn.ReLU(), nn.Linear(3, 1))
    >>> normalized_layers(net)
    [Linear(in_features=2, out_features=3, bias=True)]
    """
    found = []
    for part in net.modules():
        if isinstance(part, nn.Sequential):
            pairs = pairwise(part)
            found += [a for a, b in pairs if isinstance(a, nn.Linear) and isinstance(b, BatchNorm | BatchRenorm)]
    return found
