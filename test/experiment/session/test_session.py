import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file
from support.specs import replace
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slm_lab.agent.agent import Agent
from slm_lab.agent.sinks import CsvSink, read_rows
from slm_lab.env.cartpole import CartPole
from slm_lab.experiment.play.enjoy import SavedPolicy
from slm_lab.experiment.session.run import Mode, Run
from slm_lab.experiment.session.session import Session, checkpoint
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import plain
from slm_lab.types import Step

NewRun = Callable[..., Run]
CLOCKS = ("fps", "wall_t")


def timeless(rows: list) -> list:
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows]


def weights(run: Run, **which: bool) -> dict[str, torch.Tensor]:
    return load_file(run.layout.weights(run.trial, run.session, **which))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_resume_elsewhere_is_told_once(new_run: NewRun, log_text: list[str]) -> None:
    run = new_run()
    asked = iter(range(1000))
    Session(run, stop=lambda: next(asked) >= 100).run()
    tree = checkpoint.load(run.layout.checkpoint(0, 0))
    assert tree["setting"] == {"device": "cpu", "compiled": False, "threads": 1, "precision": "float32"}
    tree["setting"] = {"device": "cuda:3", "compiled": True, "threads": 1}
    checkpoint.save(run.layout.checkpoint(0, 0), tree)
    Session(run).run()
    warnings = [line.strip() for line in log_text if line.startswith("WARNING")]
    assert warnings == [
        "WARNING the checkpoint was made with device cuda:3, this is cpu: not the same bits",
        "WARNING the checkpoint was made with compiled True, this is False: not the same bits",
    ]


def test_the_nets_are_saved_once(new_run: NewRun) -> None:
    run = new_run()
    Session(run).run()
    tree = checkpoint.load(run.layout.checkpoint(0, 0))
    assert "policy" not in tree
    saved = SavedPolicy.open(run.layout.checkpoint(0, 0))
    assert same(weights(run), {f"{k}.{n}": w for k, net in saved.state.items() for n, w in net.items()})


def test_rows_reach_the_disk_before_the_checkpoint_that_counts_on_them(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(CsvSink, "sync", lambda sink: done.append(sink.path.name.rpartition("_")[2]))
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda path, *a, **k: (done.append(path.name), save(path, *a, **k)))
    Session(new_run(meta__rigorous_eval=1, env__max_frame=200)).run()
    assert done[-3:] == ["train.csv", "eval.csv", "tiny_t0_s0_ckpt.pt"]


@pytest.mark.parametrize(
    ("max_frame", "num_envs", "frames"),
    [
        (1000, 4, [200, 400, 600, 800, 1000]),
        (900, 4, [200, 400, 600, 800, 900]),
        # vector steps of 3 cross a multiple of 200 where they may, and the end too
        (500, 3, [201, 402, 501]),
        (100, 4, [100]),
    ],
)
def test_a_row_at_every_multiple_and_one_at_the_end(
    new_run: NewRun, max_frame: int, num_envs: int, frames: list[int]
) -> None:
    run = new_run(env__max_frame=max_frame, env__num_envs=num_envs)
    result = Session(run).run()
    rows = read_rows(run.layout.session_df(0, 0))
    assert [row["frame"] for row in rows] == frames
    assert [row["t"] for row in rows] == [f // num_envs for f in frames]
    assert result.rows == rows
    assert (result.frame, result.stopped) == (frames[-1], False)


def test_a_log_frequency_below_one_vector_step_gives_a_row_each_step(new_run: NewRun) -> None:
    run = new_run(env__max_frame=20, meta__log_frequency=1)
    assert [row["frame"] for row in Session(run).run().rows] == [4, 8, 12, 16, 20]


def test_rows_are_reported_and_hold_what_is_known(new_run: NewRun) -> None:
    events: list[dict] = []
    run = new_run()
    result = Session(run, report=events.append).run()
    assert [e["row"] for e in events] == result.rows
    assert {e["kind"] for e in events} == {"row"}
    last = result.rows[-1]
    # 250 vector steps, an update after each 16, of two nets
    assert last["opt_step"] == 250 // 16 * 2
    assert 0 < last["entropy"] <= math.log(2) + 1e-6
    assert "grad_norm" not in last
    assert 0 <= last["entropy_coef"] < 0.02


def test_columns_of_updates_stand_from_the_first_row_on(new_run: NewRun) -> None:
    run = new_run(env__max_frame=40, meta__log_frequency=4, agent__algorithm__training_frequency=5)
    rows = Session(run).run().rows
    assert rows[0]["entropy"] is None
    assert rows[-1]["entropy"] is not None


def test_two_runs_with_one_seed_are_equal_and_two_seeds_are_not(new_run: NewRun) -> None:
    first, again, other = new_run(), new_run(), new_run(meta__random_seed=1)
    rows = [timeless(Session(run).run().rows) for run in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_sessions_of_a_trial_differ(new_run: NewRun) -> None:
    runs = [new_run(session=i) for i in range(2)]
    for run in runs:
        Session(run).run()
    assert not same(weights(runs[0]), weights(runs[1]))


@pytest.mark.parametrize("steps", [1, 37, 50, 100, 249])
def test_a_stop_at_any_step_and_a_resume_change_nothing(new_run: NewRun, steps: int) -> None:
    whole, parts = (new_run(meta__rigorous_eval=2, meta__eval_frequency=300) for _ in range(2))
    Session(whole).run()
    asked = iter(range(10_000))
    first = Session(parts, stop=lambda: next(asked) >= steps).run()
    assert (first.stopped, first.frame) == (True, 4 * steps)
    second = Session(parts).run()
    assert (second.stopped, second.frame) == (False, 1000)
    for kind in ("train", "eval"):
        tables = [read_rows(run.layout.session_df(0, 0, kind)) for run in (whole, parts)]
        assert timeless(tables[0]) == timeless(tables[1])
    assert same(weights(whole), weights(parts))
    assert same(weights(whole, best=True), weights(parts, best=True))


def test_rows_beyond_the_checkpoint_are_dropped(new_run: NewRun) -> None:
    whole, parts = new_run(), new_run()
    expected = Session(whole).run().rows
    asked = iter(range(10_000))
    Session(parts, stop=lambda: next(asked) >= 120).run()
    # as a kill between a row and the next checkpoint leaves it, with half a line
    with parts.layout.session_df(0, 0).open("a", encoding="utf-8") as file:
        file.write(",".join(["1.0"] * 4 + ["600"] + ["1.0"] * (len(expected[0]) - 5)) + "\n33.5,2")
    rows = Session(parts).run().rows
    assert timeless(rows) == timeless(expected) == timeless(read_rows(parts.layout.session_df(0, 0)))


@pytest.mark.parametrize(("max_frame", "told"), [(20, 1), (1000, 0)])
def test_a_session_that_never_learned_says_so(new_run: NewRun, log_text: list[str], max_frame: int, told: int) -> None:
    Session(new_run(env__max_frame=max_frame)).run()
    warned = [line for line in log_text if f"ended at frame {max_frame:,} and never learned" in line]
    assert len(warned) == told


def test_a_finished_session_is_not_repeated(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run()
    expected = Session(run).run()

    def act(*args: object) -> None:
        raise AssertionError("acted again")

    monkeypatch.setattr(Agent, "act", act)
    again = Session(run).run()
    assert (again.rows, again.frame, again.stopped) == (expected.rows, 1000, False)
    assert plain(again.metrics) == plain(expected.metrics)


def test_wall_time_goes_on_where_it_was(new_run: NewRun) -> None:
    run = new_run()
    asked = iter(range(10_000))
    Session(run, stop=lambda: next(asked) >= 120).run()
    tree = checkpoint.load(run.layout.checkpoint(0, 0))
    checkpoint.save(run.layout.checkpoint(0, 0), {**tree, "wall_t": 1000.0})
    rows = Session(run).run().rows
    assert rows[0]["wall_t"] < 100
    assert rows[-1]["wall_t"] >= 1000


def test_checkpoints_are_throttled_but_the_end_is_always_saved(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[int] = []
    save = checkpoint.save

    def count(path: Path, tree: dict, **kwargs: bool) -> None:
        if path.name.endswith("_ckpt.pt"):
            frames.append(tree["counters"]["frame"])
        save(path, tree, **kwargs)

    monkeypatch.setattr(checkpoint, "save", count)
    Session(new_run(meta__checkpoint_interval=1000)).run()
    assert frames == [1000]
    frames.clear()
    Session(new_run(meta__checkpoint_interval=0)).run()
    assert frames == [200, 400, 600, 800, 1000]


def test_saving_does_not_change_training(new_run: NewRun) -> None:
    often, once = new_run(meta__checkpoint_interval=0), new_run(meta__checkpoint_interval=1000)
    rows = [timeless(Session(run).run().rows) for run in (often, once)]
    assert rows[0] == rows[1]
    assert same(weights(often), weights(once))


def test_evaluation_does_not_disturb_training(new_run: NewRun) -> None:
    with_eval, without = new_run(meta__rigorous_eval=3, meta__eval_frequency=200), new_run()
    rows = [timeless(Session(run).run().rows) for run in (with_eval, without)]
    assert rows[0] == rows[1]
    assert same(weights(with_eval), weights(without))
    evals = read_rows(with_eval.layout.session_df(0, 0, "eval"))
    assert [row["frame"] for row in evals] == [200, 400, 600, 800, 1000]
    assert [row["epi"] for row in evals] == [3, 6, 9, 12, 15]
    assert with_eval.layout.session_metrics(0, 0, "eval").exists()
    assert not without.layout.session_df(0, 0, "eval").exists()


def test_the_best_policy_is_that_of_the_best_row(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run()
    seen: dict[int, dict] = {}
    policy_state = Agent.policy_state

    def note(agent: Agent) -> dict:
        state = policy_state(agent)
        seen[agent.opt_step] = state
        return state

    monkeypatch.setattr(Agent, "policy_state", note)
    rows = Session(run).run().rows
    best = checkpoint.load(run.layout.best(0, 0))
    top = max(row["total_reward_ma"] for row in rows)
    assert best["total_reward_ma"] == top
    [row] = [row for row in rows if row["frame"] == best["counters"]["frame"]]
    assert row["total_reward_ma"] == top
    for net, tensors in seen[row["opt_step"]].items():
        assert same(tensors, best["policy"][net])
    assert load_file(run.layout.weights(0, 0, best=True)).keys() == weights(run).keys()


def test_the_obs_acted_on_is_what_is_observed(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[np.ndarray] = []
    noted: list[np.ndarray] = []
    act, observe, step = Agent.act, Agent.observe, CartPole.step

    def watch_act(agent: Agent, obs: np.ndarray, explore: bool = True) -> np.ndarray:
        shown.append(obs.copy())
        return act(agent, obs, explore)

    def watch_observe(agent: Agent, obs: np.ndarray, action: np.ndarray, step: Step) -> None:
        noted.append(obs.copy())
        observe(agent, obs, action, step)

    monkeypatch.setattr(Agent, "act", watch_act)
    monkeypatch.setattr(Agent, "observe", watch_observe)
    monkeypatch.setattr(CartPole, "step", step)
    Session(new_run()).run()
    assert len(shown) == 250
    assert_array_equal(np.array(shown), np.array(noted))
    assert len(np.unique(np.array(shown).reshape(250, -1), axis=0)) == 250


def test_dev_mode_writes_tensorboard_events_and_gradient_norms(new_run: NewRun) -> None:
    run = new_run(Mode.DEV)
    rows = Session(run).run().rows
    assert rows[-1]["grad_norm"] > 0
    assert any((run.layout.root / "log" / "events_tiny_t0_s0").iterdir())


def test_a_loss_that_is_not_finite_stops_the_session_and_keeps_the_checkpoint(new_run: NewRun) -> None:
    run = new_run(agent__net__optim_spec={"name": "SGD", "lr": 1e30}, meta__log_frequency=4)
    with pytest.raises(LabError, match="not finite"):
        Session(run).run()
    tree = checkpoint.load(run.layout.checkpoint(0, 0))
    assert 0 < tree["counters"]["frame"] < 1000


def test_a_checkpoint_that_is_unreadable_is_told(new_run: NewRun) -> None:
    run = new_run()
    run.layout.checkpoint(0, 0).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(LabError, match="no readable checkpoint"):
        Session(run).run()


def test_a_spec_that_changed_since_the_checkpoint_is_told(new_run: NewRun, log_text: list[str]) -> None:
    run = new_run()
    asked = iter(range(100))
    Session(run, stop=lambda: next(asked) >= 60).run()
    for key, value in (("agent.net.hid_layers", [8]), ("env.num_envs", 2)):
        other = dataclasses.replace(run, spec=replace(run.spec, key, value))
        with pytest.raises(LabError, match=rf"_ckpt.pt: does not fit the spec, .* since: {key}$"):
            Session(other).run()
    Session(dataclasses.replace(run, spec=replace(run.spec, "agent.algorithm.gamma", 0.9))).run()
    assert sum("has changed since the checkpoint was made: agent.algorithm.gamma" in line for line in log_text) == 1


def test_policies_are_kept_along_the_way(new_run: NewRun) -> None:
    run = new_run(meta__keep_checkpoints=3)
    Session(run).run()
    frames = [400, 800, 1000]  # the first rows at or behind 333, 667 and 1000
    assert sorted(int(p.stem.rpartition("-")[2]) for p in run.layout.root.glob("model/*_ckpt-[0-9]*.pt")) == frames
    kept = [SavedPolicy.open(run.layout.kept(0, 0, frame)) for frame in frames]
    assert [policy.frame for policy in kept] == frames
    first, _, last = ({f"{k}.{n}": w for k, net in p.state.items() for n, w in net.items()} for p in kept)
    assert same(weights(run), last)
    assert not same(first, last)


def test_a_sink_of_the_spec_gets_the_rows_in_training(new_run: NewRun) -> None:
    run = new_run(meta__sinks=["tensorboard"])
    rows = Session(run).run().rows
    events = EventAccumulator(str(run.layout.root / "log" / "events_tiny_t0_s0"))
    events.Reload()
    assert [e.step for e in events.Scalars("total_reward_ma")] == [row["frame"] for row in rows]
