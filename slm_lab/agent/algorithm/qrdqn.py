"""QR-DQN: learn the quantiles of the return. Dabney et al. 2018, arXiv:1710.10044.

The idea: the mean of a return hides its distribution. A net that predicts the whole distribution has more to learn from
each transition, and its mean becomes better too. Here the distribution is K returns theta_1 ... theta_K of each action,
the quantiles of fixed fractions tau_i = (2i - 1) / 2K. Unlike C51 it needs no bounds of the return.

    as DQN (see `dqn`), with
        Q(s, a) = mean_i theta_i(s, a)
        y_j = r + gamma * theta_target_j(s', argmax_a Q_target(s', a))        y_j = r where the episode terminated
        descend on the mean of w * sum_i mean_j |tau_i - 1{y_j < theta_i(s, a)}| * Huber_kappa(y_j - theta_i(s, a))

Priorities of a PrioritizedReplay are differences of the means. Differs from the paper: several envs, any optimizer;
rewards are not clipped.
"""

from slm_lab.agent.algorithm.dqn import DQNBaseSpec, VanillaDQN
from slm_lab.agent.algorithm.return_head import QuantileHead, ReturnHead
from slm_lab.lib.registry import register
from slm_lab.spec.model import Count, NetSpec, NonNegative


class QRDQNSpec(DQNBaseSpec):
    """Keys of QRDQN."""

    quantiles: Count = 200
    """K, quantiles of each action's return."""
    kappa: NonNegative = 1.0
    """Errors above it count by their size, smaller ones by their square; 0: all by their size."""


@register("algorithm")
class QRDQN(VanillaDQN):
    """A net of quantiles, and its target net."""

    Spec = QRDQNSpec
    has_target = True

    def make_head(self, spec: NetSpec) -> ReturnHead:
        """Quantiles."""
        return QuantileHead(self.spec.quantiles, self.spec.kappa)
