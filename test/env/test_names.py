"""Ids of older gyms, and what is said where there is no such env."""

import sys

import gymnasium as gym
import pytest
from loguru import logger

from slm_lab.env.make import check_env, make_env
from slm_lab.env.names import RENAMED, find, note
from slm_lab.lib.errors import LabError
from slm_lab.spec.model import EnvSpec


@pytest.fixture
def notes():
    note.cache_clear()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_ids_are_renamed_with_one_note(notes, old, new):
    for _ in range(2):
        assert find(old).id == new
    assert notes == [f"env.name: '{old}' is now '{new}'"]
    assert check_env(EnvSpec(name=old, max_frame=1)) == []


def test_a_variant_that_this_gymnasium_lacks(notes, monkeypatch):
    monkeypatch.delitem(gym.registry, "LunarLanderContinuous-v3")
    for old in ("LunarLanderContinuous-v2", "LunarLanderContinuous-v3"):
        found = find(old)
        assert (found.id, found.kwargs) == ("LunarLander-v3", {"continuous": True})
    assert notes[0] == "env.name: 'LunarLanderContinuous-v2' is now 'LunarLander-v3', continuous=True"
    env = make_env(EnvSpec(name="LunarLanderContinuous-v2", max_frame=1))
    assert env.info.action.dim == 2
    assert env.info.name == "LunarLander-v3"


def test_without_a_version_the_newest_is_taken(notes):
    assert find("CartPole").id == "CartPole-v1"
    assert notes == ["env.name: 'CartPole' is now 'CartPole-v1'"]


def test_known_ids_need_no_note(notes):
    assert find("CartPole-v1").id == "CartPole-v1"
    assert notes == []


def test_module_and_id(tmp_path, monkeypatch):
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "gymnasium.register('Mine-v0', PendulumEnv, max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert make_env(EnvSpec(name="my_envs:Mine-v0", max_frame=1)).info.max_t == 7
        # known from now on, by its plain id also
        assert find("Mine-v0").id == "Mine-v0"
    finally:
        gym.registry.pop("Mine-v0", None)
        sys.modules.pop("my_envs", None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CartPol-v1", "env.name: unknown env 'CartPol-v1', did you mean 'CartPole-v1'?"),
        ("Xyzzy-v9", "env.name: unknown env 'Xyzzy-v9' (an env of another package is named 'module:Xyzzy-v9')"),
        ("UnityHallway-v0", "env.name: unknown env 'UnityHallway-v0': Unity ML-Agents envs are not supported any more"),
        ("vizdoom-v0", "env.name: unknown env 'vizdoom-v0': VizDoom envs are not supported any more"),
        (
            "PongNoFrameskip-v4",
            "env.name: unknown env 'PongNoFrameskip-v4': Atari envs come with the package ale-py, as ALE/<Game>-v5",
        ),
        (
            "no_such_module:A-v0",
            "env.name: can't import 'no_such_module' of 'no_such_module:A-v0': No module named 'no_such_module'",
        ),
    ],
)
def test_unknown(name, text):
    with pytest.raises(LabError) as e:
        find(name)
    assert str(e.value) == text
    assert check_env(EnvSpec(name=name, max_frame=1)) == [text]
