"""Gradient steps, the same whether compiled or not: loss, backward, clip, optimizer."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from loguru import logger
from torch import Tensor, nn

from slm_lab.agent.algorithm.bound import Bound
from slm_lab.agent.net.optim import FlatParams, Optim
from slm_lab.agent.net.precision import widened
from slm_lab.lib.compile import Compiled, CompileError, compile_function
from slm_lab.lib.compiler import Effort
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import note
from slm_lab.lib.native.record import TensorFunction
from slm_lab.types import Stats

LossFunction = Callable[..., tuple[Tensor, Stats]]
"""(*batch tensors, *coefficients) -> 0-d loss, statistics by name"""


class NonFiniteLoss(LabError):
    """The loss became infinite or not a number: the run is stopped, its last checkpoint is usable."""


@dataclass(frozen=True)
class Stage:
    """One loss and the nets that descend on it. An update may have several in a row: critic, then actor."""

    learned: tuple[str, ...]
    """Names of nets; the gradients of all others are not even computed."""
    loss: LossFunction
    """Reads the nets, draws no random numbers."""
    stats: tuple[str, ...] = ()
    """Names of its 0-d statistics."""
    outputs: tuple[str, ...] = ()
    """Names of statistics that are not reduced to a mean but returned as they are: [B] errors for priorities, say."""
    label: str = "loss"
    """Name of the loss among the statistics."""


class Learner:
    """Steps of gradient descent.

    Args:
        nets: every module that a loss reads, by name
        optims: one for each net that is learned, under its name
        stages: losses, in the order of their steps
        frozen: flat parameters of the nets that are only read (targets); they may change between steps
        compile: whether to compile the step, all stages as one graph, and with which effort
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        optims: Mapping[str, Optim],
        stages: Sequence[Stage],
        *,
        frozen: Mapping[str, FlatParams] | None = None,
        compile: Effort | bool = False,
    ) -> None:
        self.optims = dict(optims)
        self.stages = tuple(stages)
        self.compile = compile
        self.steps = 0
        self._frozen = dict(frozen or {})
        self._flat = {k: o.params for k, o in self.optims.items()} | self._frozen
        self._nets = dict(nets)
        self._bound = [Bound(nets, self._flat, stage.loss) for stage in self.stages]
        self._statistics = self._bound[0].statistics
        self.stat_names = (*(n for stage in self.stages for n in (stage.label, *stage.stats)), "grad_norm")
        # after the statistics comes the sum of all parameters, which shows whether one of them is not finite
        self._sums = torch.zeros(len(self.stat_names) + 1, device=next(iter(self._flat.values())).flat.device)
        self._since = 0
        self.defers_check = self._sums.device.type != "cpu"
        """Whether the check for a finite loss is deferred, so that the CPU does not wait for the device."""
        self._one = torch.ones((), device=self._sums.device)
        self._compiled: dict[tuple[object, ...], Compiled] = {}
        if compile and not all(o.functional for o in self.optims.values()):
            logger.info("not compiled: this optimizer has no functional form here (Adam, AdamW, RMSprop and SGD have)")
            self.compile = Effort.OFF

    def step(self, data: Sequence[Tensor], index: Tensor | None, coefs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Descend once on every stage.

        Args:
            data: tensors [B, ...]
            index: [b] int64 rows of them to use; None: all
            coefs: 0-d tensors, whatever changes from step to step but is no data

        Returns:
            the outputs that the stages name, in order
        """
        run = self._get_compiled(data, index, coefs) if self.compile else None
        outputs = self._eager(data, index, coefs) if run is None else run(*self._arguments(data, index, coefs))
        self.steps += 1
        self._since += 1
        return outputs

    def step_each(self, data: Sequence[Tensor], index: Tensor | None, coefs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Descend several times in a row; compiled, that is one call.

        Args:
            data: tensors [B, ...]; where there is no index [K, B, ...], a batch for each step
            index: [K, b] int64, rows of the data for each step
            coefs: 0-d tensors

        Returns:
            the outputs that the stages name, [K, ...] each
        """
        count = len(data[0] if index is None else index)
        batch, rows = ([d[0] for d in data], None) if index is None else (list(data), index[0])
        run = self._get_compiled(batch, rows, coefs) if self.compile else None
        if run is None:
            found = [
                self.step([d[k] for d in data] if index is None else data, None if index is None else index[k], coefs)
                for k in range(count)
            ]
            return tuple(torch.stack(list(outs)) for outs in zip(*found, strict=True))
        args = self._arguments(batch, rows, coefs)
        moving = list(data) if index is None else [index]
        outputs = run.loop(args, dict(enumerate(moving, len(args) - len(moving))), count)
        self.steps += count
        self._since += count
        return outputs

    def step_through(
        self, data: Sequence[Tensor], orders: Sequence[Tensor], size: int, coefs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Descend on minibatches, epoch by epoch.

        Args:
            data: tensors [B, ...]
            orders: [B] int64 each, the rows of an epoch in their order
            size: rows of a minibatch; the last of an epoch may have fewer
            coefs: 0-d tensors

        Returns:
            the outputs that the stages name, [K, ...] each
        """
        if len(orders[0]) % size == 0:
            orders = [torch.cat(list(orders))]
        found = []
        for order in orders:
            whole = len(order) // size * size
            if whole:
                found.append(self.step_each(data, order[:whole].view(-1, size), coefs))
            if whole < len(order):
                found.append(tuple(out[None] for out in self.step(data, order[whole:], coefs)))
        return tuple(torch.cat(outs) for outs in zip(*found, strict=True))

    def program(self, n_data: int) -> tuple[TensorFunction, list[Tensor]]:
        """The step, without coefficients, to be a part of a larger program: see `took`.

        Args:
            n_data: number of tensors of data

        Returns:
            a pure function, and its arguments before the data; the last of them is where it adds its statistics
        """
        return self._functional(n_data, 0, indexed=False), self._arguments([], None, ())

    def took(self, sums: Tensor, each: int) -> Stats:
        """Count the steps that a larger program has made.

        Args:
            sums: [K, S], what `each` steps have added to zeros, K times
            each: steps

        Returns:
            means over the last steps

        Raises:
            NonFiniteLoss: the loss or a parameter was not finite in one of them
        """
        before = self.steps
        self.steps += len(sums) * each
        if not math.isfinite(float(sums.sum())):
            bad = int((~sums.isfinite()).any(1).int().argmax())
            raise NonFiniteLoss(_not_finite(self._named(sums[bad] / each)[0], before + (bad + 1) * each))
        return self._named(sums[-1] / each)[0]

    def _named(self, means: Tensor) -> tuple[Stats, Tensor]:
        """Statistics by name, and the sum of all parameters."""
        *values, params = means.unbind()
        return dict(zip(self.stat_names, values, strict=True)), params

    @property
    def opt_step(self) -> int:
        """Steps taken, summed over optimizers."""
        return self.steps * sum(len(stage.learned) for stage in self.stages)

    def take_stats(self) -> Stats:
        """Means over the steps since the last call.

        On a device the CPU does not wait for them here: who reads them, at a log row, calls `check_finite`. The loss is
        made NaN where a parameter is not finite.

        Raises:
            NonFiniteLoss: on a CPU, see `check_finite`
        """
        means = self._sums / max(self._since, 1)
        self._sums.zero_()
        self._since = 0
        stats, params = self._named(means)
        # of parameters too: no loss has seen yet what the last step made of them
        if self.defers_check:
            stats[self.stat_names[0]] += params - params
        elif not math.isfinite(sum(means.tolist())):
            raise NonFiniteLoss(_not_finite(stats, self.steps))
        return stats

    def _arguments(self, data: Sequence[Tensor], index: Tensor | None, coefs: Sequence[Tensor]) -> list[Tensor]:
        """All tensors that a step reads, in the order in which `_functional` unpacks them."""
        learned = [t for o in self.optims.values() for t in o.tensors()]
        copies = [o.params.flat for o in self.optims.values() if o.copies]
        frozen = [f.flat for f in self._frozen.values()]
        rows = [] if index is None else [index]
        return [*learned, *copies, *frozen, *self._statistics, self._sums, *coefs, *data, *rows]

    def _eager(self, data: Sequence[Tensor], index: Tensor | None, coefs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        batch = data if index is None else [d.index_select(0, index) for d in data]
        values: list[Tensor] = []
        norms: list[Tensor] = []
        outputs: list[Tensor] = []
        for stage in self.stages:
            with torch.enable_grad(), self._only(stage.learned):
                loss, stats = stage.loss(*batch, *coefs)
                for name in stage.learned:
                    self.optims[name].params.grad.zero_()
                with widened(loss.device):
                    loss.backward(self._one)
            norms += [self.optims[name].step_() for name in stage.learned]
            values += _numbers(stage, loss, stats)
            outputs += [stats[k].detach() for k in stage.outputs]
        self._sums.add_(_summed(values, norms, [o.params.flat for o in self.optims.values()]))
        return tuple(outputs)

    @contextmanager
    def _only(self, learned: tuple[str, ...]) -> Iterator[None]:
        """Gradients for these nets alone."""
        others = [net for name, net in self._nets.items() if name not in learned]
        held = [p for net in others for p in net.parameters() if p.requires_grad]
        for p in held:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in held:
                p.requires_grad_(True)

    def _get_compiled(self, data: Sequence[Tensor], index: Tensor | None, coefs: Sequence[Tensor]) -> Compiled | None:
        # compiled code does not check shapes or dtypes, so they are checked here
        key = tuple((t.shape, t.stride(), t.dtype) for t in (*data, *coefs, *(() if index is None else (index,))))
        if key not in self._compiled:
            try:
                function = self._functional(len(data), len(coefs), indexed=index is not None)
                self._compiled[key] = compile_function(
                    function, self._arguments(data, index, coefs), quick=self.compile is Effort.QUICK
                )
            except CompileError as e:
                level = "DEBUG" if self.compile is Effort.QUICK else "INFO"
                logger.log(level, "not compiled, continuing in eager mode: {}", e)
                self.compile = Effort.OFF
                return None
        return self._compiled[key]

    def _functional(self, n_data: int, n_coefs: int, *, indexed: bool) -> TensorFunction:
        """The step as a function of everything it reads; the same operations as `_eager`."""

        def step(*args: Tensor) -> tuple[Tensor, ...]:
            rest = iter(args)
            owned = {k: [next(rest) for _ in o.tensors()] for k, o in self.optims.items()}
            copies = {k: next(rest) for k, o in self.optims.items() if o.copies}
            flats = {k: tensors[0] for k, tensors in owned.items()} | copies | {k: next(rest) for k in self._frozen}
            statistics = [next(rest) for _ in self._statistics]
            sums = next(rest)
            coefs = [next(rest) for _ in range(n_coefs)]
            data = [next(rest) for _ in range(n_data)]
            batch = data
            if indexed:
                index = next(rest)
                batch = [d.index_select(0, index) for d in data]
            values: list[Tensor] = []
            norms: list[Tensor] = []
            outputs: list[Tensor] = []
            for stage, bound in zip(self.stages, self._bound, strict=True):
                with torch.enable_grad():
                    leaves = {k: flats[k].detach().requires_grad_() for k in stage.learned}
                    loss, stats = bound.under(flats | leaves, statistics, (*batch, *coefs))
                    with widened(loss.device):
                        grads = torch.autograd.grad(loss, list(leaves.values()))
                norms += [
                    self.optims[k].apply_(owned[k], grad.clone()) for k, grad in zip(stage.learned, grads, strict=True)
                ]
                for k in stage.learned:
                    if k in copies:
                        copies[k].copy_(owned[k][0])
                values += _numbers(stage, loss, stats)
                outputs += [stats[k].detach() for k in stage.outputs]
            sums.add_(_summed(values, norms, [flats[k] for k in self.optims]))
            return tuple(outputs)

        return step


def check_finite(stats: Stats, steps: int) -> None:
    """Check what an update reported on a device.

    Args:
        stats: as `take_stats` gave them; read here
        steps: gradient steps so far

    Raises:
        NonFiniteLoss: a loss or a gradient was not finite, or a parameter is not
    """
    if not math.isfinite(sum(v.item() for v in stats.values())):
        raise NonFiniteLoss(_not_finite(stats, steps))


def _not_finite(stats: Stats, steps: int) -> str:
    shown = ", ".join(f"{k} {v.item():.4g}" for k, v in stats.items())
    return (
        f"the loss or a parameter is not finite ({shown}) at gradient step {steps}; "
        "these parameters are not saved. Usual causes: a high learning rate, no clip_grad_val, "
        "rewards or observations out of scale."
    )


def _numbers(stage: Stage, loss: Tensor, stats: Stats) -> list[Tensor]:
    """The loss and its statistics, 0-d each; one that gets no column is reported."""
    for name in stats.keys() - {*stage.stats, *stage.outputs}:
        if stats[name].dim() == 0:
            where = getattr(stage.loss, "__qualname__", "the loss")
            note(f"{where} returns '{name}', which is not among its stat_names: it is not logged")
    return [loss, *(stats[k] for k in stage.stats)]


def _summed(values: list[Tensor], norms: list[Tensor], flats: list[Tensor]) -> Tensor:
    """All losses and statistics, the mean gradient norm, and the sum of all parameters, as one vector."""
    sums = [flat.sum() for flat in flats]
    return torch.stack([v.detach() for v in (*values, _total(norms) / len(norms), _total(sums))])


def _total(terms: list[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0])
