"""Dueling heads: what a state is worth, and how much better each action is. Wang et al. 2016, arXiv:1511.06581."""

from torch import Tensor, nn

from slm_lab.agent.net.base import Linear
from slm_lab.agent.net.conv import ConvNet
from slm_lab.agent.net.mlp import MLPNet
from slm_lab.lib.registry import register


class DuelingHead(nn.Module):
    """`Q(s, a) = V(s) + A(s, a) - mean_a A(s, a)`, (9) of the paper: the mean makes V and A unique.

    In most states it matters little what one does; V is then learned from every action.

    With K numbers for each action (a distribution of returns), each of the K by itself: Hessel et al. 2018,
    arXiv:1710.02298.

    Args:
        linear: makes linear layers
        width: F, features
        n: actions
        each: K, numbers for each action
    """

    def __init__(self, linear: Linear, width: int, n: int, each: int = 1) -> None:
        super().__init__()
        self.value = linear(width, each)
        self.advantage = linear(width, n * each)
        self._sizes = (n, each)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> Q [B, n * K]"""
        advantage: Tensor = self.advantage(features).unflatten(-1, self._sizes)
        value: Tensor = self.value(features).unsqueeze(-2)
        return (value + advantage - advantage.mean(-2, keepdim=True)).flatten(-2)


@register("net")
class DuelingMLPNet(MLPNet):
    """MLPNet with dueling heads."""

    head = DuelingHead


@register("net")
class DuelingConvNet(ConvNet):
    """ConvNet with dueling heads."""

    head = DuelingHead


PLAIN = {"DuelingMLPNet": "MLPNet", "DuelingConvNet": "ConvNet"}
"""The same nets with one head."""
