"""A run that starts from the weights of another."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.experiment.launch import run_spec
from slm_lab.experiment.records.runs import RunFile
from slm_lab.experiment.session.run import Mode, Options, Run
from slm_lab.experiment.session.session import Session, checkpoint
from slm_lab.experiment.trial.origin import net_misfits
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

NewSpec = Callable[..., Spec]


def test_sessions_start_from_weights_and_normalizer(tiny: NewSpec, options: Options) -> None:
    spec = tiny(env__normalize_obs=True, env__max_frame=400)
    first = run_spec(spec, Mode.TRAIN, options)
    best = checkpoint.load(Layout.open(first.folder).best(0, 0))
    started = dataclasses.replace(options, start_from="latest")
    # no update in so few frames: the weights stay as they came
    second = run_spec(tiny(env__normalize_obs=True, env__max_frame=40), Mode.TRAIN, started)
    assert RunFile.open(Layout.open(second.folder)).options.start_from == str(Layout.open(first.folder).best(0, 0))
    tree = checkpoint.load(Layout.open(second.folder).checkpoint(0, 0))
    nets = tree["agent"]["algorithm"]["nets"]
    assert all(torch.equal(w, best["policy"][net][name]) for net in nets for name, w in nets[net].items())
    counts = [float(np.asarray(t["normalizer"]["obs"]["count"])) for t in (best, tree)]
    assert counts[1] - counts[0] == pytest.approx(44)  # 10 steps of 4 envs, and the first observations


def test_a_killed_start_equals_one_that_went_through(tiny: NewSpec, options: Options) -> None:
    first = run_spec(tiny(env__max_frame=200), Mode.TRAIN, options)
    whole = run_spec(tiny(), Mode.TRAIN, dataclasses.replace(options, start_from=str(first.folder)))
    layout = Layout.new(options.out, "tiny")
    layout.make_folders()
    source = Layout.open(whole.folder)
    layout.origin().write_bytes(source.origin().read_bytes())
    run = Run(tiny(), Mode.TRAIN, layout, options=options)
    asked = iter(range(1000))
    Session(run, stop=lambda: next(asked) >= 120).run()
    Session(run).run()
    a, b = (checkpoint.load(x.checkpoint(0, 0))["agent"]["algorithm"]["nets"]["net"] for x in (source, layout))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_does_not_fit_is_refused_by_name_and_shape(tiny: NewSpec, options: Options) -> None:
    first = run_spec(tiny(env__max_frame=200), Mode.TRAIN, options)
    folders = sorted(options.out.iterdir())
    started = dataclasses.replace(options, start_from=str(first.folder))
    with pytest.raises(LabError, match=r"can't be started from, it does not fit tiny\n") as caught:
        run_spec(tiny(agent__net__hid_layers=[8]), Mode.TRAIN, started)
    assert "shape [16, 4] there, [8, 4] here" in str(caught.value)
    with pytest.raises(LabError, match="normalizes obs"):
        run_spec(tiny(env__normalize_obs=True), Mode.TRAIN, started)
    with pytest.raises(LabError, match="--from belongs to the modes train and dev"):
        run_spec(tiny(search={"agent.algorithm.lr__loguniform": [1e-4, 1e-2]}), Mode.SEARCH, started)
    with pytest.raises(LabError, match="no such run folder"):
        run_spec(tiny(), Mode.TRAIN, dataclasses.replace(options, start_from="nowhere"))
    assert sorted(options.out.iterdir()) == folders


def test_misfits() -> None:
    here = {"net": {"a": torch.zeros(2, 3), "b": torch.zeros(1)}}
    there = {"net": {"a": torch.zeros(3, 3)}, "critic": {"c": torch.zeros(2)}}
    assert net_misfits(here, there) == [
        "net.a: shape [3, 3] there, [2, 3] here",
        "net.b: only here",
        "critic.c: only there",
    ]
    assert net_misfits(here, here) == []


def test_targets_start_equal_to_their_nets() -> None:
    spec = load_spec("dqn/dqn_cartpole.json", "dqn_cartpole")
    env = make_env(spec.env, num_envs=1)
    agents = [Agent(spec, env.info, seed=seed) for seed in (0, 1)]
    env.close()
    agents[0].start_from(agents[1].policy_state())
    algorithm = agents[0].algorithm
    target = algorithm.target.net.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(target[name], w) for name, w in agents[1].policy_state()["net"].items())
    # and it explores as at the beginning, not as at the end
    assert algorithm.variables()["explore_var"] == spec.agent.algorithm.explore_var_spec.start_val  # type: ignore[attr-defined]
