"""Keys of SAC and its relatives, and the policy that they choose."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from slm_lab.agent.algorithm.delayed import DelayedSpec
from slm_lab.agent.algorithm.temperature import EntropyAnnealSpec
from slm_lab.functional.continuous_distributions import TanhNormal
from slm_lab.functional.discrete_distributions import Categorical
from slm_lab.functional.distributions import UnfitDistribution
from slm_lab.lib.errors import SpecError
from slm_lab.spec.basics import wrong
from slm_lab.spec.model import Count, Natural, NonNegative, Real
from slm_lab.types import ActionSpace, Continuous, Discrete, kind_of

PDTYPES: dict[type, tuple[str, ...]] = {
    Discrete: ("default", "Categorical", "GumbelSoftmax"),
    Continuous: ("default", "Normal", "NormalTanh", "MultivariateNormal"),
}
"""Names that older specs give to the two policies there are."""


class SoftActorCriticSpec(DelayedSpec):
    """Keys of SoftActorCritic."""

    critic_subset: Count | None = None
    """M, critics drawn at random for each target, which takes the lowest of them; None: all."""
    policy_q: Literal["min", "mean"] = "min"
    """What the policy ascends: the lowest of the critics, or their mean."""
    target_entropy: Real | Literal["auto"] = "auto"
    """H_target, in nats."""
    entropy_anneal: EntropyAnnealSpec = EntropyAnnealSpec()
    """Discrete actions, where target_entropy is auto."""
    alpha_lr: NonNegative | None = None
    """Learning rate of the temperature, which no schedule changes; None: what the policy's is at first."""
    fixed_alpha: NonNegative | None = None
    """A temperature that is not learned."""
    alpha_anneal_frames: Natural = 0
    """Frames over which fixed_alpha falls to 0; 0: it stays constant."""
    log_alpha_min: Real = -5.0
    """Lowest logarithm of the temperature."""
    log_alpha_max: Real = 2.0
    """Highest one."""
    symlog: bool = False
    """Q values and their targets are compared by their symlog, `sign(x) ln(1 + |x|)`."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.log_alpha_min > self.log_alpha_max:
            raise PydanticCustomError("order", "log_alpha_min must not be greater than log_alpha_max")
        if self.critic_subset is not None and self.critic_subset > self.num_critics:
            raise wrong("critic_subset", self.critic_subset, f"must be at most num_critics, {self.num_critics}")
        return self


def refuse_scalar_keys(spec: SoftActorCriticSpec) -> None:
    """Keys that have a meaning for critics of single values alone.

    Raises:
        PydanticCustomError: one of them is set
    """
    for key in ("critic_subset", "policy_q", "symlog"):
        if getattr(spec, key) != type(spec).model_fields[key].default:
            raise wrong(key, getattr(spec, key), "has no meaning for critics of distributions")


def policy_distribution(
    spec: SoftActorCriticSpec, action: ActionSpace, spaces: tuple[type, ...]
) -> type[Categorical] | type[TanhNormal]:
    """The class of the policy's distribution.

    Raises:
        SpecError: it does not act in this one
        UnfitDistribution: the spec names another distribution
    """
    if type(action) not in spaces:
        known = " and ".join(space.__name__ for space in spaces)
        why = f"{spec.name} acts in {known} spaces, not {kind_of(action)}"
        raise SpecError([f"agent.algorithm.name: {why}"])
    names = PDTYPES[type(action)]
    if spec.action_pdtype not in names:
        raise UnfitDistribution(f"'{spec.action_pdtype}' is no policy of {spec.name} (known: {', '.join(names)})")
    return Categorical if isinstance(action, Discrete) else TanhNormal
