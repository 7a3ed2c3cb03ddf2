"""The spec: what the user wrote, checked once and frozen.

The models here hold what every algorithm, memory and net has in common. What one class alone needs is in its own
`Spec`, beside its code; the classes are found by name through `lib.registry`.
"""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, SerializeAsAny, create_model, model_validator
from pydantic_core import PydanticCustomError

from slm_lab.lib.registry import having, lookup
from slm_lab.spec.basics import (
    Count,
    Natural,
    NonNegative,
    NonNegativeSchedule,
    Positive,
    Real,
    ScheduleSpec,
    SpecModel,
    Unit,
    UnitSchedule,
    by_name,
    wrong,
)
from slm_lab.spec.effect import given, passed_on
from slm_lab.spec.env import EnvSpec, WrapperSpec
from slm_lab.spec.meta import MetaSpec, SinkSpec

# what is defined elsewhere: who writes a class imports all that its Spec needs from here
__all__ = [
    "Count",
    "EnvSpec",
    "MetaSpec",
    "Natural",
    "NonNegative",
    "NonNegativeSchedule",
    "Positive",
    "Real",
    "ScheduleSpec",
    "SinkSpec",
    "SpecModel",
    "Unit",
    "UnitSchedule",
    "WrapperSpec",
]


def _file_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.+=-]{0,99}", value, re.ASCII):
        why = "must be 1 to 100 letters, digits and _ - + = . (it names the run's folder), a letter or digit first"
        raise PydanticCustomError("file_name", why)
    return value


class OpenSpec(SpecModel):
    """A name and the keyword arguments of the class it names."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def kwargs(self) -> dict[str, Any]:
        """All keys but the name."""
        return dict(self.__pydantic_extra__ or {})


class OptimSpec(OpenSpec):
    """Any class of torch.optim; other keys go to its constructor."""

    name: str = "Adam"
    lr: NonNegative = 1e-3
    """Learning rate at frame 0."""


class LrSchedulerSpec(OpenSpec):
    """`LinearToZero` (key `frame`: where the rate reaches 0) or any class of torch.optim.lr_scheduler.

    All its steps, periods and milestones are in frames.
    """


class LossSpec(OpenSpec):
    """Any loss class of torch.nn."""

    name: str = "MSELoss"


class AlgorithmSpec(SpecModel):
    """Keys that every algorithm has. Each algorithm adds its own."""

    name: str
    action_pdtype: str = "default"
    """Action distribution; default: Categorical for discrete actions, Normal for continuous ones."""
    action_policy: str = "default"
    """How an action is chosen: default samples from the distribution."""
    gamma: Unit = 0.99
    """Discount per step."""
    lr: NonNegative | None = None
    """Sets the learning rate of every optimizer, over what their own specs say."""

    @property
    def frequency(self) -> int:
        """Units of the memory between two updates: vector steps for batch memories, episodes for episodic ones."""
        return int(getattr(self, "time_horizon", getattr(self, "training_frequency", 1)))


class MemorySpec(SpecModel):
    """Keys that every memory has."""

    name: str


class NetSpec(SpecModel):
    """Keys that every net has. With the prefix `actor_` or `critic_` a key counts for that net alone."""

    type: str
    shared: bool = False
    """One body for policy and value (true), or two nets (false)."""
    hid_layers_activation: str = "relu"
    """Name of a torch.nn activation, case ignored."""
    out_layer_activation: str | None = None
    """Activation after the output, none by default."""
    init_fn: str | None = None
    """Function of torch.nn.init for the weights, with the gain of the activation; biases 0. None: torch's default."""
    init_std: Positive | None = None
    """Gain of the orthogonal initialization of the output layer: 0.01 for actors and 1 for critics are usual."""
    log_std_init: Real | None = None
    """Continuous actions: a free log standard deviation, the same in every state, that starts here. None: a head."""
    loss_spec: LossSpec = LossSpec()
    """Loss of the value function."""
    optim_spec: OptimSpec = OptimSpec()
    lr_scheduler_spec: LrSchedulerSpec | None = None
    clip_grad_val: Positive | None = None
    """Global norm to which gradients are clipped."""
    use_same_optim: bool = False
    """The critic takes the actor's net and optimizer spec."""
    update_type: Literal["replace", "polyak"] = "replace"
    """Target nets: copied, or blended with polyak_coef."""
    update_frequency: Count = 1
    """Frames between target updates."""
    polyak_coef: Unit = 1.0
    """Share of the online net in a polyak blend; 0.005 is slow."""
    gpu: bool | Literal["auto"] = "auto"
    """Whether to use a GPU that is present. auto: for images, layers wider than 128 and large batches."""

    roles: ClassVar[tuple[str, ...]] = ("actor", "critic")

    def for_role(self, role: Literal["actor", "critic"]) -> Self:
        """This spec as one net sees it: keys with its prefix applied, without any prefixed key."""
        source = "actor" if role == "critic" and (self.use_same_optim or self.shared) else role
        mine, base = {}, {}
        for key in self.model_fields_set:
            prefix, _, rest = key.partition("_")
            if prefix not in self.roles:
                base[key] = key
            elif prefix == source and rest in type(self).model_fields:
                mine[rest] = key
        # only what the two roles never share is kept apart: the gain of the output layer
        if source != role and f"{role}_init_std" in self.model_fields_set:
            mine["init_std"] = f"{role}_init_std"
        keys = base | mine
        values = {key: given(self, origin) for key, origin in keys.items()}
        made: Self = type(self).model_construct(_fields_set=set(values), **values)  # type: ignore[assignment]
        passed_on(made, self, keys)
        return made


def with_role_keys(cls: type[NetSpec]) -> type[NetSpec]:
    """Class decorator for a net's Spec: adds each key once more with `actor_` and once with `critic_` before it."""
    extra: dict[str, Any] = {}
    for key, field in cls.model_fields.items():
        if key in ("type", "shared", "use_same_optim"):
            continue
        kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        for role in NetSpec.roles:
            # the default only says "not given": null is no value unless the key itself takes it
            extra[f"{role}_{key}"] = (kind, Field(default=None, description=f"{key} of the {role} alone"))
    model = create_model(cls.__name__, __base__=cls, __module__=cls.__module__, **extra)
    model.__doc__ = cls.__doc__
    return model


class AgentSpec(SpecModel):
    """Who learns."""

    name: str
    """A free label."""
    algorithm: Annotated[SerializeAsAny[AlgorithmSpec], by_name("algorithm", "name", AlgorithmSpec)]
    memory: Annotated[SerializeAsAny[MemorySpec], by_name("memory", "name", MemorySpec)]
    net: Annotated[SerializeAsAny[NetSpec], by_name("net", "type", NetSpec)]

    @model_validator(mode="after")
    def _memory_fits(self) -> Self:
        needs = getattr(lookup("algorithm", self.algorithm.name), "on_policy", None)
        if needs is not None and needs != getattr(lookup("memory", self.memory.name), "on_policy", needs):
            fitting = having("memory", "on_policy", needs)
            kind = "an on-policy" if needs else "a replay"
            why = f"{self.algorithm.name} needs {kind} memory{', such as ' if fitting else ''}{' or '.join(fitting)}"
            raise wrong("memory.name", self.memory.name, why)
        return self

    @model_validator(mode="after")
    def _noise_is_drawn(self) -> Self:
        able = having("algorithm", "noisy")
        for key in ("noisy_std", *(f"{role}_noisy_std" for role in NetSpec.roles)):
            std = getattr(self.net, key, None)
            if std is not None and self.algorithm.name not in able:
                why = f"{self.algorithm.name} draws no noise for it, these do: {', '.join(able)}"
                raise wrong(f"net.{key}", std, why)
        return self

    @model_validator(mode="after")
    def _net_fits(self) -> Self:
        algorithm, net = self.algorithm.name, self.net.type
        if getattr(lookup("net", net), "recurrent", False):
            fitting = having("algorithm", "recurrent")
            if algorithm not in fitting:
                why = f"{algorithm} learns from single steps of the past, where {net} would remember nothing; "
                raise wrong("net.type", net, f"{why}it is for {', '.join(fitting)}")
            steps, length = self.algorithm.frequency, int(getattr(self.net, "seq_len", 1))
            used = getattr(lookup("algorithm", algorithm), "on_policy", None) is not None
            if used and getattr(lookup("memory", self.memory.name), "fixed_size", False) and steps % length:
                raise wrong("net.seq_len", length, f"must divide the steps of a rollout, which are {steps}")
        return self


class Spec(SpecModel):
    """One experiment."""

    name: Annotated[str, AfterValidator(_file_name)]
    """From the file's key; it begins the name of the run's folder."""
    agent: AgentSpec
    env: EnvSpec
    meta: MetaSpec
    search: dict[str, Any] | None = None
    """Searched keys, each followed by __ and a distribution, and its arguments: see spec/search.py."""

    @model_validator(mode="after")
    def _can_be_distributed(self) -> Self:
        if self.meta.distributed:
            if self.meta.batch_sessions:
                why = "must be false where meta.distributed is set: those sessions are processes of their own"
                raise wrong("meta.batch_sessions", self.meta.batch_sessions, why)
            name, able = self.agent.algorithm.name, having("algorithm", "on_policy")
            if name not in able:
                why = f"{name} can't be distributed, on-policy algorithms can: {', '.join(able)}"
                raise wrong("meta.distributed", self.meta.distributed, why)
            if self.agent.net.gpu is True:
                why = "must be false or 'auto' where meta.distributed is set: sessions share the memory of the CPU"
                raise wrong("agent.net.gpu", True, why)
        return self

    def to_dict(self) -> dict[str, Any]:
        """What the user wrote, as plain JSON data."""
        return self.model_dump(mode="json", exclude_unset=True)
