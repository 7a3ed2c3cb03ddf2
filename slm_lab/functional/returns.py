"""Returns and advantages over rollouts of T steps and N envs.

An episode may end inside a rollout in two ways that must not be confused. Where it *terminated* nothing comes after:
the value of what follows is 0. Where it was *truncated* (a time limit) it would have continued: the value of the
true successor, `final_value`, is bootstrapped from. In both cases nothing of the next episode may leak back.
"""

import torch
from torch import Tensor


def discounted_scan(x: Tensor, coef: Tensor) -> Tensor:
    """Solve `y_t = x_t + coef_t * y_{t+1}` with `y_T = 0`, for all t at once.

    A scan by doubling (Hillis and Steele 1986): log2(T) vectorized passes in place of a loop over T.

    Args:
        x: [T, ...]
        coef: [T, ...]

    Returns:
        y: [T, ...]

    >>> discounted_scan(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, 0.5, 0.5]))
    tensor([1.7500, 1.5000, 1.0000])
    """
    y, c, stride = x, coef, 1
    while stride < x.shape[0]:
        y = torch.cat([y[:-stride] + c[:-stride] * y[stride:], y[-stride:]])
        c = torch.cat([c[:-stride] * c[stride:], c[-stride:]])
        stride *= 2
    return y


def discounted_returns(
    reward: Tensor, terminated: Tensor, truncated: Tensor, last_value: Tensor, final_value: Tensor, gamma: float
) -> Tensor:
    """Monte Carlo returns, bootstrapped where the rollout or a time limit cuts an episode off.

    `G_t = r_t + gamma * G_{t+1}`, where `G_{t+1}` is 0 if t terminated, `final_value` if it was truncated, and
    `last_value` after the last step. With values of 0 these are the plain returns of REINFORCE; with a rollout of n
    steps they are the n-step returns of A2C. Sutton and Barto 2018, (3.8), (7.1).

    Args:
        reward: [T, N]
        terminated: [T, N] bool
        truncated: [T, N] bool
        last_value: [N], V of the observation after the last step
        final_value: [T, N], V of the true successor where truncated, else 0
        gamma: discount per step

    Returns:
        [T, N]

    >>> one, no = torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.bool)
    >>> discounted_returns(one, no, no, torch.tensor([8.0]), torch.zeros(3, 1), 0.5).squeeze(-1)
    tensor([2.7500, 3.5000, 5.0000])
    """
    going_on = (~(terminated | truncated)).to(reward.dtype)
    x = reward + gamma * final_value
    x = torch.cat([x[:-1], (x[-1] + gamma * going_on[-1] * last_value)[None]])
    return discounted_scan(x, gamma * going_on)


def gae(
    reward: Tensor, terminated: Tensor, truncated: Tensor, value: Tensor, final_value: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalized advantage estimation. Schulman et al. 2016, arXiv:1506.02438, (16).

    `delta_t = r_t + gamma * v' - V_t` and `A_t = delta_t + gamma * lam * (1 - done_t) * A_{t+1}`, where `v'` is 0 if t
    terminated, `final_value` if it was truncated, else `V_{t+1}`; done = terminated or truncated. lam 0 is the one-step
    TD error, lam 1 the Monte Carlo return minus the value.

    Args:
        reward: [T, N]
        terminated: [T, N] bool
        truncated: [T, N] bool
        value: [T+1, N]
        final_value: [T, N], V of the true successor where truncated, else 0
        gamma: discount per step
        lam: 0 to 1

    Returns:
        advantages [T, N]; the targets of the value function are `gae(...) + value[:-1]`

    >>> r, no = torch.tensor([[1.0], [1.0]]), torch.zeros(2, 1, dtype=torch.bool)
    >>> gae(r, no, no, torch.tensor([[0.5], [0.5], [0.5]]), torch.zeros(2, 1), 0.9, 0.5).squeeze(-1)
    tensor([1.3775, 0.9500])
    """
    done = terminated | truncated
    next_value = torch.where(done, final_value, value[1:])
    delta = reward + gamma * next_value - value[:-1]
    return discounted_scan(delta, gamma * lam * (~done).to(reward.dtype))


def lambda_returns(
    reward: Tensor, terminated: Tensor, truncated: Tensor, value: Tensor, final_value: Tensor, gamma: float, lam: float
) -> Tensor:
    """`G_t = r_t + gamma * ((1 - lam) * v' + lam * G_{t+1})`. Sutton and Barto 2018, (12.18).

    `v'` as in `gae`; where the episode ended, and at the last step, lam is 0 and `r_t + gamma * v'` the whole return.
    With values `max_a Q(s, a)` these are the targets of Peng's Q(lambda): Peng and Williams 1996; arXiv:2407.04811.
    The arguments are those of `gae`.

    Returns:
        [T, N]

    >>> r, no = torch.tensor([[1.0], [1.0]]), torch.zeros(2, 1, dtype=torch.bool)
    >>> lambda_returns(r, no, no, torch.tensor([[9.0], [2.0], [4.0]]), torch.zeros(2, 1), 0.5, 0.5).squeeze(-1)
    tensor([2.2500, 3.0000])
    """
    return gae(reward, terminated, truncated, value, final_value, gamma, lam) + value[:-1]
