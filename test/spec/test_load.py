"""From a path and a name to a checked spec."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_lab.lib.errors import SpecError
from slm_lab.spec import files
from slm_lab.spec.files import bundled_files, find_file, spec_files
from slm_lab.spec.load import check, load_spec, read_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; beside it the folder that holds the bundled specs."""
    bundled = tmp_path / "bundled"
    for name in ("ppo/ppo_hill.json", "ppo/ppo_dune.yaml", "a2c/a2c_hill.json", "a2c/twin.json", "sac/twin.json"):
        path = bundled / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    monkeypatch.setattr(files, "bundled_folder", lambda: bundled)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def save(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("ppo/ppo_hill.json", "ppo/ppo_hill.json"),
        ("./ppo/ppo_hill.json", "ppo/ppo_hill.json"),
        ("ppo/ppo_hill", "ppo/ppo_hill.json"),
        ("ppo/ppo_dune", "ppo/ppo_dune.yaml"),
        ("ppo_hill.json", "ppo/ppo_hill.json"),
        ("ppo_hill", "ppo/ppo_hill.json"),
        ("specs/ppo/ppo_hill.json", "ppo/ppo_hill.json"),
        ("slm_lab/spec/ppo/ppo_hill.json", "ppo/ppo_hill.json"),
        ("slm_lab/spec/benchmark/ppo/ppo_hill.json", "ppo/ppo_hill.json"),
    ],
)
def test_bundled(folder: Path, given: str, found: str) -> None:
    assert find_file(given) == folder.parent / "bundled" / found


def test_own_files_come_first(folder: Path) -> None:
    own = save(folder / "ppo_hill.json", {})
    assert find_file("ppo_hill.json").resolve() == own
    assert find_file(own) == own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ppo/ppo_hil.json", "no such spec file, did you mean 'ppo/ppo_hill.json'?"),
        ("elsewhere/ppo_hill.json", "no such spec file, did you mean 'ppo/ppo_hill.json'?"),
        ("mine.jsn", "no such spec file, did you mean 'mine.json'?"),
        ("zzz.json", "no such spec file"),
        ("twin.json", "more than one bundled spec file is called so: a2c/twin.json, sac/twin.json"),
        ("../bundled/../bundled", "is a folder, must be a spec file"),
        ("ppo/../../secret.json", "no such spec file"),
        ("x" * 300 + ".json", "no such spec file"),
        ("a\0b.json", "no such spec file"),
    ],
)
def test_missing_files(folder: Path, given: str, message: str) -> None:
    save(folder / "mine.json", {})
    save(folder.parent / "secret.json", {})
    with pytest.raises(SpecError) as caught:
        find_file(given)
    assert caught.value.faults == [message]


def test_the_bundled_specs_are_found() -> None:
    assert any(path.name == "ppo_cartpole.json" for path in bundled_files())
    assert find_file("ppo/ppo_cartpole.json") in bundled_files()


def test_spec_files_are_those_that_hold_specs(tmp_path: Path) -> None:
    for name in ("a.json", "b.yaml", "_data.json", ".hidden.json", "schema.json", "c.txt"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in spec_files(tmp_path)] == ["a.json", "b.yaml"]


def test_read_file(tmp_path: Path) -> None:
    path = save(tmp_path / "x.json", {"$schema": "s", "_a": 1, "one": {}, "two": {"agent": 1}})
    assert read_file(path) == {"one": {}, "two": {"agent": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "is empty"),
        ("[]", "must hold an object: spec names and their specs"),
        ('{"a": 1, "b": {}}', "a: must be a spec, an object with agent, env and meta"),
    ],
)
def test_what_a_file_must_hold(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SpecError) as caught:
        read_file(tmp_path / "x.json")
    assert caught.value.faults == [message]


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "residual.py").write_text("import torch\n")
    (tmp_path / "residual.txt").write_text("{,}")
    with pytest.raises(SpecError) as caught:
        read_file(tmp_path / "residual.py")
    assert caught.value.faults == ["neither JSON nor YAML; spec files end in .json, .yaml, .yml"]
    with pytest.raises(SpecError, match=r"residual.txt:1:2\n"):
        read_file(tmp_path / "residual.txt")


@pytest.mark.parametrize(
    ("key", "end"),
    [
        ("num_envs", "env.max_frame), did you mean '-s env.num_envs=...'?"),
        ("clip_vloss", "env.max_frame), did you mean '-s agent.algorithm.clip_vloss=...'?"),
        ("nothing", "env.max_frame)"),
    ],
)
def test_a_key_without_its_path(raw: dict[str, Any], key: str, end: str) -> None:
    """Also one that the spec leaves to its default."""
    [fault] = check(raw, "climb", sets={key: "1"}).faults
    assert fault.endswith(end)


def test_a_plugin_that_fails_is_the_only_fault(raw: dict[str, Any]) -> None:
    raw["meta"]["plugins"] = ["no_such_module_anywhere"]
    raw["agent"]["net"]["type"] = "Tent"
    assert len(check(raw, "climb").faults) == 1
    raw["agent"]["net"]["type"] = "Boots"
    assert "did you mean 'Boot'?" in check(raw, "climb").faults[1]


def test_load_from_a_dict(raw: dict[str, Any]) -> None:
    assert load_spec({"climb": raw}).name == "climb"
    assert load_spec({**raw, "name": "mine"}).name == "mine"
    assert load_spec({"climb": raw, "other": {}}, "climb") == load_spec({"climb": raw})


def test_json_and_yaml_say_the_same(raw: dict[str, Any], tmp_path: Path) -> None:
    save(tmp_path / "x.json", {"climb": raw})
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"climb": raw}))
    assert load_spec(tmp_path / "x.json") == load_spec(tmp_path / "x.yaml")


def test_yaml_switches(raw: dict[str, Any], tmp_path: Path) -> None:
    """YAML reads on and off as true and false; meta.compile takes both for what they were meant to be."""
    raw["meta"]["compile"] = "COMPILE"
    for word in ("on", "off", "auto"):
        (tmp_path / "x.yaml").write_text(yaml.safe_dump({"climb": raw}).replace("COMPILE", word))
        assert load_spec(tmp_path / "x.yaml").meta.compile == word


def test_saved_spec(raw: dict[str, Any], tmp_path: Path) -> None:
    """The copy in a run folder is one bare spec with its name."""
    spec = load_spec({"climb": raw})
    path = save(tmp_path / "climb_t0_spec.json", spec.to_dict())
    assert load_spec(path) == spec
    assert load_spec(path, "climb") == spec
    with pytest.raises(SpecError, match="no spec 'clim', did you mean 'climb'"):
        load_spec(path, "clim")


def test_names(raw: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec({"climb": raw, "rest": raw}, "clim")
    assert str(caught.value) == "spec\n  no spec 'clim', did you mean 'climb'? (in this file: climb, rest)"
    with pytest.raises(SpecError) as caught:
        load_spec({"climb": raw, "rest": raw})
    assert str(caught.value) == "spec\n  which of the specs? climb, rest"


def test_variables(raw: dict[str, Any]) -> None:
    raw["env"] = {"name": "${env}", "max_frame": "${max_frame}", "id": "x-${env}"}
    spec = load_spec({"climb": raw}, sets={"env": "ALE/Pong-v5", "max_frame": "1e4", "meta.max_session": "3"})
    assert spec.name == "climb_pong"
    assert spec.env.name == "ALE/Pong-v5"
    assert spec.env.max_frame == 10_000
    assert spec.env.kwargs == {"id": "x-ALE/Pong-v5"}
    assert spec.meta.max_session == 3


def test_the_name_follows_the_variable_env_only(raw: dict[str, Any]) -> None:
    assert load_spec({"climb": raw}, sets={"env.name": "Acrobot-v1"}).name == "climb"


def test_all_faults_at_once(raw: dict[str, Any]) -> None:
    """Of -s, variables, plugins, the spec and the env."""
    raw["env"] = {"name": "${env}", "max_frame": "${frames}", "num_envs": 0}
    raw["meta"]["plugins"] = ["no_such_module_anywhere", "not-a-module"]
    raw["agent"]["algorithm"]["gamma"] = 2
    with pytest.raises(SpecError) as caught:
        load_spec({"climb": raw}, sets={"frams": "1", "frames": "0"}, checker=partial(check, check_env=lambda env: []))
    assert caught.value.source == "spec: climb"
    assert caught.value.faults == [
        "env.name: ${env} has no value, give it one with -s env=...",
        "-s frams: no ${frams} in this spec, did you mean 'frames'? (variables: env, frames)",
        "meta.plugins: can't import 'no_such_module_anywhere': No module named 'no_such_module_anywhere'",
        "agent.algorithm.gamma: must be at most 1 (got 2)",
        "env.num_envs: must be at least 1 (got 0)",
        "env.max_frame: must be at least 1 (got 0)",
        "meta.plugins[1]: must be the name of a Python module, such as my_package.my_module (got 'not-a-module')",
    ]


def test_faults_of_the_env_come_with_the_others(raw: dict[str, Any]) -> None:
    raw["agent"]["algorithm"]["gamma"] = 2
    with pytest.raises(SpecError) as caught:
        load_spec(
            {"climb": raw}, checker=partial(check, check_env=lambda env: [f"env.name: never heard of {env.name}"])
        )
    assert caught.value.faults == [
        "agent.algorithm.gamma: must be at most 1 (got 2)",
        "env.name: never heard of CartPole-v1",
    ]


def test_a_template_is_checked_but_for_its_variables(raw: dict[str, Any]) -> None:
    raw["agent"]["algorithm"]["name"] = "${who}"
    raw["agent"]["algorithm"]["lam"] = "${lam}"
    raw["env"]["max_frame"] = "${frames}"
    checked = check(raw, "climb")
    assert checked.spec is None
    assert checked.faults == []
    assert set(checked.open_variables) == {"who", "lam", "frames"}
    raw["env"]["num_envs"] = "many"
    assert check(raw, "climb").faults == ["env.num_envs: must be a whole number (got 'many')"]


def test_plugins_are_imported_first(raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugin_of_load.py").write_text(
        "from slm_lab.lib.registry import register\n"
        "from slm_lab.spec.model import MemorySpec\n"
        "@register('memory')\n"
        "class Rucksack:\n    Spec = MemorySpec\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    raw["meta"]["plugins"] = ["my_plugin_of_load"]
    raw["agent"]["memory"] = {"name": "Rucksack"}
    assert load_spec({"climb": raw}).agent.memory.name == "Rucksack"


def test_an_error_deep_in_a_library_is_placed_in_the_plugin(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plugin_without_a_type.py"
    file.write_text("from slm_lab.spec.model import MemorySpec\n\nclass Bag(MemorySpec):\n    pull = 0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    raw["meta"]["plugins"] = ["plugin_without_a_type"]
    [fault] = check(raw, "climb").faults
    assert fault.startswith("meta.plugins: can't import 'plugin_without_a_type': PydanticUserError: ")
    assert fault.endswith(f"({file}, line 3)")


def test_the_source_is_not_changed(raw: dict[str, Any]) -> None:
    before = json.dumps(raw)
    spec = load_spec({"climb": raw}, sets={"agent.algorithm.gamma": "0.5"})
    assert spec.agent.algorithm.gamma == 0.5
    assert json.dumps(raw) == before
