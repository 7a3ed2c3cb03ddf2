"""Dueling heads: what a state is worth, and how much better each action is. Wang et al. 2016, arXiv:1511.06581."""

from torch import Tensor, nn

from slm_lab.agent.net.conv import ConvNet
from slm_lab.agent.net.mlp import MLPNet
from slm_lab.lib.registry import register


class DuelingHead(nn.Module):
    """`Q(s, a) = V(s) + A(s, a) - mean_a A(s, a)`, (9) of the paper: the mean makes V and A unique.

    In most states it matters little what one does; V is then learned from every action.

    Args:
        width: F, features
        size: n, actions
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, 1)
        self.advantage = nn.Linear(width, size)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> Q [B, n]"""
        advantage: Tensor = self.advantage(features)
        value: Tensor = self.value(features)
        return value + advantage - advantage.mean(-1, keepdim=True)


@register("net")
class DuelingMLPNet(MLPNet):
    """MLPNet with dueling heads."""

    head = DuelingHead


@register("net")
class DuelingConvNet(ConvNet):
    """ConvNet with dueling heads."""

    head = DuelingHead
