"""Forward passes without gradients, compiled or not: choosing actions, evaluating a rollout.

For a small net most of the time is overhead between operations; one compiled graph has none.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from loguru import logger
from torch import Tensor, nn

from slm_lab.agent.algorithm.bound import Bound
from slm_lab.agent.net.optim import FlatParams
from slm_lab.lib.compile import Compiled, CompileError, compile_function
from slm_lab.lib.compiler import Effort
from slm_lab.types import Act


class NetFunction:
    """A function of tensors that reads nets.

    Args:
        nets: every module that it reads, by name
        params: their flat parameters, which may change between two calls
        function: returns tensors, or None in the place of one; draws no random numbers
        compile: whether to compile it, and with which effort; arguments of other shapes than the first run uncompiled
        quick: compile it only where that takes no more than a few seconds
        label: what it does, for the log
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        params: Mapping[str, FlatParams],
        function: Callable[..., Any],
        *,
        compile: Effort | bool,
        quick: bool = False,
        label: str = "acting",
    ) -> None:
        self.compile = compile
        self._quick, self._label = quick, label
        self._bound = Bound(nets, params, function)
        self._function = function
        self._key: tuple[object, ...] | None = None
        self._run: Compiled | None = None

    def __call__(self, *args: Tensor) -> Any:
        """As the function; a tuple without the Nones where it is compiled."""
        if self.compile:
            # compiled code does not check shapes or dtypes, so they are checked here
            key = tuple((t.shape, t.stride(), t.dtype) for t in args)
            if self._key is None:
                self._make(args)
                self._key = key
            if self._run is not None and key == self._key:
                return self._run(*self.state(), *args)
        return self._function(*args)

    def state(self) -> list[Tensor]:
        """All tensors that it reads beside its arguments."""
        return [*(params.flat for params in self._bound.params.values()), *self._bound.statistics]

    def pure(self, state: Sequence[Tensor], *args: Tensor) -> Any:
        """The function with what it reads, like `state`, as an argument."""
        names = list(self._bound.nets)
        return self._bound.under(dict(zip(names, state, strict=False)), state[len(names) :], args)

    def _make(self, args: tuple[Tensor, ...]) -> None:
        state = self.state()
        n = len(state)

        def function(*args: Tensor) -> tuple[Tensor, ...]:
            return tuple(t for t in self.pure(args[:n], *args[n:]) if t is not None)

        try:
            with torch.inference_mode(mode=False), torch.no_grad():
                # made in inference mode an argument can't be written down
                example = [t.clone() if t.is_inference() else t for t in (*state, *args)]
                self._run = compile_function(function, example, quick=self._quick or self.compile is Effort.QUICK)
        except CompileError as e:
            level = "DEBUG" if self.compile is Effort.QUICK else "INFO"
            logger.log(level, "{} is not compiled: {}", self._label, e)
            self.compile = Effort.OFF


class Actor(NetFunction):
    """Chooses actions: (obs [N, *O], noise [N, ...], 0-d coefficients) -> Act."""

    def __call__(self, *args: Tensor) -> Act:
        """See NetFunction."""
        return Act(*super().__call__(*args))
