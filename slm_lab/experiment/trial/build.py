"""The last check of a spec: its env and agent are built once, and thrown away."""

import functools
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pydash
from loguru import logger
from numpy.typing import NDArray
from pydantic import ValidationError

from slm_lab.agent.agent import Agent
from slm_lab.env.base import VecEnv
from slm_lab.env.make import make_env
from slm_lab.experiment.session import outlets, run, session
from slm_lab.experiment.session.clock import eval_every
from slm_lab.experiment.session.resources import search_shares, use_compile
from slm_lab.experiment.session.rollouts import why_no_batch
from slm_lab.experiment.trial import trial
from slm_lab.experiment.trial.contain import out_of_memory
from slm_lab.lib.cores import available_cores
from slm_lab.lib.errors import LabError, SpecError, place
from slm_lab.lib.registry import lookup
from slm_lab.lib.suggest import nearest
from slm_lab.spec.effect import Watch, watching
from slm_lab.spec.model import NetSpec, Spec
from slm_lab.spec.search import scheduler_settings, search_sessions, trial_count
from slm_lab.types import EnvInfo

UNUSED = "does not use it"
"""Ends what is said of a key of which it is not known what keeps it from having an effect."""
PROBES = 24
"""Changes of a spec that are tried to find out what keeps a key from having an effect."""


@dataclass(frozen=True)
class Built:
    """What came of it."""

    faults: list[str]
    """Why it can't be built, as lines that begin with a key path where one is to blame."""
    idle: dict[str, str] = field(default_factory=dict)
    """Key paths without effect, each with the reason where the code states one; of a spec that was built."""
    yielding: dict[str, str] = field(default_factory=dict)
    """Likewise, those that another key is meant to come before."""


Shown = tuple[EnvInfo, NDArray[Any]]
"""What an env shows of itself in one reset: its info, and observations [N, *O]."""


def show(env: VecEnv, num_envs: int) -> Shown:
    """As `num_envs` of an env would show themselves, of which there is one."""
    info = replace(env.info, num_envs=num_envs)
    obs = np.zeros((num_envs, *info.obs_shape), info.obs_dtype)
    obs[:] = env.reset(0)
    return info, obs


def build(spec: Spec, shown: Shown | None = None) -> Built:
    """Build env and agent, and take a first action: what does not fit together inside the nets shows up there.

    Given what the spec's env shows, none is made, and the keys of `env` count as far as the agent reads them.
    """
    if spec.meta.batch_sessions is True and (why := why_no_batch(spec)):
        return Built([f"meta.batch_sessions: {why}"])
    with watching(spec) as watch:
        try:
            if shown is not None:
                watch.note_later_reads(_first_action(spec, shown)[0])
            else:
                with closing(make_env(spec.env, num_envs=1)) as env:
                    agent, action = _first_action(spec, show(env, spec.env.num_envs))
                    # what the env gives may not fit either
                    env.step(action[:1])
                    watch.note_later_reads(agent, env)
        except SystemExit:
            # an env that ends its process is no fault of the spec: it crashes its session, which is reported
            return Built([])
        except Exception as error:  # noqa: BLE001  envs and plugins are code of others
            e = out_of_memory(error, spec) or error
            if isinstance(e, SpecError):
                return Built(e.faults)
            if isinstance(e, LabError):
                return Built([str(e)])
            logger.opt(exception=error).debug("the spec can't be built")
            where = place(error)
            return Built([f"{type(e).__name__}: {' '.join(str(e).split())}{where and f' ({where})'}"])
        _note_run(spec, watch)
        idle = {path: why or _why_misread(path, watch.misread) for path, why in watch.idle().items()}
        return Built([], idle, watch.yielding())


def _why_misread(path: str, misread: set[str]) -> str:
    near = nearest(path.rpartition(".")[2], sorted(misread))
    return f"the code reads '{near}', which is no key; is that a slip?" if near else ""


def _first_action(spec: Spec, shown: Shown) -> tuple[Agent, NDArray[Any]]:
    """The agent, and what it does first [N, *A]."""
    info, obs = shown
    agent = Agent(spec, info, seed=0)
    # some begin with random actions, which ask no net
    agent.act(obs, explore=False)
    return agent, agent.act(obs)


def explain_idle(spec: Spec, idle: dict[str, str]) -> list[str]:
    """Keys without effect as faults, each with what keeps it from having one."""

    @functools.cache
    def shown() -> Shown:
        with closing(make_env(spec.env, num_envs=1)) as env:
            return show(env, spec.env.num_envs)

    return [f"{path}: has no effect: {why or _why_idle(spec, path, shown)}" for path, why in idle.items()]


def _note_run(spec: Spec, watch: Watch) -> None:
    """Read what a run, a trial and a search read of a spec beside its env and agent."""
    for module in (run, session, trial, outlets):
        watch.note_module(module, meta=spec.meta, env=spec.env)
    eval_every(spec.meta)
    use_compile(spec.meta.compile, spec.env.max_frame, spec.agent.net)
    trial.pool_size(spec, available_cores())
    # the device is chosen by it; version and plugins have done their part when a spec is loaded
    _ = spec.agent.net.gpu, spec.meta.version, spec.meta.plugins, spec.search
    trial_count(spec, [])
    search_sessions(spec)
    search_shares(spec)
    scheduler_settings(spec)


def _why_idle(spec: Spec, path: str, shown: Callable[[], Shown]) -> str:
    """Found by trying: without which other key, or with which, it would have an effect."""
    role, name = path.rpartition(".")[2].partition("_")[0], spec.agent.algorithm.name
    if role in NetSpec.roles and role not in lookup("algorithm", name).roles:
        return f"{name} has no {role}"
    # the keys that are tried lie in the same block: those of the agent leave the env as it is
    has_effect = functools.partial(_has_effect, spec, path, shown=shown() if path.startswith("agent.") else None)
    given = [other for other in _leaves(spec.to_dict()) if not covers([other], path)]
    winners = [other for other in _nearest(given, path) if has_effect(other, remove=True)]
    if winners:
        return f"{' and '.join(winners)} {'count' if len(winners) > 1 else 'counts'} instead"
    for other, value in _alternatives(spec, path):
        if has_effect(other, value):
            return f"it would with {other} {value!r}" if isinstance(value, str) else f"it needs {other}"
    return f"{name} with the net {spec.agent.net.type} and the memory {spec.agent.memory.name} {UNUSED}"


def _has_effect(
    spec: Spec, path: str, other: str, value: Any = None, *, shown: Shown | None, remove: bool = False
) -> bool:
    data = spec.to_dict()
    if remove:
        pydash.unset(data, other)
    else:
        pydash.set_(data, other, value)
    with suppress(ValidationError, LabError):
        built = build(Spec.model_validate(data), shown)
        return not built.faults and not covers(built.idle, path)
    return False


def covers(paths: Iterable[str], path: str) -> bool:
    """Whether a key path is one of these, or is inside one of them or around it."""
    return any(path == p or path.startswith((f"{p}.", f"{p}[")) or p.startswith(f"{path}.") for p in paths if path)


def _leaves(data: dict[str, Any]) -> list[str]:
    """Key paths of the blocks' own keys; what lies deeper goes with the key that holds it."""
    found = [f"agent.{part}.{key}" for part in ("algorithm", "memory", "net") for key in data["agent"][part]]
    found += [f"{part}.{key}" for part in ("env", "meta") for key in data[part]]
    return [path for path in found if path.rpartition(".")[2] not in ("name", "type", "plugins", "version")]


def _nearest(paths: list[str], path: str) -> list[str]:
    """Those that are most likely to decide in the place of a key first, PROBES of them."""
    block, last = path.split(".")[: -1 or None], path.split(".")[2:3]

    def distance(other: str) -> tuple[bool, bool]:
        bare = other.rpartition(".")[2]
        alike = any(bare.endswith(word) or word.endswith(bare.partition("_")[2] or bare) for word in last)
        return not (alike or bare in ("shared", "use_same_optim", "lr")), other.split(".")[:2] != block[:2]

    return sorted((p for p in paths if p.split(".")[0] == path.split(".", maxsplit=1)[0]), key=distance)[:PROBES]


def _alternatives(spec: Spec, path: str) -> list[tuple[str, Any]]:
    """Other values of the keys beside a key, for kinds that have a known set of values."""
    parts = path.split(".")
    depth = 2 if parts[0] == "agent" else 1
    node = pydash.get(spec, ".".join(parts[:depth]))
    schema = type(node).model_json_schema(mode="validation").get("properties", {})
    found: list[tuple[str, Any]] = []
    for key, rule in schema.items():
        if key.partition("_")[0] in NetSpec.roles or key in node.model_fields_set - {"shared"}:
            continue
        options = rule.get("enum", [])
        kinds = {rule.get("type"), *(r.get("type") for r in rule.get("anyOf", ()))}
        if "boolean" in kinds:
            options = [not rule.get("default", False)]
        elif not options and kinds & {"integer", "number"}:
            options = [1]
        found += [(".".join([*parts[:depth], key]), option) for option in options if option != rule.get("default")]
    return found[:PROBES]
