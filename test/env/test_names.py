"""Ids of older gyms, and what is said where there is no such env."""

import sys

import gymnasium as gym
import pytest
from loguru import logger

from slm_lab.env.check import check_env
from slm_lab.env.make import make_env
from slm_lab.env.names import find
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import renew_notes
from slm_lab.lib.registry import import_plugins
from slm_lab.spec.model import EnvSpec
from slm_lab.spec.past.envs import MUJOCO


@pytest.fixture
def notes():
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}")
    yield lines
    logger.remove(sink)


BODY = "; the robot and the reward differ: scores can't be compared"
CHANGED = "; rewards and observations changed a little"
STICKY = "; actions now stick with probability 0.25, unless env.repeat_action_probability says otherwise"
OLD = [
    ("CartPole-v0", "CartPole-v1", "; an episode may last 500 steps, not 200"),
    ("Acrobot-v0", "Acrobot-v1", ""),
    ("Pendulum-v0", "Pendulum-v1", ""),
    ("LunarLander-v2", "LunarLander-v3", ""),
    ("LunarLanderContinuous-v2", "LunarLanderContinuous-v3", ""),
    ("BipedalWalker-v2", "BipedalWalker-v3", ""),
    ("BipedalWalkerHardcore-v2", "BipedalWalkerHardcore-v3", ""),
    ("CarRacing-v0", "CarRacing-v3", ""),
    *((f"{task}-v{v}", f"{task}-v5", CHANGED) for task in ("Hopper", "Reacher") for v in (2, 3, 4)),
    ("RoboschoolHopper-v1", "Hopper-v5", BODY),
    ("RoboschoolHumanoid-v1", "Humanoid-v5", BODY),
    ("RoboschoolInvertedDoublePendulum-v1", "InvertedDoublePendulum-v5", BODY),
    ("RoboschoolReacher-v1", "Reacher-v5", BODY),
    ("HalfCheetahBulletEnv-v0", "HalfCheetah-v5", BODY),
    ("Walker2DBulletEnv-v0", "Walker2d-v5", BODY),
    ("AntPyBulletEnv-v0", "Ant-v5", BODY),
    ("PongNoFrameskip-v4", "ALE/Pong-v5", STICKY),
    ("PongDeterministic-v4", "ALE/Pong-v5", STICKY),
    ("Pong-v4", "ALE/Pong-v5", f"; 4 frames are skipped, instead of 2 to 5 at random{STICKY}"),
    ("PongNoFrameskip-v0", "ALE/Pong-v5", ""),
    ("PongDeterministic-v0", "ALE/Pong-v5", ""),
    ("Pong-v0", "ALE/Pong-v5", "; 4 frames are skipped, instead of 2 to 5 at random"),
    ("VideoPinball-v0", "ALE/VideoPinball-v5", "; 4 frames are skipped, instead of 2 to 5 at random"),
    ("ALE/Pong", "ALE/Pong-v5", ""),
    # gymnasium has a card game of that name
    ("Blackjack-v0", "Blackjack-v1", ""),
]


@pytest.mark.parametrize(("old", "new", "remark"), OLD)
def test_old_ids_are_renamed_with_one_note(notes, old, new, remark):
    for _ in range(2):
        assert find(old).id == new
    assert notes == [f"env.name: '{old}' is now '{new}'{remark}"]
    assert check_env(EnvSpec(name=old, max_frame=1)) == []


def test_atari_ids_are_old_whether_or_not_ale_has_been_imported(notes):
    for _ in range(2):
        assert find("BreakoutNoFrameskip-v4").id == "ALE/Breakout-v5"
        assert find("Breakout-v0").id == "ALE/Breakout-v5"
        find("ALE/Breakout-v5")
    assert len(notes) == 2


def test_old_ids_of_games_are_old_behind_their_module_too(notes):
    assert find("ale_py:PongNoFrameskip-v4").id == "ALE/Pong-v5"
    assert notes == [f"env.name: 'PongNoFrameskip-v4' is now 'ALE/Pong-v5'{STICKY}"]


def test_all_mujoco_tasks_of_gymnasium_are_known():
    tasks = [r.id for r in gym.registry.values() if str(r.entry_point).startswith("gymnasium.envs.mujoco.")]
    assert sorted({i for i in tasks if i.endswith("-v5")}) == sorted(f"{task}-v5" for task in MUJOCO)
    for i in tasks:
        assert find(i).id == f"{i.split('-')[0]}-v5"


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
        (
            "Xyzzy-v9",
            "env.name: unknown env 'Xyzzy-v9' (install the package it comes with, and name it 'module:Xyzzy-v9')",
        ),
        (
            "UnityHallway-v0",
            (
                "env.name: unknown env 'UnityHallway-v0': Unity's envs need the package mlagents-envs, and a module of "
                "yours that registers them with gymnasium"
            ),
        ),
        (
            "vizdoom-v0",
            (
                "env.name: unknown env 'vizdoom-v0': VizDoom's envs come with the package vizdoom: install it, and "
                "name them as 'vizdoom.gymnasium_wrapper:VizdoomBasic-v1'"
            ),
        ),
        (
            "MiniGrid-Empty-5x5-v0",
            (
                "env.name: unknown env 'MiniGrid-Empty-5x5-v0': it comes with the package minigrid: install it, and "
                "name the env 'minigrid:MiniGrid-Empty-5x5-v0'"
            ),
        ),
        (
            "RoboschoolPong-v1",
            (
                "env.name: unknown env 'RoboschoolPong-v1': Roboschool is no longer maintained; gymnasium has MuJoCo "
                "envs, e.g. HalfCheetah-v5"
            ),
        ),
        ("Pong-v5", "env.name: unknown env 'Pong-v5', did you mean 'ALE/Pong-v5'?"),
        ("ALE/Ponk-v5", "env.name: unknown env 'ALE/Ponk-v5', did you mean 'ALE/Pong-v5'?"),
        (
            "no_such_module:A-v0",
            (
                "env.name: 'no_such_module:A-v0': can't import 'no_such_module': No module named "
                "'no_such_module' (install the package that it comes with)"
            ),
        ),
    ],
)
def test_unknown(name, text):
    with pytest.raises(LabError) as e:
        find(name)
    assert str(e.value) == text
    assert check_env(EnvSpec(name=name, max_frame=1)) == [text]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("x = 1\nraise ValueError('no\\nlicence')", "ValueError: no licence (FILE, line 2)"),
        ("def f(:", "SyntaxError: invalid syntax (broken_module.py, line 1)"),
        ("import sys; sys.exit(3)", "SystemExit: 3 (FILE, line 1)"),
        ("import no_such_package", "No module named 'no_such_package'"),
    ],
)
def test_a_module_that_can_not_be_imported(tmp_path, monkeypatch, code, text):
    file = tmp_path / "broken_module.py"
    file.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    why = f"can't import 'broken_module': {text.replace('FILE', str(file))}"
    with pytest.raises(LabError) as e:
        find("broken_module:A-v0")
    assert str(e.value) == f"env.name: 'broken_module:A-v0': {why}"
    with pytest.raises(LabError) as e:
        import_plugins(["broken_module"])
    assert str(e.value) == f"meta.plugins: {why}"


def test_atari_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(LabError, match="Atari envs come with the package ale-py, which can't be imported"):
        find("ALE/Pong-v5")
    # other names still work
    assert find("CartPole-v1").id == "CartPole-v1"


def test_plugins_register_envs(tmp_path, monkeypatch):
    (tmp_path / "a_plugin.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        # looks like an old Atari id, and is none
        "gymnasium.register('Plugged-v4', PendulumEnv, max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        import_plugins(["a_plugin"])
        assert make_env(EnvSpec(name="Plugged-v4", max_frame=1)).info.max_t == 9
    finally:
        gym.registry.pop("Plugged-v4", None)
        sys.modules.pop("a_plugin", None)
