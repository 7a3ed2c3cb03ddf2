"""The glossary: what flows through the lab, with shapes and units.

Dimensions: `N` envs, `T` steps of a rollout, `B` transitions of a batch, `*O` observation shape, `*A` action shape
(empty for discrete actions). A *frame* is one step of one env: a vector step is N frames.
Envs speak numpy, algorithms speak torch; the agent stands between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    # only named here: who steps envs in a process of its own need not load it
    from torch import Tensor

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Discrete:
    """One of n actions, `0 .. n-1`. Action arrays are [N] int64."""

    n: int


@dataclass(frozen=True)
class Continuous:
    """`dim` reals. The agent acts in [-1, 1]; the env clips and rescales to [low, high]. Arrays [N, dim] f32."""

    dim: int
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class MultiDiscrete:
    """One of `nvec[i]` actions in each place i. Arrays [N, len(nvec)] int64."""

    nvec: tuple[int, ...]


@dataclass(frozen=True)
class MultiBinary:
    """n switches, each 0 or 1. Arrays [N, n] int64."""

    n: int


@dataclass(frozen=True)
class Mixed:
    """Actions of several kinds at once, the parts one after the other. Arrays [N, sum of widths] f32.

    >>> Mixed((Discrete(3), Continuous(2, (-1.0, -1.0), (1.0, 1.0)), MultiBinary(4))).widths
    (1, 2, 4)
    """

    parts: tuple[Discrete | Continuous | MultiDiscrete | MultiBinary, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of each part; an action of a Discrete one is a single number."""
        return tuple(
            1
            if isinstance(part, Discrete)
            else part.dim
            if isinstance(part, Continuous)
            else len(part.nvec)
            if isinstance(part, MultiDiscrete)
            else part.n
            for part in self.parts
        )


ActionSpace = Discrete | Continuous | MultiDiscrete | MultiBinary | Mixed


def kind_of(action: ActionSpace) -> str:
    """What a message calls such a space.

    >>> kind_of(Discrete(2)), kind_of(Mixed((Discrete(2),)))
    ('Discrete', 'Tuple or Dict')
    """
    return "Tuple or Dict" if isinstance(action, Mixed) else type(action).__name__


MASK = "action_mask"
"""Key of the allowed actions in an env's info and in observations: 1 or 0 each."""


@dataclass(frozen=True)
class ObsPart:
    """One part of an observation that is made of several, and its place in the row that holds them all."""

    name: str
    """Its key; `outer.inner` where they are nested."""
    shape: tuple[int, ...]
    """[channels, height, width] of an image, [numbers] of a vector."""
    dtype: str
    """float32, or uint8 (from 0 to 255)."""
    begin: int
    """Place of its first number in the row, in numbers of the row's dtype."""
    end: int
    """Place after its last."""
    image: bool
    mask: bool = False
    """Whether it says which actions are allowed: a part of that name alone does not, `env.action_mask` does."""


LEAST_SIDE = 8
"""Height and width from which on numbers in a plane may be an image."""


class PackedShape(tuple[int, ...]):  # noqa: SLOT001  tuples have no slots for more than their items
    """*O of observations made of parts: one row that holds them one after the other, vectors first.

    The row is float32 where all parts are, else it is bytes: a net takes it apart into views, and memories, checkpoints
    and compiled updates handle one array, whatever is in it.

    >>> vector, image = ObsPart("a", (2,), "float32", 0, 8, False), ObsPart("b", (1, 1, 1), "uint8", 8, 9, True)
    >>> row = PackedShape((9,), (vector, image))
    >>> row == (9,), row.dtype, row.flat
    (True, 'uint8', False)
    """

    parts: tuple[ObsPart, ...]

    def __new__(cls, shape: tuple[int, ...], parts: tuple[ObsPart, ...]) -> Self:
        """A shape [..., P], of rows of P numbers."""
        made = super().__new__(cls, shape)
        made.parts = parts
        return made

    def __getnewargs__(self) -> tuple[tuple[int, ...], tuple[ObsPart, ...]]:
        """To be copied and pickled with."""
        return tuple(self), self.parts

    @property
    def mask(self) -> ObsPart | None:
        """The part that says which actions are allowed, if there is one."""
        return next((part for part in self.parts if part.mask), None)

    @property
    def dtype(self) -> str:
        """Of the row."""
        return "float32" if all(part.dtype == "float32" for part in self.parts) else "uint8"

    def reals(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """A view of the float32 numbers of rows [..., P], which come first."""
        end = max((part.end for part in self.parts if part.dtype == "float32"), default=0)
        return rows[..., :end].view(np.float32)

    @property
    def flat(self) -> bool:
        """Whether the row can be read as a vector: no part is an image, none must be unpacked."""
        return self.dtype == "float32" and not any(part.image for part in self.parts)


@dataclass(frozen=True)
class EnvInfo:
    """What an agent must know of its env."""

    name: str
    """Id of the env, as gymnasium knows it."""
    obs_shape: tuple[int, ...]
    """*O, of one env; a PackedShape where an observation is made of parts."""
    obs_dtype: str
    """numpy name: float32, uint8."""
    action: ActionSpace
    num_envs: int
    """N"""
    max_t: int | None
    """Steps after which an episode is truncated; None: never."""
    normalized: bool = False
    """Whether running statistics normalize observations or rewards: each `Step` then has a `raw`."""

    @property
    def masked(self) -> bool:
        """Whether observations say which actions are allowed."""
        return isinstance(self.obs_shape, PackedShape) and self.obs_shape.mask is not None


class Step(NamedTuple):
    """What one vector step gives. Envs reset in the same step: `obs` is always the one to act on next.

    The arrays belong to the env and are overwritten by its next step: copy what you keep.
    """

    obs: NDArray[np.generic]
    """[N, *O] to act on next; the first observation of the new episode where one ended."""
    reward: Floats
    """[N] f32, what the agent learns from (after reward wrappers)."""
    terminated: Bools
    """[N] the episode came to a true end: nothing to bootstrap from. It wins where both are true."""
    truncated: Bools
    """[N] the episode was cut off, by a time limit for example: bootstrap from the value of `final_obs`."""
    final_obs: NDArray[np.generic]
    """[N, *O] the true successor; equals `obs` where no episode ended."""
    episode_return: list[float]
    """Undiscounted raw returns of the episodes that ended in this step."""
    episode_length: list[int]
    """Their lengths, in steps t."""
    raw: Raw | None = None
    """The same step before running statistics normalized it; None where none do."""


class Raw(NamedTuple):
    """A step before running statistics normalized it: what a memory keeps that hands it out much later."""

    obs: NDArray[np.generic]
    """[N, *O] acted on"""
    step: Step
    """The outcome."""
    normalizer: Normalizer


class Normalizer(Protocol):
    """The current running statistics. Nothing is updated here, and the arguments are not changed."""

    def normalize_obs(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Raw observations [B, *O] as they would be acted on now."""
        ...

    def normalize_reward(self, reward: Floats) -> Floats:
        """Raw rewards of any shape as they would be paid now."""
        ...


class Played(NamedTuple):
    """K vector steps in a row. The arrays belong to who played them: copy what you keep."""

    obs: NDArray[np.generic]
    """[K+1, N, *O] acted on, and after them the next one to act on"""
    action: NDArray[np.generic]
    """[K, N, *A]"""
    reward: Floats
    """[K, N] f32"""
    terminated: Bools
    """[K, N]"""
    truncated: Bools
    """[K, N]"""
    final_obs: NDArray[np.generic]
    """[K, N, *O] true successors"""

    def steps(self) -> Iterator[Step]:
        """One by one, without the returns of the episodes that ended."""
        for k in range(len(self.reward)):
            ends = self.terminated[k], self.truncated[k]
            yield Step(self.obs[k + 1], self.reward[k], *ends, self.final_obs[k], [], [])


class Act(NamedTuple):
    """What the policy chose.

    Mostly without log probabilities and values: who wants those of a whole rollout evaluates it in one batched pass
    before the update, under the same parameters that acted. `Notes` says when they come with the action.
    """

    action: Tensor
    """[N, *A]"""
    log_prob: Tensor | None = None
    """[N] log pi(action | obs)"""
    value: Tensor | None = None
    """[N] V(obs)"""


class Rollout(NamedTuple):
    """T steps of N envs, as an on-policy memory hands them over."""

    obs: Tensor
    """[T+1, N, *O]; the last row is acted on next"""
    action: Tensor
    """[T, N, *A]"""
    reward: Tensor
    """[T, N] f32"""
    terminated: Tensor
    """[T, N] bool"""
    truncated: Tensor
    """[T, N] bool"""
    final_index: Tensor
    """[K] int64, positions t * N + n where an episode was truncated (and not terminated)"""
    final_obs: Tensor
    """[K, *O] the true successors there"""


class Sequences(NamedTuple):
    """Observations in the order in which they were made, as a net with a memory reads them: S sequences of L steps."""

    obs: Tensor
    """[L, S, *O]"""
    reset: Tensor | None
    """[L, S] bool, the observation is the first of an episode: the hidden state is zero there. None: none of them."""
    state: Tensor
    """[S, H] hidden state before the first step"""
    valid: Tensor | None = None
    """[L, S] bool, False where a shorter sequence is filled up; answers are given for the other steps only."""


class Evaluated(NamedTuple):
    """What the acting policy and its critic think of a rollout; same parameters as acted."""

    log_prob: Tensor
    """[T, N] log pi(action | obs)"""
    value: Tensor
    """[T+1, N] V(obs)"""
    final_value: Tensor
    """[T, N] V of the true successor where truncated, else 0"""


class Transition(NamedTuple):
    """A batch drawn from a replay memory."""

    obs: Tensor
    """[B, *O]"""
    action: Tensor
    """[B, *A]"""
    reward: Tensor
    """[B] f32; the discounted sum of m rewards where the successor is m steps on"""
    next_obs: Tensor
    """[B, *O] the true successor, also across an episode's end"""
    terminated: Tensor
    """[B] f32, 1 where nothing may be bootstrapped: the value of the successor counts `gamma * (1 - terminated)`. Where
    it is m steps on and no end, this is `1 - gamma^(m-1)`."""
    index: Tensor  # type: ignore[assignment]
    """[B] int64, places in the memory"""
    weight: Tensor
    """[B] f32 importance weights; ones unless prioritized"""


Stats = dict[str, "Tensor"]
"""What an update reports: 0-d tensors by name. Read with `.item()` at checkpoints only."""
