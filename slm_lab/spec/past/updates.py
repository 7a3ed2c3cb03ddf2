"""How often algorithms with a replay memory learn: once a vector step at most in old versions, by frames now."""

from typing import Any

from slm_lab.spec.past.draft import Data, Draft, number

_LIKE_SAC = ("SoftActorCritic", "CrossQ")
_FREQUENCY = "agent.algorithm.training_frequency"


def keep_number(draft: Draft) -> None:
    """As many updates as the spec had with its `num_envs`."""
    algorithm, n = draft.algorithm, draft.num_envs
    if draft.memory.get("name") not in ("Replay", "PrioritizedReplay"):
        return
    draft.drop_all("agent.algorithm", ("num_step_returns",))
    searched = draft.spec.get("search")
    if isinstance(searched, dict):
        _raise_choices(draft, searched, n, "")
    like_sac = algorithm.get("name") in _LIKE_SAC
    every = number(algorithm.get("training_frequency", 1 if like_sac else None))
    if every is not None and 0 < every < n:
        algorithm["training_frequency"] = n
        draft.note(_FREQUENCY, f"{n}, as it was with {n} envs: one training a vector step; {every:g} now counts frames")
    if like_sac and algorithm.get("training_iter") is None and (n > 1 or "training_iter" in algorithm):
        algorithm["training_iter"] = n
        draft.note("agent.algorithm.training_iter", f"{n}, as by default it was: num_envs")


def _raise_choices(draft: Draft, space: Data, n: int, above: str) -> None:
    """Searched frequencies below `n` had the effect of n."""
    for key, value in space.items():
        name, _, distribution = key.partition("__")
        path = f"{above}{name}"
        if not distribution and isinstance(value, dict):
            _raise_choices(draft, value, n, f"{path}.")
        elif path == _FREQUENCY and isinstance(value, list):
            raised: list[Any] = [n if (number(x) or n) < n else x for x in value]
            if raised != value:
                space[key] = raised
                draft.note(f"search.{path}", f"at least {n}, as it was with {n} envs; it now counts frames")
        elif path == "env.num_envs":
            draft.note(f"search.{path}", "no longer changes the number of updates; it did")
