"""Rainbow: six improvements of DQN in one agent. Hessel et al. 2018, arXiv:1710.02298.

The idea: each of the improvements mends another weakness of DQN, so their gains add up.

    double          the net chooses the next action, the target net rates it        less overestimation
    prioritized     transitions with a large error are drawn again sooner           memory: PrioritizedReplay
    dueling         V(s) and A(s, a) apart                                          net: the dueling form of its type
    multi_step      y is made of the next n rewards                                 num_step_returns, 3 by default
    distributional  the distribution of the return, over fixed values (C51)         atoms, v_min, v_max
    noisy           noise in the linear layers explores; its size is learned        net.noisy_std, 0.5 by default

    as DQN (see `dqn`), with
        p' = the distribution of Q_target(s_n, argmax_a Q(s_n, a))
        m = p' on the values r_0 + ... + gamma^(n-1) r_(n-1) + gamma^n z, projected onto z
        descend on the mean of w * cross_entropy(m, p(s, a)); the priority is KL(m || p(s, a))

`without` leaves parts out, as the paper's ablation does: one spec is the whole ablation. Keys of a part
that is left out are not read; without noisy layers `explore_var_spec` explores.

Differs from the paper: several envs, any optimizer; rewards are not clipped; one draw of noise for all envs of a step.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from slm_lab.agent.algorithm.base import Setting
from slm_lab.agent.algorithm.dqn import DQNSpec, VanillaDQN
from slm_lab.agent.net.dueling import PLAIN
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import register
from slm_lab.spec.basics import NUMBER
from slm_lab.spec.effect import overruled
from slm_lab.spec.model import Count

Part = Literal["double", "prioritized", "dueling", "multi_step", "distributional", "noisy"]
USUAL_STD = 0.5
"""sigma_0 of the paper."""


class RainbowSpec(DQNSpec):
    """Keys of Rainbow."""

    without: tuple[Part, ...] = ()
    """Parts left out: any of double, prioritized, dueling, multi_step, distributional, noisy."""
    num_step_returns: Count = 3
    """n, rewards that are summed up before the target bootstraps; fewer where the episode ends."""
    atoms: Annotated[int, Field(ge=2), NUMBER] = 51
    """K, values of the return that the net gives probabilities for."""

    @property
    def distributional(self) -> bool:
        """Whether the net gives probabilities of returns, else their mean."""
        return "distributional" not in self.without


@register("algorithm")
class Rainbow(VanillaDQN):
    """A noisy, dueling net of distributions and its target net, learning from a prioritized memory."""

    Spec = RainbowSpec
    has_target = True

    def __init__(self, setting: Setting) -> None:
        spec: Any = setting.spec.algorithm
        self._without = spec.without
        self.double = "double" not in spec.without
        for part, key in (
            ("multi_step", "num_step_returns"),
            ("distributional", "atoms"),
            ("distributional", "v_min"),
            ("distributional", "v_max"),
        ):
            if part in spec.without:
                getattr(spec, key)
                overruled(spec, key, f"without {part}", meant=True)
        super().__init__(setting)
        if "prioritized" not in self._without and not super().prioritized():
            name = setting.spec.memory.name
            why = f"Rainbow needs PrioritizedReplay, or agent.algorithm.without prioritized (got '{name}')"
            raise SpecError([f"agent.memory.name: {why}"])

    def net_spec(self) -> Any:
        """The dueling form of the net, with noise; or what of it is not left out."""
        spec: Any = super().net_spec()
        plain = PLAIN.get(spec.type, spec.type)
        dueling = next((name for name, one in PLAIN.items() if one == plain), None)
        lacking = [
            part
            for part, has in (("dueling", dueling is not None), ("noisy", "noisy_std" in type(spec).model_fields))
            if not has and part not in self._without
        ]
        if lacking:
            why = (
                f"{spec.type} can't be {' and '.join(lacking)}, as Rainbow's net is unless agent.algorithm.without says"
            )
            raise SpecError([f"agent.net.type: {why} {lacking} (known: {', '.join(PLAIN.values())})"])
        changes: dict[str, Any] = {"type": plain if "dueling" in self._without else dueling}
        if "noisy" in self._without:
            changes["noisy_std"] = None
        elif spec.noisy_std is None:
            changes["noisy_std"] = USUAL_STD
        return spec.model_copy(update=changes)

    @property
    def num_step_returns(self) -> int:
        """n, rewards of a target."""
        return 1 if "multi_step" in self._without else int(self.spec.num_step_returns)

    def prioritized(self) -> bool:
        """Whether the memory gets the errors of predictions; else transitions keep their first priority."""
        return "prioritized" not in self._without and super().prioritized()
