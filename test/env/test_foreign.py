"""Envs of other packages: found where a module registers them late, refused with words about that module alone."""

import sys

import gymnasium as gym
import pytest
from loguru import logger
from support.specs import TINY

from slm_lab.env.foreign import package_of
from slm_lab.env.make import make_env
from slm_lab.env.names import find
from slm_lab.env.workers import SharedRows
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import renew_notes
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import EnvSpec

ENV = """
import gymnasium as gym
import numpy as np

class Walk(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None, size=1.0):
        self.render_mode, self.size = render_mode, size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=1).astype(np.float32), {}

    def step(self, action):
        ended = bool(self.np_random.random() < 0.2)
        return self.np_random.normal(size=1).astype(np.float32), self.size, False, ended, {}
"""
BEGIN = "self.render_mode, self.size = render_mode, size"
PACKAGES = {
    # as minatar: only a function of a submodule registers
    "arcades/__init__.py": "",
    "arcades/gym.py": ENV + "\ndef register_envs():\n    gym.register('Arcades/Walk-v1', 'arcades.gym:Walk')\n",
    "arcades/needs.py": "import no_such_package, gymnasium\ngymnasium.register('x')\n",
    # as vizdoom: a submodule registers when it is imported
    "doomed/__init__.py": "",
    "doomed/wrapper/__init__.py": ENV + "\ngym.register('DoomedBasic-v1', 'doomed.wrapper:Walk')\n",
    # as bluesky_gym
    "birds.py": ENV + "\ndef register_envs():\n    gym.register('Birds-v0', 'birds:Walk')\n",
    # the class is of another package
    "lends.py": "import gymnasium as gym\ngym.register('Lent-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n",
    "fails.py": "def register_envs():\n    raise ValueError('no licence')\n",
    # nothing is registered, but there is a class, and a function that makes envs
    "plain.py": ENV + "\ndef make(**kwargs):\n    return Walk(**kwargs)\n",
    "early.py": "",
    "antique.py": "raise ModuleNotFoundError(\"No module named 'gym'\")\n",
    "window.py": ENV.replace("render_mode=None", "render_mode='human'"),
    "single.py": ENV.replace(
        "self.render_mode, self.size = render_mode, size",
        """self.render_mode, self.size = None, size
        if Walk.there:
            raise RuntimeError('Cannot create multiple emulator instances per process')
        Walk.there = True

    there = False

    def close(self):
        Walk.there = False
""",
    ),
    "fragile.py": ENV.replace(
        "self.render_mode, self.size = render_mode, size",
        """self.render_mode, self.size = None, size
        if len(Walk.made) == 2:
            raise RuntimeError('out of licences')
        Walk.made.append(self)

    made = []

    def close(self):
        Walk.made.remove(self)
""",
    ),
}


@pytest.fixture(autouse=True)
def packages(tmp_path, monkeypatch):
    for name, text in PACKAGES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before, modules = set(gym.registry), set(sys.modules)
    renew_notes()
    yield
    for new in set(gym.registry) - before:
        # ale_py registers its envs only when it is first imported
        if package_of(gym.registry[new]) != "ale_py":
            del gym.registry[new]
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in {p.partition("/")[0].removesuffix(".py") for p in PACKAGES}:
            del sys.modules[name]


@pytest.fixture
def notes():
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}")
    yield lines
    logger.remove(sink)


def make(name, n=2, **keys):
    return make_env(EnvSpec(name=name, num_envs=n, max_frame=1, **keys), threads=2)


@pytest.mark.parametrize(
    ("name", "registered_by"),
    [
        ("arcades:Arcades/Walk-v1", "arcades.gym"),
        ("arcades.gym:Arcades/Walk-v1", None),
        ("doomed:DoomedBasic-v1", "doomed.wrapper"),
        ("doomed.wrapper:DoomedBasic-v1", None),
        ("birds:Birds-v0", None),
    ],
)
def test_a_module_is_asked_to_register_its_envs(notes, name, registered_by):
    env_id = name.split(":")[1]
    for _ in range(2):
        assert find(name).id == env_id
    assert notes == ([f"env.name: {env_id} is registered by {registered_by}"] if registered_by else [])
    assert make(name).info.name == env_id


def test_a_class_or_function_can_be_named():
    assert make("plain:Walk").reset(0).shape == (2, 1)
    env = make("plain:make", size=4.0)
    env.reset(0)
    assert env.step([0, 1]).reward.tolist() == [4, 4]
    assert env.info.name == "plain:make"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "birds:Bird-v0",
            "unknown env 'Bird-v0' of the module birds, did you mean 'Birds-v0'? (it registers: Birds-v0)",
        ),
        ("birds:Pong-v5", "unknown env 'Pong-v5' of the module birds (it registers: Birds-v0)"),
        ("fails:Pong-v5", "fails.register_envs(): ValueError: no licence"),
        ("lends:Len-v0", "unknown env 'Len-v0' of the module lends, did you mean 'Lent-v0'? (it registers: Lent-v0)"),
        (
            "plain:CartPol-v1",
            (
                "unknown env 'CartPol-v1' of the module plain: it registers no env, and has no class or function of "
                "that name"
            ),
        ),
        (
            "antique:Old-v0",
            (
                "'antique:Old-v0': can't import 'antique': No module named 'gym' (it is made for the old package gym, "
                "not for gymnasium; is there a newer release?)"
            ),
        ),
    ],
)
def test_what_a_module_lacks_is_told_of_that_module(name, text):
    with pytest.raises(LabError) as e:
        find(name)
    assert str(e.value) == f"env.name: {text}"


def test_gymnasiums_function_of_that_name_is_for_another_purpose():
    with pytest.raises(LabError, match=r"^env\.name: unknown env 'Nothing' of the module gymnasium"):
        find("gymnasium:Nothing")


def test_of_a_module_that_was_imported_before_nothing_is_claimed():
    import early  # noqa: F401

    with pytest.raises(LabError) as e:
        find("early:CartPol-v1")
    text = "unknown env 'CartPol-v1' of the module early: it has no class or function of that name either"
    assert str(e.value) == f"env.name: {text}"


def test_names_of_runs_leave_the_module_out():
    raw = {**TINY, "env": {**TINY["env"], "name": "${env}"}}
    spec = load_spec({"ppo": {k: v for k, v in raw.items() if k != "name"}}, "ppo", sets={"env": "birds:Birds-v0"})
    assert (spec.name, spec.env.name) == ("ppo_birds", "birds:Birds-v0")


def test_no_window_is_opened_unasked():
    env = make("window:Walk", n=1)
    assert env._rows._envs[0].unwrapped.render_mode is None


@pytest.mark.parametrize("mode", ["auto", "sync", "async"])
def test_one_instance_a_process(notes, mode):
    import single

    env, other = (make("single:Walk", n=3, vectorization=mode) for _ in range(2))
    assert isinstance(env._rows, SharedRows)
    assert len(env._rows._workers) == 3
    # what was made on the way was closed
    assert not single.Walk.there
    assert notes.count("env: single:Walk allows one instance a process: each of the 3 gets a process of its own") == 1
    courses = []
    for e in (env, other):
        seen = [e.reset(3).copy()]
        for _ in range(30):
            step = e.step([0, 1, 0])
            seen.append(step.obs.copy())
        courses.append(str(seen))
    assert courses[0] == courses[1]
    again = make("single:Walk", n=3, vectorization=mode)
    again.load_state_dict(env.state_dict())
    assert again.step([1, 1, 1]).obs.tobytes() == env.step([1, 1, 1]).obs.tobytes()
    assert env.render() is None
    for e in (env, other, again):
        e.close()


def test_what_was_made_is_closed_where_a_later_one_fails():
    import fragile

    with pytest.raises(LabError, match="can't make fragile:Walk: out of licences"):
        make("fragile:Walk", n=4, vectorization="sync")
    assert fragile.Walk.made == []
