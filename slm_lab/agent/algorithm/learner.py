"""One gradient step, the same whether compiled or not: loss, backward, clip, optimizer."""

from collections.abc import Callable, Sequence

import torch
from loguru import logger
from torch import Tensor, nn
from torch.func import functional_call

from slm_lab.agent.net.optim import Optim
from slm_lab.lib.compile import CompileError, TensorFunction, compile_function
from slm_lab.lib.errors import LabError
from slm_lab.types import Stats

LossFunction = Callable[..., tuple[Tensor, Stats]]
"""(*batch tensors, *coefficients) -> 0-d loss, 0-d statistics"""


class NonFiniteLoss(LabError):
    """The loss became infinite or not a number: the run is stopped, its last checkpoint is sound."""


class _LossModule(nn.Module):
    """A loss with the nets it reads as submodules, so that `functional_call` can put other parameters in their place."""

    def __init__(self, nets: dict[str, nn.Module], loss: LossFunction) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(nets)
        self.loss = loss

    def forward(self, *args: Tensor) -> tuple[Tensor, Stats]:
        return self.loss(*args)


class Learner:
    """Steps of gradient descent on one loss.

    Args:
        nets: modules that the loss reads, by name; all their parameters are learned
        optims: one for each, under the same name
        loss: called with the batch's tensors, then the coefficients; reads the nets, draws no random numbers
        stats: names of the loss's statistics, in order; `loss` and `grad_norm` are added
        compile: whether to compile the step
    """

    def __init__(
        self,
        nets: dict[str, nn.Module],
        optims: dict[str, Optim],
        loss: LossFunction,
        stats: Sequence[str],
        *,
        compile: bool = False,
    ) -> None:
        self.optims = [optims[name] for name in nets]
        self.loss = loss
        self.stat_names = ("loss", "grad_norm", *stats)
        self.compile = compile
        self.steps = 0
        self._module = _LossModule(nets, loss)
        self._prefixes = [f"nets.{name}." for name in nets]
        device = self.optims[0].params.flat.device
        self._sums = torch.zeros(len(self.stat_names), device=device)
        self._since = 0
        self._compiled: dict[tuple[torch.Size, ...], TensorFunction | None] = {}
        if compile and not all(o.functional for o in self.optims):
            logger.info("not compiled: this optimizer has no functional form here (Adam, AdamW, RMSprop and SGD have)")
            self.compile = False

    def step(self, data: Sequence[Tensor], index: Tensor | None, coefs: Sequence[Tensor]) -> None:
        """Descend once.

        Args:
            data: tensors [B, ...]
            index: [b] int64 rows of them to use; None: all
            coefs: 0-d tensors, whatever changes from step to step but is no data
        """
        run = self._get_compiled(data, index, coefs) if self.compile else None
        if run is None:
            self._eager(data, index, coefs)
        else:
            args = [t for o in self.optims for t in o.tensors()]
            run(*args, self._sums, *coefs, *data, *([] if index is None else [index]))
        self.steps += 1
        self._since += 1

    def take_stats(self) -> Stats:
        """Means over the steps since the last call.

        Raises:
            NonFiniteLoss: the loss, or a gradient, was not finite in one of them
        """
        means = self._sums / max(self._since, 1)
        self._sums.zero_()
        self._since = 0
        stats = dict(zip(self.stat_names, means.unbind(), strict=True))
        if not bool(torch.isfinite(means[:2]).all()):
            shown = ", ".join(f"{k} {v.item():.4g}" for k, v in stats.items())
            raise NonFiniteLoss(
                f"the loss is not finite ({shown}) at gradient step {self.steps}; the parameters of this moment are not "
                "saved. Usual causes: a learning rate too high, no clip_grad_val, rewards or observations out of scale."
            )
        return stats

    def _eager(self, data: Sequence[Tensor], index: Tensor | None, coefs: Sequence[Tensor]) -> None:
        batch = data if index is None else [d[index] for d in data]
        with torch.enable_grad():
            loss, stats = self.loss(*batch, *coefs)
            for o in self.optims:
                o.params.grad.zero_()
            loss.backward()
        norms = [o.step_() for o in self.optims]
        self._sums.add_(self._report(loss, norms, stats))

    def _report(self, loss: Tensor, norms: list[Tensor], stats: Stats) -> Tensor:
        values = [loss, sum(norms[1:], norms[0]) / len(norms), *(stats[k] for k in self.stat_names[2:])]
        return torch.stack([v.detach() for v in values])

    def _get_compiled(
        self, data: Sequence[Tensor], index: Tensor | None, coefs: Sequence[Tensor]
    ) -> TensorFunction | None:
        key = (data[0].shape, torch.Size() if index is None else index.shape)
        if key not in self._compiled:
            example = [t for o in self.optims for t in o.tensors()]
            example += [self._sums, *coefs, *data, *([] if index is None else [index])]
            try:
                self._compiled[key] = compile_function(self._functional(len(data), len(coefs), index is not None), example)
            except CompileError as e:
                logger.info("not compiled, going on in eager mode: {}", e)
                self.compile = False
                return None
        return self._compiled[key]

    def _functional(self, n_data: int, n_coefs: int, indexed: bool) -> TensorFunction:
        """The step as a function of everything it reads; the same operations as `_eager`."""

        def step(*args: Tensor) -> tuple[Tensor, ...]:
            rest = list(args)
            owned = []
            for o in self.optims:
                k = len(o.tensors())
                owned.append(rest[:k])
                rest = rest[k:]
            sums, rest = rest[0], rest[1:]
            coefs, rest = rest[:n_coefs], rest[n_coefs:]
            data, index = (rest[:n_data], rest[n_data]) if indexed else (rest, None)
            batch = data if index is None else [d[index] for d in data]
            with torch.enable_grad():
                leaves = [tensors[0].detach().requires_grad_() for tensors in owned]
                named = {
                    prefix + name: view
                    for prefix, o, leaf in zip(self._prefixes, self.optims, leaves, strict=True)
                    for name, view in zip(o.params.names, o.params.views(leaf), strict=True)
                }
                loss, stats = functional_call(self._module, named, (*batch, *coefs))
                grads = torch.autograd.grad(loss, leaves)
            norms = [
                o.apply_(tensors, grad.clone()) for o, tensors, grad in zip(self.optims, owned, grads, strict=True)
            ]
            sums.add_(self._report(loss, norms, stats))
            return ()

        return step
