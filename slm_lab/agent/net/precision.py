"""Matrix products in bfloat16 or TF32, everything else in float32.

bfloat16 has float32's range and 8 bits of its mantissa: three decimal places get lost, a product takes half the time or
less. Parameters, optimizer, losses and the last layer of each net stay float32, so that a small gradient still moves a
parameter and a value of 500 is not rounded to the next even number. Micikevicius et al. 2018, arXiv:1710.03740;
Kalamkar et al. 2019, arXiv:1905.12322.

TF32 is float32 with 10 bits of mantissa, inside of the products of NVIDIA's GPUs since Ampere: `float32_products`
allows or forbids it. torch allows it for convolutions unless it is told otherwise.

bfloat16 is torch's autocast: layers look for themselves whether it is on. `reduced` turns it on, for updates;
`full_precision` makes a last layer of a layer; `widened` keeps gradients from being rounded once more.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def why_not_bf16(device: torch.device) -> str | None:
    """What speaks against bfloat16 on this device: it would be slower than float32 there; None: nothing."""
    if device.type == "cuda":
        return None if torch.cuda.is_bf16_supported(including_emulation=False) else "this GPU has no bf16 instructions"
    if device.type != "cpu":
        return f"not known to be faster on a device of type '{device.type}'"
    # named with an underscore in every torch so far; a torch without them is taken for a CPU without
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if any(getattr(torch.cpu, name, bool)() for name in asked):
        return None
    return "this CPU has no bf16 instructions (avx512_bf16 or AMX)"


def why_not_tf32(device: torch.device) -> str | None:
    """What speaks against TF32 on this device; None: nothing."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return None
    return "only NVIDIA GPUs from compute capability 8.0 on have TF32"


@contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Inside, float32 products and convolutions on a GPU use TF32, or don't; a setting of the process, put back after.

    Args:
        device: on others than NVIDIA's GPUs nothing is set
        tf32: whether to use it
    """
    if device.type != "cuda":
        yield
        return
    backends: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = tf32
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def reduced(device: torch.device) -> AbstractContextManager[object]:
    """Inside, matrix products and convolutions are taken in bfloat16."""
    # no cache of casts: it would outlive a step in which the parameters change
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def widened(device: torch.device) -> AbstractContextManager[object]:
    """Inside, `reduced` is off: products are taken in the type of their factors. For backward passes."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def full_precision(layer: Callable[[Tensor], Result], features: Tensor) -> Result:
    """`layer(features)` in float32, also where the features were found in bfloat16.

    Args:
        layer: the last one of a net, say, whose outputs are meant as they are
        features: [B, F]

    >>> with reduced(torch.device("cpu")):
    ...     x = torch.nn.Linear(2, 2)(torch.ones(1, 2))
    ...     x.dtype, full_precision(torch.nn.Linear(2, 2), x).dtype
    (torch.bfloat16, torch.float32)
    """
    kind = features.device.type
    if not torch.is_autocast_enabled(kind):
        return layer(features)
    with torch.autocast(kind, enabled=False):
        return layer(features.float())
