"""The agent: it connects env and algorithm, numpy and torch, and decides when to learn."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.agent.algorithm.base import Algorithm, Setting
from slm_lab.agent.algorithm.learner import NonFiniteLoss, check_finite
from slm_lab.agent.memory.base import Memory
from slm_lab.agent.net.check import net_faults
from slm_lab.agent.net.precision import reduced, why_not_bf16, why_not_tf32
from slm_lab.agent.net.work import tried_out, work_of
from slm_lab.functional.distributions import UnfitDistribution
from slm_lab.lib.compiler import Effort
from slm_lab.lib.errors import SpecError
from slm_lab.lib.log import note
from slm_lab.lib.registry import having, lookup
from slm_lab.lib.seeding import derive
from slm_lab.lib.stateful import State
from slm_lab.spec.model import Spec
from slm_lab.types import Act, EnvInfo, PackedShape, Stats, Step

CHECKED_UPDATES = 10
"""Updates by which every learned tensor has changed, or `debug` says so."""


class Agent:
    """Acts, observes, and learns when it is time.

    Args:
        spec: the whole spec
        info: of the env it will act in
        seed: decides initial weights and every later choice
        device: torch name
        compile: compile the update, and acting; on an accelerator nothing is compiled by less than full effort
        debug: check that the first updates change the parameters
        init_seed: decides the initial weights in place of `seed`

    Raises:
        SpecError: algorithm and env do not fit each other; torch has no such device
    """

    def __init__(
        self,
        spec: Spec,
        info: EnvInfo,
        *,
        seed: int,
        device: str = "cpu",
        compile: Effort | bool = False,
        debug: bool = False,
        init_seed: int | None = None,
    ) -> None:
        self.info = info
        self.seed = seed
        self.device = _open_device(device)
        self.debug = debug
        self._updates = 0
        self._still: list[str] = []
        faults = net_faults(spec.agent.net)
        if faults:
            raise SpecError(faults)
        algorithm_class: type[Algorithm] = lookup("algorithm", spec.agent.algorithm.name)
        memory_class: type[Memory] = lookup("memory", spec.agent.memory.name)
        if info.masked and not algorithm_class.masks:
            able, name = ", ".join(having("algorithm", "masks")), spec.agent.algorithm.name
            raise SpecError([f"env.action_mask: {name} does not support it (these can: {able})"])
        self._generator = torch.Generator().manual_seed(derive(seed, 1))
        with torch.random.fork_rng(devices=[]), tried_out() as convolutions:
            torch.manual_seed(derive(seed if init_seed is None else init_seed, 0))
            try:
                compiles = memory_class.fixed_size and (compile is not Effort.QUICK or self.device.type == "cpu")
                self.algorithm = algorithm_class(
                    Setting(spec.agent, info, self.device, compile if compiles else Effort.OFF, self._generator)
                )
            except UnfitDistribution as e:
                raise SpecError([f"agent.algorithm.action_pdtype: {e}"]) from e
        self.work = work_of(self.algorithm.nets.values(), convolutions)
        """Of its nets, for one observation."""
        self.memory = memory_class(spec.agent.memory, self)
        self.each_step: bool = self.algorithm.moves_each_step or not self.memory.on_policy
        """Whether schedules move in every vector step."""
        self._cpu = self.device.type == "cpu"
        self._act: Act | None = None
        self._done: NDArray[Any] | None = None
        self.precision: str = spec.meta.precision
        """Of matrix products in updates, as it is."""
        why_not = {"bf16": why_not_bf16, "tf32": why_not_tf32}.get(self.precision)
        if why_not is not None and (why := why_not(self.device)) is not None:
            # the check of the spec makes an agent too
            note(f"meta.precision: float32 in place of {self.precision}: {why}", "WARNING")
            self.precision = "float32"
        self._bf16 = self.precision == "bf16"

    @property
    def training_frequency(self) -> int:
        """Of the algorithm."""
        return self.algorithm.training_frequency

    @property
    def training_start_step(self) -> int:
        """Of the algorithm."""
        return self.algorithm.training_start_step

    @property
    def stat_names(self) -> tuple[str, ...]:
        """Names of what an update reports, known before the first one: columns of the table."""
        return ("loss", *self.algorithm.stat_names, "grad_norm")

    @property
    def opt_step(self) -> int:
        """Gradient steps taken."""
        return self.algorithm.opt_step

    @property
    def compiled(self) -> bool:
        """Whether updates run as compiled graphs; known from the first one on."""
        learner = getattr(self.algorithm, "learner", None)
        return learner is not None and bool(learner.compile)

    def act(self, obs: NDArray[Any], explore: bool = True) -> NDArray[Any]:
        """[N, *O] -> actions [N, *A]; explore False: the greedy ones."""
        with torch.inference_mode():
            seen = torch.from_numpy(obs)
            if not self._cpu:
                seen = seen.to(self.device)
            # updates compare their log probs with the cached ones: both must be rounded in the same way
            with reduced(self.device) if self._bf16 and self.algorithm.notes is not None else nullcontext():
                self._act = self.algorithm.act(seen, explore)
            action: NDArray[Any] = self._act.action.numpy() if self._cpu else self._act.action.cpu().numpy()
            self._done = action
            return action

    def observe(self, obs: NDArray[Any], action: NDArray[Any], step: Step) -> None:
        """Store one vector step: obs [N, *O], action [N, *A], and the outcome."""
        self.memory.add(obs, action, step)
        if self.algorithm.notes is not None:
            # the cache belongs to the actions of `act`: an action from elsewhere has no entry
            self.algorithm.notes.add(self._act if action is self._done else None)
            self._done = None
        if self.algorithm.recall is not None:
            self.algorithm.recall.forget_(step.terminated | step.truncated)

    def forget(self, ended: NDArray[Any] | None = None) -> None:
        """Reset the hidden state of a recurrent net where an episode ended ([N] bool; None: everywhere).

        Not needed where `observe` is called.
        """
        if self.algorithm.recall is not None:
            self.algorithm.recall.forget_(ended)

    def apart(self, num_envs: int) -> AbstractContextManager[None]:
        """Act in `num_envs` other envs, from the beginning of episodes; the hidden state is restored afterwards."""
        recall = self.algorithm.recall
        return nullcontext() if recall is None else recall.apart(num_envs)

    def maybe_update(self, frame: int) -> Stats | None:
        """Learn if the memory says it is time.

        Returns:
            0-d tensors by name, or None where nothing was learned

        Raises:
            NonFiniteLoss: the loss is not finite
        """
        if not self.memory.ready():
            if self.each_step:
                self.algorithm.set_frame(frame)
            return None
        # an algorithm that may learn from old experience draws as many batches of it as it likes
        batch: Any = self.memory.sample() if self.memory.on_policy else self.memory
        if self.memory.on_policy and not self._cpu:
            batch = batch._make(t.to(self.device) for t in batch)
        checks = self.debug and self._updates < CHECKED_UPDATES
        before = self.weights() if checks else {}
        with torch.no_grad(), reduced(self.device) if self._bf16 else nullcontext():
            try:
                stats = self.algorithm.update(batch)
            except NonFiniteLoss as e:
                self.explain(e, batch)
        self.algorithm.set_frame(frame)
        if checks:
            self._check_changed(before, frame)
        return stats

    def check(self, stats: Mapping[str, Tensor]) -> None:
        """Check the statistics of the latest update before they are used, or the agent is saved.

        On a CPU `maybe_update` has done it; on a device it would have had to wait for them.
        """
        if not self._cpu:
            check_finite(dict(stats), self.opt_step)

    def explain(self, error: NonFiniteLoss, batch: Any) -> NoReturn:
        """Raise the error of an update; if the env gave values that are not finite, the message says so.

        Raises:
            NonFiniteLoss: always
        """
        if odd := self._not_finite(batch):
            raise NonFiniteLoss(f"{odd} that came from the env are not finite, hence {error}") from error
        raise error

    def _not_finite(self, batch: Any) -> str:
        """Which data of the env is not finite; empty if none."""
        if self.memory.on_policy:
            parts = {"observations": [batch.obs.cpu().numpy()], "rewards": [batch.reward.cpu().numpy()]}
        else:
            parts = batch.received()
        shape = self.info.obs_shape
        if isinstance(shape, PackedShape):
            parts["observations"] = [shape.reals(rows) for rows in parts["observations"]]
        return " and ".join(name for name, arrays in parts.items() if not all(np.isfinite(a).all() for a in arrays))

    def set_frame(self, frame: int) -> None:
        """Move every schedule to this frame."""
        self.algorithm.set_frame(frame)

    def variables(self) -> dict[str, float]:
        """Current learning rate and coefficients."""
        return self.algorithm.variables()

    def weights(self) -> dict[str, Tensor]:
        """Copies of all parameters, on the CPU, by name: `net.…`, `critic_net.…`."""
        return {f"{k}.{name}": p for k, net in self.policy_state().items() for name, p in net.items()}

    def policy_state(self) -> State:
        """The nets: enough to act."""
        return {
            k: {n: v.detach().cpu().clone() for n, v in net.state_dict().items()}
            for k, net in self.algorithm.nets.items()
        }

    def load_policy_state(self, state: State) -> None:
        """Load nets that `policy_state` returned, to act with."""
        self.algorithm.finish()
        for key, net in self.algorithm.nets.items():
            net.load_state_dict(state[key])
        if self.algorithm.notes is not None:
            self.algorithm.notes.clear()

    def start_from(self, state: State) -> None:
        """Begin the training with nets that `policy_state` of another agent returned."""
        self.load_policy_state(state)
        self.algorithm.begin()

    def state_dict(self) -> State:
        """Everything: nets, optimizers, memory, random generator."""
        return {
            "algorithm": self.algorithm.state_dict(),
            "memory": self.memory.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self.algorithm.load_state_dict(state["algorithm"])
        self.memory.load_state_dict(state["memory"])
        self._generator.set_state(state["generator"])

    def load_learned(self, state: State) -> None:
        """Load nets and optimizers of the state that another agent's `state_dict` returned; all else stays."""
        self.algorithm.load_learned(state["algorithm"])

    def shared(self) -> dict[str, Tensor]:
        """What all agents of a distributed trial share, by name: parameters and optimizer state.

        Raises:
            SpecError: something of the agent can't be shared
        """
        if any(True for net in self.algorithm.nets.values() for _ in net.buffers()):
            raise SpecError(["meta.distributed: the net keeps running statistics, which can't be shared"])
        return {f"{k}.{n}": t for k, optim in self.algorithm.optims.items() for n, t in optim.shared().items()}

    def share_(self, tensors: Mapping[str, Tensor], *, copy: bool) -> None:
        """Learn on these tensors from now on.

        Args:
            tensors: like those of `shared`, in memory that the agents of several processes see
            copy: act and compute gradients with a copy of the parameters, renewed after each step; else with them
        """
        for k, optim in self.algorithm.optims.items():
            optim.share_({n: tensors[f"{k}.{n}"] for n in optim.shared()}, copy=copy)

    def _check_changed(self, before: dict[str, Tensor], frame: int) -> None:
        """A learned tensor that none of the first updates changes is a fault in an algorithm, or a learning rate of 0.

        A single update may well leave one as it was: it counts for another net, or is too small for float32.
        """
        after = self.weights()
        still = [k for k in after if after[k].is_floating_point() and torch.equal(before[k], after[k])]
        self._updates += 1
        self._still = still if self._updates == 1 else [k for k in self._still if k in still]
        if self._updates == CHECKED_UPDATES and self._still and self.variables().get("lr", 1.0) > 0:
            told = ", ".join(self._still)
            logger.warning("frame {}: none of the first {} updates changed {}", frame, CHECKED_UPDATES, told)


def _open_device(name: str) -> torch.device:
    """A device that works."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        # only the first sentence: torch's message fills pages
        reason = (str(e).strip() or type(e).__name__).splitlines()[0].partition(". ")[0]
        raise SpecError([f"--device: '{name}' can't be used here: {reason}"]) from e
