"""`slm-lab migrate`, and what `slm-lab validate` says of specs of older versions."""

import json
from pathlib import Path
from typing import Any

import pytest

from slm_lab.experiment.trial.check import without_idle

OLD = Path(__file__).resolve().parent.parent / "golden" / "old"
YAML = """\
# a study
_net: &net
  type: MLPNet
  hid_layers: [8]  # small
  normalize: true
  optim_spec: {name: GlobalAdam, lr: 3e-4}

# the first
one:
  agent: &agent
    name: DQN
    algorithm:
      name: DoubleDQN
      clip_val_loss: false
      gamma: 0.9   # discount
      training_frequency: 1
    memory: {name: Replay, batch_size: 4, max_size: 1e3}
    net:
      <<: *net
      hid_layers: [16]
  env: {name: CartPole-v0, max_frame: "${frames}"}  # 200 steps
  meta: &meta
    distributed: false   # not here
    max_session: 1
    max_trial: 1
two:
  agent: *agent
  env: {name: Acrobot-v1, max_frame: 100}
  meta: *meta
"""
NEW = """\
# a study
_net: &net
  type: MLPNet
  hid_layers: [8]  # small
  normalize: true
  optim_spec: {name: GlobalAdam, lr: 3e-4}

# the first
one:
  agent:
    name: DQN
    algorithm:
      name: DoubleDQN
      gamma: 0.9   # discount
      training_frequency: 1
    memory: {name: Replay, batch_size: 4, max_size: 1e3}
    net:
      hid_layers: [16]
      type: MLPNet
      optim_spec: {name: Adam, lr: 3e-4}
  env: {name: CartPole-v1, max_frame: "${frames}", max_t: 200} # 200 steps
  meta:
    distributed: false   # not here
    max_session: 1
    max_trial: 1
    version: 6
two:
  agent:
    name: DQN
    algorithm:
      name: DoubleDQN
      gamma: 0.9   # discount
      training_frequency: 1
    memory: {name: Replay, batch_size: 4, max_size: 1e3}
    net:
      hid_layers: [16]
      type: MLPNet
      optim_spec: {name: Adam, lr: 3e-4}
  env: {name: Acrobot-v1, max_frame: 100}
  meta:
    distributed: false   # not here
    max_session: 1
    max_trial: 1
    version: 6
"""


@pytest.mark.parametrize("old", ["old.yaml", "old.YML"])
def test_yaml_keeps_its_comments(slm: Any, folder: Path, old: str) -> None:
    (folder / old).write_text(YAML)
    done = slm("migrate", old, "-o", "new.yaml")
    assert done.exit_code == 0
    assert (folder / "new.yaml").read_text().splitlines() == NEW.splitlines()
    assert f"note: {old}: one: agent.net.optim_spec.name: GlobalAdam is Adam\n" in done.stderr
    [one, two] = json.loads(slm("validate", "--json", "new.yaml").stdout)
    assert (one["status"], one["notes"]) == ("runs", ["needs -s frames=..."])
    assert (two["status"], two["notes"]) == ("runs", [])


def test_json(slm: Any, folder: Path) -> None:
    done = slm("migrate", str(OLD / "v4_dqn.json"))
    specs = json.loads(done.stdout)
    expected = json.loads((OLD.parent / "migrated" / "v4_dqn.json").read_text())
    assert specs == {name: without_idle(expected[name]["spec"], name)[0] for name in expected if name != "notes"}
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert "key 'lr_scheduler_spec' is given twice: the last one counts\n" in done.stderr
    assert "ddqn_per_atari: spec_params: one spec for each of its 2 combinations\n" in done.stderr


def test_a_folder_and_what_is_gone(slm: Any, folder: Path) -> None:
    (folder / "old" / "deep").mkdir(parents=True)
    for name in ("v4_gone.json", "v5.json"):
        (folder / "old" / "deep" / name).write_text((OLD / name).read_text())
    done = slm("migrate", "old", "-o", "new")
    assert done.exit_code == 2
    assert json.loads((folder / "new" / "deep" / "v4_gone.json").read_text()) == {}
    assert "ppo_playground" not in json.loads((folder / "new" / "deep" / "v5.json").read_text())
    line = "left out: old/deep/v4_gone.json: hydra_dqn: agent.algorithm.name: HydraDQN no longer exists\n"
    assert line in done.stderr


def test_a_bare_spec(slm: Any, folder: Path) -> None:
    raw = json.loads((OLD / "v5.json").read_text())["ppo_saved_by_a_run"]
    (folder / "ppo_t0_spec.json").write_text(json.dumps({"$schema": "x", **raw}))
    made = json.loads(slm("migrate", "ppo_t0_spec.json").stdout)
    assert made["$schema"] == "x"
    assert made["meta"]["version"] == 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing.json"], "error: nothing.json\n  no such spec file\n"),
        (["."], "error: -o: a folder of spec files needs a folder to write to\n"),
        ([".", "-o", "new"], "error: .: no spec file in this folder\n"),
        (["a.yml", "-o", "b.json"], "error: b.json: a.yml is YAML, and is written as YAML\n"),
    ],
)
def test_misuse(slm: Any, folder: Path, args: list[str], message: str) -> None:
    if args[0] == "a.yml":
        (folder / "a.yml").write_text(YAML)
    done = slm("migrate", *args)
    assert done.exit_code == 2
    assert done.stderr.endswith(message)


def test_validate(slm: Any) -> None:
    done = slm("validate", "--json", str(OLD / "v4_gone.json"), str(OLD / "v5.json"))
    verdicts = {v["spec"]: (v["status"], v["notes"]) for v in json.loads(done.stdout)}
    status, notes = verdicts["a2c_as_it_is"]
    assert status == "runs"
    assert "meta.eval_frequency: left out: it has no effect here" in notes
    assert verdicts["hydra_dqn"] == ("cannot run", ["agent.algorithm.name: HydraDQN no longer exists"])
    gone = ["agent.net.lr_scheduler_spec.name: LinearToMin was never part of SLM-Lab"]
    assert verdicts["ppo_playground"] == ("cannot run", gone)
    status, notes = verdicts["sac_discrete"]
    assert status == "runs after migration"
    assert notes[0].startswith("agent.algorithm.name: discrete SoftActorCritic takes the smaller of its critics")
    assert done.exit_code == 2


def test_validate_names_the_specs_of_a_sweep(slm: Any) -> None:
    done = slm("validate", "--json", str(OLD / "v4_policy_gradient.json"))
    assert done.exit_code == 0
    notes = {v["spec"]: v["notes"] for v in json.loads(done.stdout)}["ppo_roboschool"]
    assert notes[0] == (
        "spec_params: stands for 3 specs: ppo_roboschool_RoboschoolAnt-v1, "
        "ppo_roboschool_RoboschoolHopper-v1, ppo_roboschool_RoboschoolInvertedPendulum-v1"
    )


def test_an_old_spec_runs_and_tells(slm: Any, folder: Path) -> None:
    raw = json.loads((OLD / "v4_policy_gradient.json").read_text())["random_cartpole"]
    raw["env"][0] |= {"name": "${env}", "max_frame": 40}
    (folder / "x.json").write_text(json.dumps({"x": raw | {"spec_params": {"env": ["CartPole-v0", "Acrobot-v1"]}}}))
    done = slm("x.json", "x", "dev")
    assert done.exit_code == 0
    runs = sorted(path.name for path in (folder / "data").iterdir())
    assert [name.startswith(f"x_{env}_") for name, env in zip(runs, ("Acrobot-v1", "CartPole-v0"), strict=True)] == [
        True
    ] * 2
    assert done.stderr.count("of an older version; runs with these changes") == 2
    assert "env.name: 'CartPole-v0' is now 'CartPole-v1'" in done.stderr


def test_a_file_without_a_spec(slm: Any, folder: Path) -> None:
    (folder / "empty.json").write_text("{}", encoding="utf-8")
    done = slm("migrate", "empty.json")
    assert done.exit_code == 2
    assert "empty.json: holds no spec" in done.output
