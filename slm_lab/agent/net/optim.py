"""`Optim`: the parameters of some modules as one flat vector, with their optimizer, learning rate and gradient clip.

One vector makes an update a handful of operations in place of hundreds. The modules stay ordinary: their parameters are
views of the vector, their gradients views of `grad`, so `loss.backward()` fills it.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slm_lab.functional.optimizers import FUSED, OPTIMIZERS, clip_grad_norm_, hyper_parameter_faults
from slm_lab.lib.errors import SpecError
from slm_lab.lib.stateful import State
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.effect import overruled
from slm_lab.spec.model import LrSchedulerSpec, NetSpec, OptimSpec

_UNFIT = {
    "LBFGS": "evaluates the loss several times per step",
    "SparseAdam": "needs sparse gradients",
    "Muon": "needs matrices, and parameters here are one vector",
}
_UNFIT_SCHEDULES = {
    "ReduceLROnPlateau": "follows a loss, not the frames",
    "LambdaLR": "needs a Python function",
    "MultiplicativeLR": "needs a Python function",
    "SequentialLR": "needs other schedules",
    "ChainedScheduler": "needs other schedules",
}
_KEY = "agent.net.optim_spec"


class FlatParams:
    """All parameters of a module as one vector `flat` [P], and their gradients as one vector `grad` [P].

    Args:
        module: its parameters become views of the vector; do not call `module.to(...)` afterwards
    """

    def __init__(self, module: nn.Module) -> None:
        named = list(module.named_parameters())
        self.names = [name for name, _ in named]
        self._params = [p for _, p in named]
        self.shapes = [p.shape for _, p in named]
        self.flat = torch.cat([p.detach().reshape(-1) for _, p in named])
        self.grad = torch.zeros_like(self.flat)
        for (_, p), value, grad in zip(named, self.views(self.flat), self.views(self.grad), strict=True):
            p.data = value
            p.grad = grad

    def move_to(self, flat: Tensor) -> None:
        """Let the module's parameters be views of another vector [P], with the values in it."""
        self.flat = flat
        for p, value in zip(self._params, self.views(flat), strict=True):
            p.data = value

    def views(self, vector: Tensor) -> list[Tensor]:
        """[P] -> one view per parameter, in its shape"""
        return [v.view(s) for v, s in zip(vector.split([s.numel() for s in self.shapes]), self.shapes, strict=True)]


class Optim:
    """Optimizer, learning-rate schedule and gradient clip of one module.

    Args:
        module: whose parameters are learned
        spec: net spec as one role sees it
        lr: over the spec's learning rate (`agent.algorithm.lr`)

    Raises:
        SpecError: torch has no such optimizer or schedule, or refuses its arguments
    """

    def __init__(self, module: nn.Module, spec: NetSpec, lr: float | None = None) -> None:
        self.params = FlatParams(module)
        self.flat = self.params.flat
        """What steps are taken on: the module's own parameters, or those that processes share."""
        self.clip = spec.clip_grad_val
        stated = spec.optim_spec.lr
        self.base_lr = stated if lr is None else lr
        if lr is not None:
            overruled(spec.optim_spec, "lr", "agent.algorithm.lr is the rate of all optimizers", meant=True)
        self.lr = torch.tensor(self.base_lr, dtype=torch.float32)
        self._schedule = lr_schedule(spec.lr_scheduler_spec, self.base_lr)
        name, kwargs = _resolve(spec.optim_spec)
        self.torch_optim: torch.optim.Optimizer | None = None
        self.state: dict[str, Tensor] = {}
        arguments = _functional_arguments(name, kwargs)
        if arguments is not None:
            init, self._step = OPTIMIZERS[name]
            self._eager_step = FUSED.get(name, self._step)
            self.kwargs = arguments
            self.state = init(self.params.flat)
        else:
            leaf = nn.Parameter(self.params.flat)
            leaf.grad = self.params.grad
            self.torch_optim = _construct(name, leaf, self.base_lr, kwargs)
        self.set_frame(0)

    @property
    def functional(self) -> bool:
        """Whether a step is a function of tensors, and so can be compiled."""
        return self.torch_optim is None

    def tensors(self) -> list[Tensor]:
        """What a step reads and changes: parameters, learning rate, state."""
        return [self.flat, self.lr, *self.state.values()]

    @property
    def copies(self) -> bool:
        """Whether the module has its own copy of the shared parameters, to be renewed after each step on those."""
        return self.flat is not self.params.flat

    def shared(self) -> dict[str, Tensor]:
        """What all processes of a distributed trial share: parameters and optimizer state.

        Raises:
            SpecError: the optimizer keeps its state to itself
        """
        if self.torch_optim is not None:
            name, known = type(self.torch_optim).__name__, ", ".join(OPTIMIZERS)
            raise SpecError([f"agent.net.optim_spec.name: {name} can't be distributed (known: {known})"])
        return {"flat": self.flat, **self.state}

    def share_(self, tensors: dict[str, Tensor], *, copy: bool) -> None:
        """Take steps on these tensors from now on, with the values in them.

        Args:
            tensors: like those of `shared`, in memory of several processes
            copy: the module computes with a copy of the parameters, made now and after each step; else with them
        """
        self.flat = tensors["flat"]
        self.state = {key: tensors[key] for key in self.state}
        if copy:
            self.params.flat.copy_(self.flat)
        else:
            self.params.move_to(self.flat)

    def apply_(self, tensors: list[Tensor], grad: Tensor) -> Tensor:
        """Clip `grad` and change `tensors` (as from `tensors()`) by one step; returns the 0-d norm before clipping."""
        return self._apply_(self._step, tensors, grad)

    def _apply_(self, step: Callable[..., None], tensors: list[Tensor], grad: Tensor) -> Tensor:
        flat, lr, *values = tensors
        norm = clip_grad_norm_(grad, self.clip)
        step(flat, grad, dict(zip(self.state, values, strict=True)), lr, **self.kwargs)
        return norm

    def step_(self) -> Tensor:
        """One eager step on the gradients that `backward` left; returns the 0-d norm before clipping."""
        if self.torch_optim is None:
            norm = self._apply_(self._eager_step, self.tensors(), self.params.grad)
            if self.copies:
                self.params.flat.copy_(self.flat)
            return norm
        norm = clip_grad_norm_(self.params.grad, self.clip)
        for group in self.torch_optim.param_groups:
            group["lr"] = float(self.lr)
        self.torch_optim.step()
        return norm

    def set_frame(self, frame: int) -> None:
        """Move the learning rate to where its schedule is at this frame."""
        if self._schedule is not None:
            self.lr.fill_(self._schedule(frame))

    def ahead(self, frames: Sequence[int]) -> Tensor:
        """The learning rate at each of these frames, which ascend: [K] f32."""
        if self._schedule is None:
            return self.lr.expand(len(frames)).contiguous()
        return torch.tensor([self._schedule(frame) for frame in frames], dtype=torch.float32)

    def state_dict(self) -> State:
        """Optimizer state; the parameters belong to the module, and the learning rate follows from the spec."""
        if self.torch_optim is not None:
            # torch gives its tensors themselves, and goes on with those that it is given
            return {"state": copy.deepcopy(self.torch_optim.state_dict())}
        return {"state": {k: v.clone() for k, v in self.state.items()}}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        if self.torch_optim is not None:
            self.torch_optim.load_state_dict(copy.deepcopy(state["state"]))
            return
        for key, value in self.state.items():
            value.copy_(state["state"][key])


def lr_schedule(
    spec: LrSchedulerSpec | None, base_lr: float, key: str = "agent.net.lr_scheduler_spec"
) -> Callable[[int], float] | None:
    """frame -> learning rate. Steps, periods and milestones of torch's schedules count frames.

    Args:
        spec: `LinearToZero` (`base_lr * max(0, 1 - t / frame)`) or a class of torch.optim.lr_scheduler
        base_lr: rate at frame 0
        key: path of the spec key, for messages

    Raises:
        SpecError: torch has no such schedule, or refuses its arguments

    >>> f = lr_schedule(LrSchedulerSpec(name="LinearToZero", frame=100), 0.1)
    >>> f(25), f(200)
    (0.07500000000000001, 0.0)
    >>> g = lr_schedule(LrSchedulerSpec(name="StepLR", step_size=10, gamma=0.5), 1.0)
    >>> g(9), g(10), g(25)
    (1.0, 0.5, 0.25)
    """
    if spec is None:
        return None
    if spec.name == "LinearToZero":
        end = spec.kwargs.get("frame")
        if not isinstance(end, int | float) or isinstance(end, bool) or end <= 0:
            raise SpecError([f"{key}.frame: must be a positive number of frames (got {end!r})"])
        more = [k for k in spec.kwargs if k != "frame"]
        if more:
            raise SpecError([f"{key}.{k}: LinearToZero takes no such argument (known: frame)" for k in more])
        return lambda frame: base_lr * max(0.0, 1 - frame / end)
    return _torch_schedule(spec, base_lr, key)


def _torch_schedule(spec: LrSchedulerSpec, base_lr: float, key: str) -> Callable[[int], float]:
    module = torch.optim.lr_scheduler
    cls = getattr(module, spec.name, None)
    if spec.name in _UNFIT_SCHEDULES:
        raise SpecError([f"{key}.name: {spec.name} can't be used here: it {_UNFIT_SCHEDULES[spec.name]}"])
    if not (inspect.isclass(cls) and issubclass(cls, module.LRScheduler)) or cls is module.LRScheduler:
        fit = set(module.__all__) - {*_UNFIT_SCHEDULES, "LRScheduler"}
        known = ["LinearToZero", *sorted(fit)]
        near = did_you_mean(spec.name, known)
        raise SpecError([f"{key}.name: unknown schedule '{spec.name}'{near} (known: {', '.join(known)})"])
    faults = _argument_faults(cls, spec.name, spec.kwargs, key, own=("optimizer", "last_epoch", "verbose"))
    if faults:
        raise SpecError(faults)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=base_lr)
    try:
        scheduler: Any = cls(optimizer, **spec.kwargs)
    except (TypeError, ValueError) as e:
        raise SpecError([f"{key}: {spec.name}: {e}"]) from e
    # of OneCycleLR, also where it is epochs * steps_per_epoch
    last = getattr(scheduler, "total_steps", None)

    def at(frame: int) -> float:
        if last is not None:  # torch refuses to go further; the rate stays where it is then
            frame = min(frame, last - 1)
        if hasattr(scheduler, "_get_closed_form_lr"):
            scheduler.last_epoch = frame
            return float(scheduler._get_closed_form_lr()[0])
        if frame < scheduler.last_epoch:
            raise SpecError([f"{key}: {spec.name} can't go back to an earlier frame"])
        optimizer.step()
        while scheduler.last_epoch < frame:
            scheduler.step()
        return float(optimizer.param_groups[0]["lr"])

    return at


def schedule_faults(spec: LrSchedulerSpec, key: str) -> list[str]:
    """What is wrong with a schedule of the learning rate; it is tried out on its first frames."""
    try:
        schedule = lr_schedule(spec, 1.0, key)
        assert schedule is not None
        schedule(1)
    except SpecError as e:
        return e.faults
    except (TypeError, ValueError, ArithmeticError) as e:
        return [f"{key}: {spec.name} can't work with these arguments: {e}"]
    return []


def optim_faults(spec: OptimSpec, key: str) -> list[str]:
    """What is wrong with an optimizer."""
    try:
        name, kwargs = _resolve(spec, key)
        if _functional_arguments(name, kwargs, key) is None:
            _construct(name, nn.Parameter(torch.zeros(1)), spec.lr, kwargs, key)
    except SpecError as e:
        return e.faults
    return []


def _resolve(spec: OptimSpec, key: str = _KEY) -> tuple[str, dict[str, Any]]:
    name, kwargs = spec.name, spec.kwargs
    cls = getattr(torch.optim, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)) or cls is torch.optim.Optimizer:
        known = [n for n in torch.optim.__dict__ if inspect.isclass(getattr(torch.optim, n)) and n != "Optimizer"]
        fit = ", ".join(n for n in known if n not in _UNFIT)
        raise SpecError([f"{key}.name: torch.optim has no '{name}'{did_you_mean(name, known)} (known: {fit})"])
    return name, kwargs


def _argument_faults(
    cls: type, name: str, given: dict[str, Any], key: str, *, own: tuple[str, ...], set_here: tuple[str, ...] = ()
) -> list[str]:
    """Compare arguments with those of a constructor: `own` are not the user's to give, `set_here` come from the lab."""
    takes = {k: p for k, p in inspect.signature(cls).parameters.items() if k not in own}
    listed = ", ".join(takes)
    return [
        f"{key}.{k}: {name} takes no such argument{did_you_mean(k, takes)} (known: {listed})"
        for k in given
        if k not in takes
    ] + [
        f"{key}.{k}: missing, {name} needs it (known: {listed})"
        for k, p in takes.items()
        if p.default is p.empty and k not in given and k not in set_here
    ]


def _functional_arguments(name: str, kwargs: dict[str, Any], key: str = _KEY) -> dict[str, Any] | None:
    """Arguments for the functional form of an optimizer; None where it has none that takes them.

    Torch's own class is not made for it: that would import the compiler, seconds for every session.
    """
    if name in _UNFIT:
        raise SpecError([f"{key}.name: {name} can't be used here: it {_UNFIT[name]}"])
    cls = getattr(torch.optim, name)
    faults = _argument_faults(cls, name, kwargs, key, own=("params",), set_here=("lr",))
    if faults:
        raise SpecError(faults)
    defaults = {k: p.default for k, p in inspect.signature(cls).parameters.items()}
    told = {k: v for k, v in kwargs.items() if v != defaults[k]}
    if name not in OPTIMIZERS or not told.keys() <= inspect.signature(OPTIMIZERS[name][1]).parameters.keys():
        return None
    faults = [f"{key}.{k}: {fault}" for k, fault in hyper_parameter_faults(told).items()]
    if faults:
        raise SpecError(faults)
    return {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}


def _construct(
    name: str, leaf: nn.Parameter, lr: float, kwargs: dict[str, Any], key: str = _KEY
) -> torch.optim.Optimizer:
    """The class of torch.optim; where it refuses its arguments, so do we."""
    cls: Any = getattr(torch.optim, name)
    try:
        optimizer: torch.optim.Optimizer = cls([leaf], lr=lr, **kwargs)
    except (TypeError, ValueError, RuntimeError) as e:
        raise SpecError([f"{key}: {name}: {e}"]) from e
    return optimizer
