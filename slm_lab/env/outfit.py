"""What a spec puts around single gymnasium envs: wrappers, weights of rewards, tuples in place of lists."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from slm_lab.env.masks import MaskedObs
from slm_lab.lib.errors import LabError, one_line
from slm_lab.lib.log import note
from slm_lab.lib.registry import import_foreign
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.env import EnvSpec, WrapperSpec, with_tuples

Env = gym.Env[Any, Any]


class Outfit(NamedTuple):
    """What is put around an env, innermost first."""

    wrappers: Sequence[WrapperSpec] = ()
    reward_weights: tuple[float, ...] | None = None
    action_mask: bool = False

    @classmethod
    def of(cls, spec: EnvSpec) -> "Outfit":
        """What a spec says."""
        return cls(spec.wrappers, spec.reward_weights, spec.action_mask)

    def put_on(self, env: Env, name: str) -> Env:
        """The env with all of it.

        Raises:
            LabError: a wrapper refuses the env, or the rewards are not of that number.
        """
        for i, wrapper in enumerate(self.wrappers):
            try:
                env = _wrapped(env, wrapper, f"env.wrappers[{i}].kwargs")
            except LabError:
                raise
            except Exception as e:
                why = one_line(e)
                raise LabError(f"env.wrappers[{i}]: can't put {wrapper.name} around {name}: {why}") from e
            if not isinstance(env, gym.Env):
                raise LabError(f"env.wrappers[{i}]: {wrapper.name} gives no env but {type(env).__name__}")
        # a wrapper may have made one of several
        count = None if self.wrappers else _reward_count(env)
        if self.reward_weights is not None:
            env = WeightedReward(env, self.reward_weights, name, count)
        elif count is not None and count > 1:
            raise VectorReward(name, count)
        return MaskedObs(env, name) if self.action_mask else env

    def faults(self) -> list[str]:
        """Wrappers that can't be loaded, as lines `env.wrappers[i].name: ...`."""
        faults = []
        for i, wrapper in enumerate(self.wrappers):
            try:
                load(wrapper.name)
            except LabError as e:
                faults.append(f"env.wrappers[{i}].name: {e}")
        return faults


def load(path: str) -> Callable[..., Any]:
    """The class that `package.module:Class` names.

    Raises:
        LabError: the module can't be imported, or has no such class.
    """
    module, _, name = path.partition(":")
    import_foreign(module)
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise LabError(f"{module} has no {name}{did_you_mean(name, dir(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise LabError(f"{path} is no class")
    return found


def _wrapped(env: Env, wrapper: WrapperSpec, where: str) -> Env:
    made_by = load(wrapper.name)
    return make_with_tuples(lambda given: made_by(env, **given), with_tuples(wrapper.kwargs), made_by, where)


class VectorReward(LabError):
    """An env pays several rewards at once."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(
            f"env.reward_weights: missing: {name} pays {count} rewards at once, and an agent needs one sum: "
            f"[{', '.join(['1'] * count)}] say"
        )


class WeightedReward(gym.Wrapper[Any, Any, Any, Any]):
    """The sum of several rewards, `sum_k weight_k * reward_k`.

    Args:
        env: pays them.
        weights: one each.
        name: of the env, for messages.
        count: how many there are; None: it is not known yet.
    """

    def __init__(self, env: Env, weights: Sequence[float], name: str, count: int | None) -> None:
        super().__init__(env)
        self._weights, self._name = np.asarray(weights, np.float64), name
        if count is not None:
            self._compare(count)

    def step(self, action: Any) -> Any:
        """See gymnasium."""
        obs, rewards, *rest = self.env.step(action)
        rewards = np.asarray(rewards, np.float64).ravel()
        self._compare(len(rewards))
        return obs, float(self._weights @ rewards), *rest

    def _compare(self, count: int) -> None:
        if count != len(self._weights):
            got = len(self._weights)
            raise LabError(f"env.reward_weights: {self._name} pays {count} rewards, and these are {got} weights")


def _reward_count(env: Env) -> int | None:
    """Rewards of one step, where the env has a space of them, as MO-Gymnasium's have."""
    shape = getattr(getattr(env.unwrapped, "reward_space", None), "shape", None)
    return None if shape is None else int(np.prod(shape))


def make_with_tuples(
    make: Callable[[dict[str, Any]], Env], kwargs: dict[str, Any], creator: Any, where: str = "env"
) -> Env:
    """Make an env, or put a wrapper around it; lists become tuples where it needs those.

    Args:
        make: makes it from keyword arguments.
        kwargs: the arguments.
        creator: class or function whose signature tells of tuples; None: not known.
        where: key path of the arguments, for messages.
    """
    kwargs = {**kwargs, **{key: tuple(kwargs[key]) for key in _wanted_tuples(creator) if type(kwargs.get(key)) is list}}
    try:
        return make(kwargs)
    except Exception:
        tupled = {key: _tupled(value) for key, value in kwargs.items()}
        changed = [key for key in kwargs if tupled[key] != kwargs[key]]
        if not changed:
            raise
        try:
            env = make(tupled)
        except Exception:  # noqa: BLE001  the first error is about what was written
            env = None
        if env is None:
            raise
        named = ", ".join(f"{where}.{key}" for key in changed)
        note(f"{named}: lists are passed as tuples, which {'the env' if where == 'env' else 'the wrapper'} needs")
        return env


def _wanted_tuples(creator: Any) -> list[str]:
    """Parameters whose default is a tuple."""
    try:
        return [p.name for p in inspect.signature(creator).parameters.values() if type(p.default) is tuple]
    except (TypeError, ValueError):
        return []


def _tupled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tupled(item) for key, item in value.items()}
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value
