"""Where a run starts from, if not from nothing: the weights and the normalizer of another run."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.experiment.play.enjoy import SavedPolicy
from slm_lab.experiment.session import checkpoint
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.layout import Layout
from slm_lab.spec.model import Spec

_SHOWN = 12
"""Faults that are listed."""


def open_origin(spec: Spec, mode: Mode, options: Options) -> SavedPolicy | None:
    """Find the policy that a run is to start from, and check that it fits; None where the run starts from nothing.

    `options.start_from` is as for `SavedPolicy.open`; `latest` looks in `options.out`.

    Raises:
        LabError: there is none; its nets, or what its env normalizes, are not those of the spec.
    """
    if options.start_from is None:
        return None
    if mode is Mode.SEARCH:
        raise LabError("--from belongs to the modes train and dev: a search tries specs, not weights")
    saved = SavedPolicy.open(options.start_from, options.out)
    with closing(make_env(spec.env, num_envs=1, training=False)) as env:
        agent = Agent(spec, env.info, seed=0)
        faults = net_misfits(agent.policy_state(), saved.state)
        if not faults:
            try:
                env.load_normalizer_state(saved.normalizer)
            except LabError as e:
                faults = [str(e)]
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise SpecError([*faults[:_SHOWN], *more], f"{saved.path}: can't be started from, it does not fit {spec.name}")
    return saved


def save_origin(saved: SavedPolicy | None, layout: Layout) -> None:
    """Copy the policy, if there is one, into the run folder: sessions find it there even if the other run is gone."""
    if saved is None:
        return
    tree = checkpoint.load(saved.path)
    kept = {key: tree[key] for key in ("spec", "trial", "session", "seed", "counters")}
    state = {"policy": saved.state, "normalizer": saved.normalizer, "source": str(saved.path)}
    checkpoint.save(layout.origin(), {**kept, **state}, keep=False)


def net_misfits(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """What keeps nets {net: {name: tensor}} from taking over weights: a line for each name or shape that differs."""
    mine, theirs = (
        {f"{net}.{name}": tuple(w.shape) for net, weights in nets.items() for name, w in weights.items()}
        for nets in (here, there)
    )
    return [
        f"{name}: shape {list(theirs[name])} there, {list(mine[name])} here"
        if name in mine and name in theirs
        else f"{name}: only {'here' if name in mine else 'there'}"
        for name in {**mine, **theirs}
        if mine.get(name) != theirs.get(name)
    ]
