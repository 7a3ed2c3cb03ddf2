"""The one face of all envs: N of them stepped together, restarted in the same step in which an episode ends."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slm_lab.env.actions import ActionMap
from slm_lab.env.observations import ObsMap
from slm_lab.env.translate import Translator
from slm_lab.lib.errors import LabError
from slm_lab.lib.stateful import State
from slm_lab.types import Array, EnvInfo, Step

MAX_T = 100_000
"""Steps after which an episode is truncated where neither the env nor the spec states a limit: so the record of actions
that `state_dict` needs stays bounded, and so does an episode that an agent can't end by itself."""
PLAY_MAX_T = 10_000
"""The same in evaluation and `enjoy`, which wait for the ends of episodes."""


def as_step(arrays: Iterable[Array]) -> Step:
    """A step from obs, reward, terminated, truncated, final_obs, and each env's return and length so far, [N, ...]."""
    obs, reward, terminated, truncated, final_obs, returns, lengths = arrays
    ended = np.flatnonzero(terminated | truncated)
    if not len(ended):
        return Step(obs, reward, terminated, truncated, obs, [], [])
    return Step(obs, reward, terminated, truncated, final_obs, returns[ended].tolist(), lengths[ended].tolist())


class VecEnv(ABC):
    """N envs behind one interface; N = 1 is no special case.

    An episode that ends is followed by the first observation of the next one in the same step (`Step.obs`); its true
    last observation is in `Step.final_obs`. No transition leads from one episode to the next and no frame is counted
    for a reset. Where an env says that an episode terminated and was truncated at once, it terminated.

    Every episode begins from a seed of its own, derived from the seed of `reset`, the index of the env and the number
    of the episode. Exact continuation presumes that an episode follows from its seed and the actions: that the env
    carries nothing from one episode to the next, and draws random numbers only from what was seeded.

    Subclasses take the same under the same name: `name`, its id, for messages and `info`; `num_envs`, N; `max_t`, steps
    after which an episode is truncated; `render`, "human" or "rgb_array", of env 0.
    """

    info: EnvInfo
    observations: ObsMap
    """From what one of the envs shows to its row of `obs`."""
    actions: ActionMap
    """From the agent's actions to the envs'."""
    obs: NDArray[Any]
    """[N, *O] what is to be acted on next; set by `reset`, `step` and `load_state_dict`."""

    @abstractmethod
    def reset(self, seed: int) -> NDArray[Any]:
        """Restart all episodes, counting them from 0.

        Args:
            seed: what the seeds of all episodes from now on are derived from, see `episode_seed`.

        Returns:
            obs [N, *O].
        """

    @abstractmethod
    def step(self, action: NDArray[Any]) -> Step:
        """One step of every env.

        Args:
            action: [N] int64 (Discrete), [N, dim] f32 in [-1, 1] (Continuous; clipped, then rescaled to the env's
                bounds), [N, k] int64 (MultiDiscrete, MultiBinary).

        Returns:
            The step. Its arrays are overwritten by later calls: `obs` by the second one from now (so what was acted on
            can still be read beside the step that followed), all others by the next.
        """

    @abstractmethod
    def state_dict(self) -> State:
        """Everything that decides the next steps.

        After `load_state_dict` in an env made alike the same actions give the same steps, bit for bit.
        """

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict` was taken; `obs` is then what it was.

        Raises:
            LabError: the state is that of another env or of another number of envs.
        """

    def translator(self) -> Translator:
        """The processing between env and agent, to act in an env that is stepped elsewhere."""
        return Translator(self.info.name, self.observations, self.actions)

    def normalizer_state(self) -> State:
        """Running statistics that observations and rewards are normalized with; {} where none are.

        A policy only makes sense together with them: see `load_normalizer_state`.
        """
        return {}

    def load_normalizer_state(self, state: State) -> None:
        """Normalize with the statistics of other envs, made from the same spec.

        Raises:
            LabError: there are some, and these envs normalize nothing.
        """
        if state:
            raise LabError(f"env: {self.info.name} is not normalized, but the saved policy learned from what was")

    def render(self) -> NDArray[np.uint8] | None:
        """An RGB frame [H, W, 3] of env 0, if made with render="rgb_array"; None otherwise, and without pictures."""
        return None

    def close(self) -> None:  # noqa: B027  some have nothing to free
        """Free windows and simulators. Calling it twice is harmless."""

    def _identity(self) -> State:
        """By what a state is known to be of these envs."""
        return {"name": self.info.name, "num_envs": self.info.num_envs}

    def _check_state(self, state: State) -> None:
        """Refuse a state that is not of these envs."""
        name, n, here = state["name"], state["num_envs"], self.info
        if (name, n) != (here.name, here.num_envs):
            raise LabError(f"env: the saved state is of {n} x {name}, not of {here.num_envs} x {here.name}")
