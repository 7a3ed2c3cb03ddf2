"""Normalization layers that know by themselves whether the net is learning."""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of [B, F] or [B, C, H, W]. Ioffe and Szegedy 2015, arXiv:1502.03167.

    By the batch where gradients are taken, by its running statistics where the net only answers. These change outside
    of what a step of the learner returns, so updates with it are not compiled.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x"""
        mean, var, momentum = self.running_mean, self.running_var, self.momentum or 0.0
        return batch_norm(x, mean, var, self.weight, self.bias, torch.is_grad_enabled(), momentum, self.eps)
