"""Random numbers as a function of counters: no state to carry along, the same on every device."""

from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""2^64 over the golden ratio, as a signed number."""


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """Scatter 64 bits: the finalizer of SplitMix64. Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195.

        x ^= x >> 30;  x *= 0xBF58476D1CE4E5B9;  x ^= x >> 27;  x *= 0x94D049BB133111EB;  x ^= x >> 31

    Args:
        x: [...] int64, whose products wrap around

    Returns:
        [...] int64

    >>> import torch
    >>> hex(mix(torch.tensor(GOLDEN)).item() % 2**64)  # the first number of SplitMix64 from seed 0
    '0xe220a8397b1dcdaf'
    """
    x = (x ^ _shift(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shift(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shift(x, 31)


def uniform(seed: Tensor, *counters: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), one for each combination of counters.

    `h_0 = mix(seed)`, `h_k = mix(h_{k-1} + (c_k + 1) * GOLDEN)`; the upper 53 bits of the last are the number.

    Args:
        seed: 0-d int64
        counters: int64, of shapes that broadcast to [...]

    Returns:
        [...] float64

    >>> import torch
    >>> env, episode = torch.arange(2)[:, None], torch.arange(3)
    >>> x = uniform(torch.tensor(7), env, episode)
    >>> x.shape, bool((x == uniform(torch.tensor(7), env, episode)).all()), x.unique().numel()
    (torch.Size([2, 3]), True, 6)
    """
    h = mix(seed)
    for counter in counters:
        h = mix(h + (counter + 1) * GOLDEN)
    return _shift(h, 11).double() * 2.0**-53
