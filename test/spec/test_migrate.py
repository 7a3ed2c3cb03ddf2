"""Specs of SLM-Lab 4 and 5: what each file in test/golden/old becomes, and the single rules.

After a change that is meant: `UPDATE_GOLDEN=1 uv run pytest test/spec/test_migrate.py`, then read the diff.
"""

import copy
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from slm_lab.lib.errors import SpecError
from slm_lab.spec.files import bundled_files
from slm_lab.spec.load import check, load_spec, load_specs, open_file, read_file
from slm_lab.spec.migrate import migrate, sweep, version_of
from slm_lab.spec.past import keys
from slm_lab.spec.past.draft import Gone
from slm_lab.spec.past.rewrite import json_text

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FILES = sorted((GOLDEN / "old").iterdir())
SPECS = {f"{path.name}:{name}": raw for path in FILES for name, raw in read_file(path).items()}
GONE = ("v4_gone.json", "v5.json:ppo_playground")


def become(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """By name of the spec, or specs: what it becomes and what is told, or why it can't be."""
    made: dict[str, Any] = {}
    for key, one in sweep(raw, name).items():
        try:
            migrated = migrate(one)
        except Gone as e:
            made[key] = {"gone": e.faults}
        else:
            made[key] = {"notes": migrated.notes, "spec": migrated.spec}
    return made


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_golden(path: Path) -> None:
    file = open_file(path)
    made: dict[str, Any] = {"notes": file.notes}
    for name, raw in file.specs.items():
        made |= become(raw, name)
    expected = GOLDEN / "migrated" / f"{path.stem}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(json_text(made) + "\n", encoding="utf-8")
    assert made == json.loads(expected.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SPECS)
def test_what_comes_of_it_is_a_spec_of_the_present_format(name: str) -> None:
    for key, one in sweep(SPECS[name], "x").items():
        before = copy.deepcopy(one)
        checked = check(one, key)
        assert one == before
        if name.startswith(GONE):
            assert len(checked.faults) <= 1
            continue
        assert checked.faults == []
        migrated = migrate(one).spec
        assert version_of(migrated) == "current" or migrated == one
        assert migrate(migrated).notes == []
        assert migrate(migrated).spec == migrated


def test_the_spec_itself_stays_as_it_is() -> None:
    for raw in SPECS.values():
        for one in sweep(raw, "x").values():
            before = copy.deepcopy(one)
            with suppress(Gone):
                migrate(one)
            assert one == before


def test_every_key_of_old_files_is_in_the_golden_ones() -> None:
    text = "".join(path.read_text() for path in FILES)
    vocabulary = {*keys.ALGORITHM, *keys.MEMORY, *keys.NET, *keys.ENV_DEAD, *keys.META_DEAD, *keys.WRITTEN_BY_RUNS}
    elsewhere = {"arc_file"}  # refused
    missing = {key for key in vocabulary | keys.OFF.keys() if f'"{key}"' not in text and f"{key}:" not in text}
    assert missing == elsewhere


@pytest.mark.parametrize("path", bundled_files(), ids=lambda p: p.name)
def test_bundled_specs_are_of_the_present_format(path: Path) -> None:
    """They say so: `"meta": {"version": 6, ...}`. Else they could be taken for specs of version 5."""
    assert {version_of(raw) for raw in read_file(path).values()} == {"current"}
    assert all(raw["meta"].get("version") == 6 for raw in read_file(path).values())


def v5(
    algorithm: dict[str, Any], net: dict[str, Any] | None = None, env: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A raw spec of version 5; `env` may also hold the name of the memory, and `distributed`."""
    env = dict(env or {})
    memory, distributed = env.pop("memory", "Replay"), env.pop("distributed", False)
    return {
        "agent": {
            "name": "A",
            "algorithm": {"name": "DoubleDQN", "training_frequency": 1} | algorithm,
            "memory": {"name": memory, "batch_size": 4, "max_size": 10},
            "net": {"type": "MLPNet", "hid_layers": [4]} | (net or {}),
        },
        "env": {"name": "CartPole-v1", "max_frame": 10} | env,
        "meta": {"distributed": distributed, "max_session": 1, "max_trial": 1},
    }


def v4(
    algorithm: dict[str, Any], net: dict[str, Any] | None = None, env: dict[str, Any] | None = None
) -> dict[str, Any]:
    raw = v5(algorithm, {"gpu": False} | (net or {}), {"name": "Acrobot-v1"} | (env or {}))
    return raw | {"agent": [raw["agent"]], "env": [raw["env"]], "body": {"product": "outer", "num": 1}}


def line(start: float, end: Any, first: Any = 0, last: Any = 100, name: str = "linear_decay") -> dict[str, Any]:
    return {"name": name, "start_val": start, "end_val": end, "start_step": first, "end_step": last}


NOTHING = object()
SCHEDULES = [
    (line(1.0, 0.1), line(1.0, 0.1), None),
    (line(1.0, 0), line(1.0, 0), "really decays to 0; it stayed at start_val 1"),
    (line(0.1, 1.0), line(0.1, 1.0), "really rises from 0.1 to 1; it jumped there at start_step"),
    (
        line(1.0, None),
        {"name": "no_decay", "start_val": 1.0},
        "no_decay at 1: linear_decay had nothing to change over time",
    ),
    (line(1.0, 0.5, 9, 9), {"name": "no_decay", "start_val": 0.5}, "no_decay at 0.5: linear_decay had nothing"),
    (
        line(1.0, 0.5, name="no_decay"),
        line(1.0, 0.5, name="no_decay"),
        "no_decay stays at start_val 1; it was end_val 0.5",
    ),
    (line(0.5, 0.5, 0, 0, "no_decay"), line(0.5, 0.5, 0, 0, "no_decay"), None),
    (line(1.0, 0.5, name="periodic_decay"), line(1.0, 0.5, name="periodic_decay"), "really is a wave"),
    ("x", "x", None),
    (line("x", []), line("x", []), None),
]


@pytest.mark.parametrize(("old", "new", "told"), SCHEDULES)
@pytest.mark.parametrize("version", [v4, v5])
def test_schedules(old: Any, new: Any, told: str | None, version: Any) -> None:
    migrated = migrate(version({"explore_var_spec": old, "action_pdtype": "Argmax"}))
    assert migrated.spec["agent"]["algorithm"]["explore_var_spec"] == new
    notes = [n for n in migrated.notes if n.startswith("agent.algorithm.explore_var_spec")]
    assert len(notes) == (told is not None)
    assert told is None or told in notes[0]


def at(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data.get(key, NOTHING) if isinstance(data, dict) else NOTHING
    return data


PONG = {"name": "PongNoFrameskip-v4", "frame_op": "concat", "frame_op_len": 4}
CONV = {"type": "ConvNet", "conv_hid_layers": [[8, 8, 4, 0, 1]]}
RNN = {"type": "RecurrentNet", "rnn_hidden_size": 4, "seq_len": 4}
RULES = [
    # units and defaults that are kept
    (
        v4,
        {},
        {"lr_scheduler_spec": {"name": "StepLR", "step_size": 500}},
        {},
        "agent.net.lr_scheduler_spec.step_size",
        500,
    ),
    (
        v5,
        {},
        {"lr_scheduler_spec": {"name": "StepLR", "step_size": 500}},
        {"num_envs": 4},
        "agent.net.lr_scheduler_spec.step_size",
        2000,
    ),
    (
        v5,
        {"training_frequency": 8},
        {"lr_scheduler_spec": {"name": "MultiStepLR", "milestones": [10, 20]}},
        {},
        "agent.net.lr_scheduler_spec.milestones",
        [80, 160],
    ),
    (
        v5,
        {},
        {"lr_scheduler_spec": {"name": "LinearToZero", "frame": 500}},
        {"num_envs": 4},
        "agent.net.lr_scheduler_spec.frame",
        500,
    ),
    (
        v5,
        {"training_frequency": 2},
        {"actor_lr_scheduler_spec": {"name": "ExponentialLR", "gamma": 0.25}},
        {},
        "agent.net.actor_lr_scheduler_spec.gamma",
        0.5,
    ),
    (v4, {}, {"update_type": "polyak", "update_frequency": 32}, {}, "agent.net.update_frequency", 32),
    (v5, {}, {"update_type": "polyak", "update_frequency": 32}, {}, "agent.net.update_frequency", 1),
    (v5, {}, {"update_type": "replace", "update_frequency": 32}, {}, "agent.net.update_frequency", 32),
    (v4, {}, {"gpu": True}, {}, "agent.net.gpu", True),
    (v5, {}, {}, {}, "agent.net.gpu", NOTHING),
    (v5, {}, CONV, {}, "agent.net.normalize", False),
    (v5, {}, CONV, {}, "agent.net.batch_norm", True),
    (v5, {}, CONV | {"normalize": True, "batch_norm": False}, {}, "agent.net.normalize", True),
    (v5, {}, CONV | {"type": "DuelingConvNet"}, {}, "agent.net.batch_norm", NOTHING),
    (v5, {"name": "PPO", "time_horizon": 8}, {}, {"num_envs": 8}, "agent.algorithm.minibatch_size", 8),
    (v5, {"name": "PPO", "time_horizon": 8}, {}, {"num_envs": 3}, "agent.algorithm.minibatch_size", 6),
    (v4, {"name": "SoftActorCritic"}, {}, {}, "agent.algorithm.training_start_step", 4),
    (v5, {"name": "SoftActorCritic"}, {}, {}, "agent.algorithm.training_start_step", NOTHING),
    # as many updates as before: one training a vector step at most
    (v5, {"training_frequency": 4}, {}, {"num_envs": 16}, "agent.algorithm.training_frequency", 16),
    (v4, {"training_frequency": 4}, {}, {"num_envs": 16}, "agent.algorithm.training_frequency", 16),
    (v5, {"training_frequency": 4}, {}, {"num_envs": 3}, "agent.algorithm.training_frequency", 4),
    (v5, {"training_frequency": 4}, {}, {}, "agent.algorithm.training_frequency", 4),
    (v5, {"name": "SARSA"}, {}, {"num_envs": 4, "memory": "OnPolicyReplay"}, "agent.algorithm.training_frequency", 1),
    (v5, {"name": "SoftActorCritic"}, {}, {"num_envs": 4}, "agent.algorithm.training_iter", 4),
    (v5, {"name": "CrossQ", "training_iter": 1}, {}, {"num_envs": 4}, "agent.algorithm.training_iter", 1),
    (v5, {"name": "SoftActorCritic", "training_iter": None}, {}, {}, "agent.algorithm.training_iter", 1),
    # policies
    (
        v4,
        {"name": "ActorCritic"},
        {},
        {"name": "RoboschoolAnt-v1"},
        "agent.algorithm.action_pdtype",
        "MultivariateNormal",
    ),
    (
        v4,
        {"name": "ActorCritic"},
        {},
        {"name": "BipedalWalker-v2"},
        "agent.algorithm.action_pdtype",
        "MultivariateNormal",
    ),
    (
        v4,
        {"name": "ActorCritic"},
        {},
        {"name": "RoboschoolInvertedPendulum-v1"},
        "agent.algorithm.action_pdtype",
        NOTHING,
    ),
    (v5, {"name": "ActorCritic"}, {}, {"name": "Ant-v5"}, "agent.algorithm.action_pdtype", NOTHING),
    (
        v5,
        {"action_policy": "boltzmann", "action_pdtype": "Argmax"},
        {},
        {},
        "agent.algorithm.action_pdtype",
        "Categorical",
    ),
    (v5, {"action_pdtype": "GumbelSoftmax"}, {}, {}, "agent.algorithm.action_pdtype", NOTHING),
    (v5, {"name": "PPO", "action_policy": "epsilon_greedy"}, {}, {}, "agent.algorithm.action_policy", "default"),
    (v5, {"name": "PPO", "action_pdtype": "NormalTanh"}, {}, {}, "agent.algorithm.action_pdtype", "Normal"),
    (v5, {"action_policy": "multi_epsilon_greedy"}, {}, {}, "agent.algorithm.action_policy", "epsilon_greedy"),
    (v5, {"name": "DQNBase"}, {}, {}, "agent.algorithm.name", "DQN"),
    # optimizers
    (v4, {}, {"optim_spec": {"name": "RAdam", "lr": 1}}, {}, "agent.net.optim_spec.name", "AdamW"),
    (v5, {}, {"optim_spec": {"name": "RAdam", "lr": 1}}, {}, "agent.net.optim_spec.name", "RAdam"),
    (v5, {}, {"actor_optim_spec": {"name": "GlobalAdam", "lr": 1}}, {}, "agent.net.actor_optim_spec.name", "Adam"),
    (v5, {}, {"critic_optim_spec": {"name": "GlobalRMSprop"}}, {}, "agent.net.critic_optim_spec.name", "RMSprop"),
    # sessions that learn together
    (v4, {"name": "SARSA"}, {"gpu": True}, {"distributed": "synced"}, "agent.net.gpu", "auto"),
    (v4, {"name": "DQN"}, {}, {"distributed": "shared"}, "meta.distributed", False),
    (v4, {"name": "DQN"}, {}, {"distributed": "shared"}, "meta.max_session", 1),
    (v5, {"name": "PPO"}, {}, {"distributed": "shared"}, "meta.distributed", "shared"),
    # recurrent nets
    (v5, {"name": "PPO", "time_horizon": 15}, RNN, {}, "agent.net.type", "RecurrentNet"),
    (v5, {"name": "PPO", "time_horizon": 15}, RNN, {"memory": "OnPolicyBatchReplay"}, "agent.net.seq_len", 3),
    (v5, {"name": "PPO", "time_horizon": 16}, RNN, {"memory": "OnPolicyBatchReplay"}, "agent.net.seq_len", 4),
    (v4, {"name": "SIL"}, RNN, {}, "agent.net.type", "RecurrentWindowNet"),
    (v4, {}, RNN, {"frame_op": "concat", "frame_op_len": 2}, "env.frame_op", "stack"),
    (v4, {}, RNN, {"frame_op": "concat", "frame_op_len": 2}, "env.frame_op_len", 4),
    # envs
    (v4, {}, {}, {"name": "CartPole-v0"}, "env.name", "CartPole-v1"),
    (v4, {}, {}, {"name": "CartPole-v0"}, "env.max_t", 200),
    (v4, {}, {}, {"name": "CartPole-v0", "max_t": 20}, "env.max_t", 20),
    (v4, {}, {}, {"max_t": 20}, "env.max_t", 20),
    (v4, {}, {}, {"max_t": 20, "num_envs": 2}, "env.max_t", NOTHING),
    (v5, {}, {}, {"max_t": 20}, "env.max_t", NOTHING),
    (v5, {}, {}, {"max_t": None}, "env.max_t", None),
    (v4, {}, CONV, PONG, "env.name", "ALE/Pong-v5"),
    (v4, {}, CONV, PONG, "env.frame_op", NOTHING),
    (v4, {}, CONV, PONG, "env.stack_num", NOTHING),
    (v4, {}, CONV, PONG | {"frame_op_len": 2}, "env.stack_num", 2),
    (v4, {}, CONV, PONG, "env.clip_reward", False),
    (v4, {}, CONV, PONG | {"reward_scale": "sign"}, "env.clip_reward", NOTHING),
    (v4, {}, CONV, PONG | {"reward_scale": "sign"}, "env.reward_scale", NOTHING),
    (v4, {}, CONV, PONG | {"reward_scale": 10}, "env.reward_scale", 10),
    (v4, {}, CONV, PONG, "env.repeat_action_probability", 0),
    (v4, {}, CONV, PONG | {"name": "VideoPinball-v0"}, "env.repeat_action_probability", NOTHING),
    (v4, {}, CONV, PONG | {"name": "${env}"}, "env.life_loss_info", True),
    (v4, {}, {}, {"frame_op": "stack", "frame_op_len": 3}, "env.frame_op_len", 3),
    (v4, {}, {}, {"frame_op": "stack", "frame_op_len": None}, "env.frame_op", NOTHING),
    (v4, {}, {}, {"reward_scale": "sign"}, "env.reward_scale", "sign"),
    (v4, {}, {}, {"normalize_state": True}, "env.normalize_obs", True),
    (v5, {}, {}, {"reward_scale": 10}, "env.reward_scale", 10),
    (v5, {}, {}, {"name": "playground/CartpoleBalance", "device": "auto"}, "env.name", "playground/CartpoleBalance"),
]


@pytest.mark.parametrize(("version", "algorithm", "net", "env", "path", "expected"), RULES)
def test_rules(version: Any, algorithm: Any, net: Any, env: Any, path: str, expected: Any) -> None:
    assert at(migrate(version(algorithm, net, env)).spec, path) == expected


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (v5({"name": "HydraDQN"}), "agent.algorithm.name: HydraDQN no longer exists"),
        (v5({}, {"type": "HydraMLPNet"}), "agent.net.type: HydraMLPNet no longer exists"),
        (v5({}, {"arc_file": "a.yaml"}), "agent.net.arc_file: not supported, put the content of that file under 'arc'"),
        (v4({}, {}, {"name": "RoboschoolHumanoidFlagrunHarder-v1"}), "gymnasium has no such robot"),
        (v4({}, {}, {"name": "gridworld"}), "env.name: 'gridworld': Unity's envs need the package mlagents-envs"),
        (v4({}) | {"agent": []}, "agent: 0 agents in one spec"),
    ],
)
def test_what_no_longer_exists_is_said_in_one_line(raw: Any, why: str) -> None:
    checked = check(raw, "x")
    assert len(checked.faults) == 1
    assert why in checked.faults[0]


def test_a_key_that_no_version_had_is_an_error() -> None:
    for version in (v4, v5):
        checked = check(version({"gama": 0.9}), "x")
        assert checked.faults == ["agent.algorithm.gama: unknown key, did you mean 'gamma'? (got 0.9)"]


def test_in_the_present_format_what_no_class_reads_is_an_error() -> None:
    raw = v5({"lam": 0.9})
    assert check(raw, "x").faults == []
    raw["meta"]["version"] = 6
    assert check(raw, "x").faults[0].startswith("agent.algorithm.lam: unknown key")


def test_a_spec_that_needs_no_change_stays_as_it_is() -> None:
    raw = v5({})
    assert migrate(raw).spec is raw
    assert migrate(raw).notes == []


@pytest.mark.parametrize("flat", [True, False])
def test_searched_frequencies_keep_their_number_of_updates(flat: bool) -> None:
    raw = v5({"name": "SoftActorCritic"}, env={"num_envs": 8})
    choices = {"training_frequency__choice": [1, 4, 16], "gamma__uniform": [0.9, 0.99]}
    prefix = "agent.algorithm."
    raw["search"] = {prefix + k: v for k, v in choices.items()} if flat else {"agent": {"algorithm": choices}}
    migrated = migrate(raw)
    space = migrated.spec["search"]
    assert (
        space[f"{prefix}training_frequency__choice"] if flat else at(space, f"{prefix}training_frequency__choice")
    ) == [8, 8, 16]
    assert sum("search.agent.algorithm.training_frequency" in note for note in migrated.notes) == 1


def test_loading_tells_once(tmp_path: Path, notes: list[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"x": v4({})}))
    for _ in range(2):
        assert load_spec(path).env.name == "Acrobot-v1"
    assert len(notes) == 1
    head, *lines = notes[0].splitlines()
    assert head == f"{path}: x: of an older version; runs with these changes ('slm-lab migrate' writes them):"
    assert "  agent and env: an object, in place of a list of one" in lines


def test_sets_reach_into_lists(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"x": v4({}, env={"name": "${env}"})}))
    spec = load_spec(path, sets={"env": "CartPole-v0", "agent.algorithm.gamma": "0.5"})
    assert (spec.name, spec.env.name, spec.env.max_t, spec.agent.algorithm.gamma) == (
        "x_cartpole",
        "CartPole-v1",
        200,
        0.5,
    )


def test_sweep() -> None:
    raw = v4({}, env={"name": "${env}"}) | {"spec_params": {"env": ["CartPole-v0", "Acrobot-v1"], "unused": ["a"]}}
    assert [spec.name for spec in load_specs({"x": raw}, "x")] == ["x_CartPole-v0", "x_Acrobot-v1"]
    assert load_spec({"x": raw}, "x_Acrobot-v1").env.name == "Acrobot-v1"
    assert [spec.name for spec in load_specs({"x": raw}, "x", sets={"env": "Acrobot-v1"})] == ["x_acrobot"]
    with pytest.raises(SpecError, match=r"stands for 2 specs \(spec_params\): name one of x_CartPole-v0, x_Acrobot-v1"):
        load_spec({"x": raw}, "x")


def test_keys_given_twice_are_let_pass_in_version_4_alone(tmp_path: Path) -> None:
    text = json.dumps({"x": v4({})})
    path = tmp_path / "x.json"
    path.write_text(text.replace('"gpu"', '"gpu": true, "gpu"'))
    file = open_file(path)
    assert file.specs == {"x": v4({})}
    assert file.notes == {"x": ["line 1: key 'gpu' is given twice: the last one counts"]}
    path.write_text(json.dumps({"x": v5({})}).replace('"type"', '"type": "A", "type"'))
    with pytest.raises(SpecError, match="line 1: key 'type' is given twice"):
        open_file(path)


def test_what_a_run_of_old_wrote_is_left_out_but_a_seed_of_its_own_stays() -> None:
    raw = v5({})
    raw["meta"]["random_seed"] = 5
    assert migrate(raw).spec["meta"]["random_seed"] == 5
    raw["meta"]["git_sha"] = "abc"
    assert "random_seed" not in migrate(raw).spec["meta"]
