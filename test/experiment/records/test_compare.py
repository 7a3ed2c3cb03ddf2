"""Comparisons against numbers worked out by hand."""

import json

import numpy as np
import pytest
from support.runs import make_run

from slm_lab.experiment.records.baselines import reference
from slm_lab.experiment.records.compare import compare, to_json
from slm_lab.experiment.records.methods import differences
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import plain


def folders(*layouts):
    return [layout.root for layout in layouts]


def test_two_methods_in_one_env(tmp_path):
    ppo = make_run(tmp_path, "ppo_cartpole", [[10.0, 20.0], [30.0, 40.0]])
    dqn = make_run(tmp_path, "dqn_cartpole", [[20.0, 40.0]], agent="DQN")
    found = compare(folders(ppo, dqn))
    assert (found.envs, found.labels) == (["CartPole-v1"], ["ppo_cartpole", "dqn_cartpole"])
    first, second = found.methods
    assert first.scores == [15, 35]
    assert first.mean == (25, 15, 35)
    assert first.median.value == 25
    assert second.mean.value == 30
    assert np.isnan(second.mean.low)
    # 15 < 30 < 35
    assert found.improvement["ppo_cartpole", "dqn_cartpole"].value == 0.5
    # a tenth short of the way from random to 30, in the mean of the rows so far: session 1 starts there
    assert found.targets["CartPole-v1"] == pytest.approx(22.97 + 0.9 * (30 - 22.97))
    assert first.frames_to_target == [np.inf, 100]
    assert second.frames_to_target == [200]
    assert second.seconds_to_target == [4.0]
    assert found.notes[0] == (
        "intervals from fewer than 5 sessions are unreliable; a single session has none: "
        "ppo_cartpole in CartPole-v1 (2), dqn_cartpole in CartPole-v1 (1)"
    )


def test_runs_of_one_spec_are_one_method(tmp_path):
    runs = [make_run(tmp_path, sessions=[[float(i)]]) for i in range(6)]
    found = compare(folders(*runs))
    (method,) = found.methods
    assert method.scores == [0, 1, 2, 3, 4, 5]
    assert method.iqm.value == 2.5
    assert found.notes == []
    assert len(compare(folders(*runs, runs[0])).methods[0].scores) == 6


def test_a_session_that_repeats_another_is_no_sample_of_its_own(tmp_path):
    def seeded(seed, returns):
        layout = make_run(tmp_path, sessions=[returns])
        info = json.loads(layout.run_file().read_text())
        layout.run_file().write_text(json.dumps({**info, "options": {"seed": seed}}))
        return layout

    # the third has the seed of the first, but other returns (of another version, say); the fourth its returns by chance
    runs = [seeded(1, [10.0]), seeded(1, [10.0]), seeded(1, [30.0]), seeded(2, [10.0])]
    found = compare(folders(*runs))
    assert found.methods[0].scores == [10, 30, 10]
    where = "ppo_cartpole in CartPole-v1"
    assert f"{where}: 1 session that repeats another one of the same seed is left out" in found.notes
    assert "repeats" not in " ".join(compare(folders(*runs[1:])).notes)


def test_specs_of_one_name_are_told_apart(tmp_path):
    a, b = make_run(tmp_path, lr=0.1), make_run(tmp_path, lr=0.01)
    assert compare(folders(a, b)).labels == ["ppo_cartpole (lr=0.1)", "ppo_cartpole (lr=0.01)"]
    assert compare(folders(a, b), labels=["high", "low"]).labels == ["high", "low"]
    nested = [make_run(tmp_path, schedule={"frame": n}) for n in (10, 20)]
    assert compare(folders(*nested)).labels == ["ppo_cartpole (schedule.frame=10)", "ppo_cartpole (schedule.frame=20)"]
    with pytest.raises(LabError, match="2 runs, but 1 labels"):
        compare(folders(a, b), labels=["high"])


def test_several_envs_are_normalized(tmp_path):
    """CartPole: 22.97 to gymnasium's 475; ALE/Adventure-v5: 0 to the best method, 4."""
    runs = [
        make_run(tmp_path, "a", [[475.0], [22.97]]),
        make_run(tmp_path, "b", [[1.0], [2.0]], env="ALE/Adventure-v5"),
        make_run(tmp_path, "c", [[475.0], [475.0]], agent="DQN"),
        make_run(tmp_path, "d", [[3.0], [5.0]], env="ALE/Adventure-v5", agent="DQN"),
        make_run(tmp_path, "e", [[475.0], [475.0]], agent="A2C"),
    ]
    found = compare(folders(*runs))
    assert found.labels == ["PPO", "DQN", "A2C"]
    ppo, dqn = found.aggregates["PPO"], found.aggregates["DQN"]
    assert ppo["mean"].value == pytest.approx((0.5 + 1.5 / 4) / 2)
    assert ppo["iqm"].value == pytest.approx((0.25 + 0.5) / 2)
    assert dqn["mean"].value == pytest.approx(1.0)
    assert dqn["optimality_gap"].value == pytest.approx(0.25 / 4)
    assert dqn["median"].value == pytest.approx(1.0)
    assert "A2C" not in found.aggregates
    assert "A2C has no score in all envs: no aggregate" in found.notes
    # PPO and DQN met in both envs, PPO and A2C in one
    assert found.improvement["DQN", "PPO"].value == pytest.approx((0.75 + 1) / 2)
    assert found.improvement["A2C", "PPO"].value == pytest.approx(0.75)


def test_at_a_frame(tmp_path):
    found = compare(folders(make_run(tmp_path, sessions=[[10.0, 20.0, 90.0]])), at=200, target=18.0)
    assert found.methods[0].scores == [15]
    assert found.methods[0].frames_to_target == [np.inf]


def test_at_a_frame_that_not_every_run_has_reached(tmp_path):
    runs = folders(make_run(tmp_path, "long", [[10.0, 20.0, 90.0]]), make_run(tmp_path, "short", [[10.0]]))
    note = "short in CartPole-v1: ended at 100 frames, before --at 200: its last score counts"
    assert note in compare(runs, at=200).notes
    assert not any("ended at" in note for note in compare(runs, at=100).notes)
    with pytest.raises(LabError, match=r"--at: no run has reached 400 frames \(the longest has 300\)"):
        compare(runs, at=400)


def test_other_metrics(tmp_path):
    run = make_run(tmp_path, sessions=[[10.0, 20.0, 90.0]])
    assert compare(folders(run), metric="loss").methods[0].scores == pytest.approx([(1 / 100 + 1 / 200 + 1 / 300) / 3])
    assert compare(folders(run), metric="final_total_reward").methods[0].scores == [90]
    with pytest.raises(LabError, match=r"metric 'entrpy' is not known \(known: total_reward, loss"):
        compare(folders(run), metric="entrpy")


def test_uneven_sessions_are_noted(tmp_path):
    found = compare(folders(make_run(tmp_path, sessions=[[1.0], [1.0, 2.0]])))
    assert any("sessions end at 100 to 200 frames" in note for note in found.notes)
    a, b = make_run(tmp_path, "a", [[1.0]]), make_run(tmp_path, "b", [[1.0, 2.0]])
    assert any(note.startswith("CartPole-v1: runs end at 100 to 200") for note in compare(folders(a, b)).notes)


def test_no_finished_episode(tmp_path):
    found = compare(folders(make_run(tmp_path, sessions=[[None], [None]])))
    assert found.methods[0].scores == []
    assert np.isnan(found.methods[0].mean.value)
    assert "ppo_cartpole in CartPole-v1: no session has a value of total_reward" in found.notes
    assert not any("random" in note for note in found.notes)
    assert found.improvement == {}


def test_json_is_plain(tmp_path):
    text = json.dumps(plain(to_json(compare(folders(make_run(tmp_path))))), allow_nan=False)
    method = json.loads(text)["methods"][0]
    assert method["mean"] == {"value": 25.0, "interval": [15.0, 35.0]}


def test_reference_is_better_than_random():
    assert reference("ALE/Pong-v5", [])[1:] == (14.6, "a human, Wang et al. 2016")
    # a random policy plays Video Pinball better than the human did
    found = reference("ALE/VideoPinball-v5", [30000.0])
    assert (found.high, found.source) == (30000.0, "the best method compared here")
    assert reference("Pendulum-v1", [-1300.0]) is None  # worse than random
    assert reference("Nobody-v0", [-5.0]) is None


def test_env_without_a_baseline(tmp_path):
    a = make_run(tmp_path, "a", [[-50.0, -10.0], [-30.0, -20.0]], env="Nobody-v0")
    b = make_run(tmp_path, "b", [[-40.0, -38.0]], env="Nobody-v0", agent="DQN")
    found = compare(folders(a, b))
    assert (found.references, found.aggregates) == ({}, {})
    assert any(
        n.startswith("Nobody-v0: no random baseline is known, so scores are not normalized") for n in found.notes
    )
    # first rows: -40; the best method: (-30 - 25) / 2
    assert found.targets["Nobody-v0"] == pytest.approx(-40 + 0.9 * 12.5)
    assert found.methods[0].frames_to_target == [np.inf, 200]
    # beside an env with a baseline, that one is normalized
    found = compare(folders(a, make_run(tmp_path, "c", [[22.97], [475.0]])))
    assert list(found.references) == ["CartPole-v1"]
    assert found.aggregates["PPO"]["mean"].value == pytest.approx(0.5)


def test_target_is_reached(tmp_path):
    """Worse than random, up to a frame."""
    run = make_run(tmp_path, sessions=[[10.0, 12.0, 90.0], [8.0, 8.0, 90.0]])
    found = compare(folders(run), at=200)
    assert found.targets["CartPole-v1"] == pytest.approx(22.97 + 0.9 * (9.5 - 22.97))
    assert found.methods[0].frames_to_target == [200, np.inf]
    assert compare(folders(make_run(tmp_path, "dqn", [[8.0]]))).targets["CartPole-v1"] == 8


def test_crashed_and_lacking_sessions(tmp_path):
    run = make_run(tmp_path, sessions=[[10.0], [20.0], [None]])
    where = "ppo_cartpole in CartPole-v1"
    found = compare(folders(run))
    assert f"{where}: 1 of 3 sessions left out, without a value of total_reward" in found.notes
    run.crash(0, 0).write_text("ValueError: NaN")
    found = compare(folders(run))
    assert found.methods[0].scores == [20]
    assert f"{where}: 1 crashed session left out" in found.notes
    for i in (1, 2):
        run.crash(0, i).write_text("ValueError: NaN")
    found = compare(folders(run))
    assert found.methods[0].scores == [10, 20]
    assert f"{where}: 3 crashed sessions counted as far as they got: all sessions of their run crashed" in found.notes


def test_differences():
    assert differences([{"a": [1], "b": None}, {"a": [1], "b": 2}]) == {"b": [None, 2]}
