"""Acting, the same whether compiled or not. A small net spends its time between the operations: one graph has none."""

from collections.abc import Callable, Mapping

import torch
from loguru import logger
from torch import Tensor, nn

from slm_lab.agent.algorithm.bound import Bound
from slm_lab.agent.net.optim import FlatParams
from slm_lab.lib.compile import CompileError, TensorFunction, compile_function
from slm_lab.types import Act


class Actor:
    """Chooses actions.

    Args:
        nets: every module that the choice reads, by name
        params: their flat parameters, which may change between two calls
        choose: (obs [N, *O], noise [N, ...], *coefficients) -> Act; draws no random numbers
        compile: whether to compile it; for batches like the first one, others are rare
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        params: Mapping[str, FlatParams],
        choose: Callable[..., Act],
        *,
        compile: bool,
    ) -> None:
        self.compile = compile
        self._bound = Bound(nets, params, choose)
        self._choose = choose
        self._key: tuple[object, ...] | None = None
        self._run: TensorFunction | None = None

    def __call__(self, obs: Tensor, noise: Tensor, *coefs: Tensor) -> Act:
        """[N, *O], [N, ...], 0-d each -> what is done"""
        if self.compile:
            # the compiled graph checks nothing: what it was not made for must not reach it
            key = (obs.shape, obs.stride(), obs.dtype)
            if self._key is None:
                self._make(obs, noise, coefs)
                self._key = key
            if self._run is not None and key == self._key:
                return Act(*self._run(*self._state(), obs, noise, *coefs))
        return self._choose(obs, noise, *coefs)

    def _state(self) -> list[Tensor]:
        """All that acting reads beside its arguments, where it lies now."""
        return [*(params.flat for params in self._bound.params.values()), *self._bound.statistics]

    def _make(self, obs: Tensor, noise: Tensor, coefs: tuple[Tensor, ...]) -> None:
        state = self._state()
        names, n = list(self._bound.nets), len(state)

        def choose(*args: Tensor) -> tuple[Tensor, ...]:
            flats = dict(zip(names, args, strict=False))
            done = self._bound.under(flats, args[len(names) : n], args[n:])
            return tuple(t for t in done if t is not None)

        try:
            with torch.inference_mode(mode=False), torch.no_grad():
                self._run = compile_function(choose, [*state, obs, noise, *coefs])
        except CompileError as e:
            logger.info("acting is not compiled: {}", e)
            self.compile = False
