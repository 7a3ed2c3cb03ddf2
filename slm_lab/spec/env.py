"""The block `env` of a spec."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from slm_lab.spec.basics import NUMBER, Count, Positive, Real, SpecModel, wrong


def with_tuples(value: Any) -> Any:
    """A value whose `{"__tuple__": [...]}` are tuples, at any depth: JSON has none.

    >>> with_tuples({"config": {"shape": {"__tuple__": [84, 84]}, "names": ["a"]}})
    {'config': {'shape': (84, 84), 'names': ['a']}}
    """
    if isinstance(value, list | tuple):
        return type(value)(with_tuples(item) for item in value)
    if not isinstance(value, dict):
        return value
    if list(value) == ["__tuple__"] and isinstance(value["__tuple__"], list | tuple):
        return tuple(with_tuples(item) for item in value["__tuple__"])
    return {key: with_tuples(item) for key, item in value.items()}


def _class_path(value: str) -> str:
    module, colon, name = value.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        why = "must name a class as package.module:Class, such as gymnasium.wrappers:FlattenObservation"
        raise PydanticCustomError("class_path", "{why}", {"why": why})
    return value


class WrapperSpec(SpecModel):
    """A gymnasium wrapper: a class, or a function of an env that gives an env."""

    name: Annotated[str, AfterValidator(_class_path)]
    """package.module:Class"""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Its arguments after the env; a tuple is written {"__tuple__": [...]}."""


class EnvSpec(SpecModel):
    """Where it learns. A key not listed here goes to gym.make."""

    model_config = ConfigDict(extra="allow")
    name: str
    """Id of a gymnasium env."""
    num_envs: Annotated[int, Field(ge=1, le=100_000), NUMBER] = 1
    """N, envs stepped together."""
    max_frame: Count
    """Length of a session, in frames over all envs."""
    max_t: Count | None = None
    """Steps after which an episode is truncated; None: the env's own limit."""
    vectorization: Literal["auto", "sync", "async", "thread", "native", "tensor"] = "auto"
    """How envs are stepped: one after the other, in worker processes, in threads, as the vector env that was written
    for them, or as tensors, compiled together with the policy. The steps are the same; auto takes what is fastest."""
    frame_op: Literal["concat", "stack"] | None = None
    """An observation is the last frame_op_len ones: joined along their first axis, or along a new one before it."""
    frame_op_len: Count | None = None
    """How many; needs frame_op."""
    normalize_obs: bool = False
    """Observations less their running mean, over their running standard deviation, element by element; where they keep
    their parts, those of vectors."""
    clip_obs: Positive | Literal[False] | None = None
    """Observations are clipped to [-x, x]; None: to 10 where normalize_obs is true; false: never."""
    normalize_reward: bool = False
    """Rewards over the running standard deviation of the discounted return."""
    clip_reward: Positive | tuple[Real, Real] | Literal[False] | None = None
    """Rewards are clipped to [-x, x], or to a pair of bounds; None: to 10 where normalize_reward is true, else to 1 in
    Atari games; false: never. `total_reward` in tables and graphs is that of the env."""
    reward_scale: Real | Literal["sign"] | None = None
    """A factor for rewards, or their sign; comes last."""

    reward_weights: Annotated[tuple[Real, ...], Field(min_length=1)] | None = None
    """Envs that pay several rewards at once: their weights in the sum that the agent gets."""
    obs_keys: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Of observations made of parts, those to be seen, by name: `outer.inner` where they are nested, `outer` for all
    inside, numbers for those of a Tuple. None: all but texts."""
    image_axes: Literal["HWC", "CHW"] | None = None
    """Order of the axes of images: height, width, channels, or channels first. None: the channels are the smallest
    axis; the log says what was decided."""
    action_mask: bool = False
    """Choose only among the actions that the env allows: by its `info["action_mask"]`, its method `action_masks()` or
    the part `action_mask` of its observation. The mask becomes a part of the observation."""
    wrappers: tuple[WrapperSpec, ...] = ()
    """gymnasium wrappers put around each env, the first one innermost."""

    @model_validator(mode="after")
    def _frames_stated(self) -> Self:
        for key, other in (("frame_op", "frame_op_len"), ("frame_op_len", "frame_op")):
            if getattr(self, key) is None and getattr(self, other) is not None:
                raise PydanticCustomError("frames", "missing: {other} needs it", {"key": key, "other": other})
        if isinstance(self.clip_reward, tuple) and self.clip_reward[0] >= self.clip_reward[1]:
            raise wrong("clip_reward", list(self.clip_reward), "the lower bound comes first")
        return self

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keys for gym.make, with their tuples."""
        return {key: with_tuples(value) for key, value in (self.__pydantic_extra__ or {}).items()}
