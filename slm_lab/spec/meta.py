"""The block `meta` of a spec."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny
from pydantic_core import PydanticCustomError

from slm_lab.spec.basics import NUMBER, Count, Natural, NonNegative, Positive, SpecModel, by_name


def _switch(value: Any) -> Any:
    # YAML 1.1 reads `on` and `off` as true and false
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _module_name(value: str) -> str:
    if not all(part.isidentifier() for part in value.split(".")):
        raise PydanticCustomError("module", "must be the name of a Python module, such as my_package.my_module")
    return value


class SearchResourcesSpec(SpecModel):
    """What each trial of a search is given."""

    cpu: Count | None = None
    """Cores. None: as many as sessions of the trial can use, of what one machine has."""
    gpu: NonNegative | None = None
    """GPUs, or a share of one that several trials use together. None: one where the net is to run on a GPU."""


class SearchSchedulerSpec(SpecModel):
    """Asynchronous successive halving (ASHA): poor trials of a search are stopped early.

    At grace_period, and each time the frames have grown by reduction_factor, a trial continues only if it is among
    the best 1 / reduction_factor of those that came this far before it.
    """

    grace_period: Positive = 1
    """Frames that every trial gets."""
    reduction_factor: Annotated[float, Field(gt=1, allow_inf_nan=False), NUMBER] = 4
    brackets: Count = 1
    """Trials are spread over this many groups, each of which begins to stop one rung later."""
    max_t: Positive | None = None
    """Frames at which a trial ends; None: env.max_frame."""
    time_attr: Literal["frame", "training_iteration", "time_total_s"] = "frame"
    """The clock of grace_period and max_t."""
    metric: Literal["total_reward_ma", "total_reward"] = "total_reward_ma"
    """Judges the trials that reached the same rung."""
    mode: Literal["max"] = "max"
    """The higher return is the better one."""
    stop_last_trials: bool = True
    """Judge trials again at each report after a rung, not only when they reach it."""


class SinkSpec(SpecModel):
    """Keys that every sink has: something outside the run folder that gets a copy of each log row."""

    name: str


class MetaSpec(SpecModel):
    """How it is run and measured."""

    version: Literal[6] | None = None
    """Version of the spec's format. None: recognized by its form, which may be that of SLM-Lab 4 or 5."""
    distributed: Literal[False, "shared", "synced"] = False
    """The sessions of a trial learn together, each a process, on one set of parameters in the memory they share (A3C);
    max_frame counts the frames of all. shared: they compute with the parameters themselves. synced: each computes with
    a copy, renewed after each of its steps. On the CPU, for on-policy algorithms."""
    max_session: Annotated[int, Field(ge=1, le=1000), NUMBER] = 1
    """Sessions (seeds) of a trial."""
    max_trial: Count | None = None
    """Trials of a search."""
    log_frequency: Count = 10_000
    """Frames between log rows."""
    eval_frequency: Count = 10_000
    """Frames between evaluations, where rigorous_eval asks for them."""
    rigorous_eval: Natural = 0
    """Episodes of each evaluation, on envs of its own; 0: none."""
    checkpoint_interval: NonNegative = 2.0
    """Least seconds between two checkpoints on disk; the end of a session is always saved. 0: one at every log row."""
    keep_checkpoints: Natural = 0
    """Policies kept along the way, at the log rows that reach 1/N, 2/N ... of max_frame; 0: none. The latest and the
    best are kept in any case."""
    sinks: list[
        Annotated[
            SerializeAsAny[SinkSpec],
            by_name("sink", "name", SinkSpec),
            BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value),
        ]
    ] = Field(default_factory=list)
    """Where log rows go as well, by name, or as an object with a name and its keys: tensorboard, or a plug-in's."""
    random_seed: Natural | None = None
    """Sessions derive their seeds from it, and from trial and session index. None is 0."""
    batch_sessions: Literal[False, True, "auto"] = False
    """Compute the sessions of a trial together, in one process (one per GPU): a compiled call is made for all of them
    at once, with one more leading dimension. Needs a tensor env. auto: if they run on a GPU."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = "auto"
    """Compile acting and updates. auto: in sessions of 10,000 frames or more what takes a second or two (small fully
    connected nets on a CPU), in sessions of 100,000 or more everything."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """bf16: updates take matrix products and convolutions in bfloat16, where the CPU or GPU has it. Parameters,
    optimizer, losses and the outputs of the nets stay float32, and actions are chosen in float32. tf32: products and
    convolutions of an NVIDIA GPU, in acting too, round their float32 factors to 10 bits of mantissa."""
    plugins: list[Annotated[str, AfterValidator(_module_name)]] = Field(default_factory=list)
    """Modules to import first: they may register algorithms, memories, nets and gymnasium envs."""
    search_resources: SearchResourcesSpec | None = None
    """Of each trial of a search."""
    search_scheduler: SearchSchedulerSpec | None = None
    """Stops poor trials of a search early; None: every trial runs to its end."""
    search_max_session: Count | None = None
    """Sessions of a trial in a search; None: max_session. With a search_scheduler it must be 1."""
