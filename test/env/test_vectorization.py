"""Stepped one after the other, in threads or in processes: the same steps; and what happens when a worker fails."""

import os
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from slm_lab.env.cartpole import CartPole
from slm_lab.env.check import check_env
from slm_lab.env.gym import GymVecEnv
from slm_lab.env.make import _gain, make_env
from slm_lab.env.rows import LocalRows
from slm_lab.env.threads import Threads
from slm_lab.env.workers import SharedRows
from slm_lab.lib.errors import LabError
from slm_lab.spec.model import EnvSpec
from slm_lab.types import Continuous

N = 5
CASES = [
    ("CartPole-v1", ["native", "sync", "thread", "async"]),
    ("Acrobot-v1", ["sync", "thread", "async"]),
    ("LunarLander-v3", ["sync", "thread", "async"]),
    ("Hopper-v5", ["native", "sync", "thread", "async"]),
    ("FrozenLake-v1", ["sync", "thread", "async"]),
]


def make(name, mode="auto", n=N, threads=2, **keys):
    return make_env(EnvSpec(name=name, num_envs=n, max_frame=1, vectorization=mode, **keys), threads=threads)


def actions_for(env, steps):
    rng = np.random.default_rng(3)
    n, space = env.info.num_envs, env.info.action
    if isinstance(space, Continuous):
        return rng.uniform(-1, 1, (steps, n, space.dim)).astype(np.float32)
    return rng.integers(space.n, size=(steps, n))


def as_bytes(step):
    return [np.asarray(x).tobytes() for x in step]


@pytest.mark.parametrize(("name", "modes"), CASES)
def test_every_mode_gives_the_same_steps(name, modes):
    envs = [make(name, mode, max_t=45) for mode in modes]
    assert len({env.info for env in envs}) == 1
    assert len({env.reset(8).tobytes() for env in envs}) == 1
    actions = actions_for(envs[0], 180)
    for action in actions[:90]:
        assert len({str(as_bytes(env.step(action))) for env in envs}) == 1
    # and the state of one mode is as good as that of another, where both are of the same class
    state = envs[-1].state_dict()
    for env in envs[modes.index("sync") :]:
        env.load_state_dict(state)
        assert env.state_dict() == state
    ended = 0
    for action in actions[90:]:
        steps = [env.step(action) for env in envs]
        ended += len(steps[0].episode_return)
        assert len({str(as_bytes(step)) for step in steps}) == 1
    assert ended >= N
    for env in envs:
        env.close()


def rows_of(env):
    return env._rows if isinstance(env, GymVecEnv) else None


def test_auto_takes_what_is_fastest():
    def rows(name, n, threads=2, training=True, max_frame=10**6):
        env = make_env(EnvSpec(name=name, num_envs=n, max_frame=max_frame), threads=threads, training=training)
        env.close()
        return type(rows_of(env))

    # a step of FrozenLake takes no time to speak of, one of CarRacing does
    assert rows("FrozenLake-v1", n=4) is LocalRows
    assert rows("CarRacing-v3", n=4) is SharedRows
    assert rows("CarRacing-v3", n=1) is LocalRows
    assert rows("CarRacing-v3", n=4, threads=1) is LocalRows
    # to start processes would take longer than the run, or they would mostly wait
    assert rows("CarRacing-v3", n=4, max_frame=4) is LocalRows
    assert rows("CarRacing-v3", n=4, training=False) is LocalRows
    assert isinstance(make("CartPole-v1", n=64), CartPole)
    assert isinstance(make("CartPole-v1", "sync"), GymVecEnv)


def test_what_there_is_not_is_told():
    spec = EnvSpec(name="Acrobot-v1", max_frame=1, vectorization="native")
    assert check_env(spec) == [
        "env.vectorization: there is no vector env for Acrobot-v1: use auto, sync, thread or async"
    ]


FRAGILE = """
import os, signal
import gymnasium as gym
import numpy as np

class Fragile(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(3)

    def __init__(self, broken=False, slow=0.0):
        if broken:
            raise RuntimeError("born broken")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if action == 1:
            raise ValueError("a fault of the env's own")
        if action == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros(1, np.float32), 0.0, False, False, {}

gym.register("Fragile-v0", Fragile)
"""


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    (tmp_path / "fragile_env.py").write_text(textwrap.dedent(FRAGILE))
    monkeypatch.syspath_prepend(tmp_path)
    yield "fragile_env:Fragile-v0"
    gym.registry.pop("Fragile-v0", None)
    sys.modules.pop("fragile_env", None)


def processes(env):
    return [worker.process for worker in rows_of(env)._workers]


def test_a_fault_in_a_worker_is_reported_with_its_traceback(fragile):
    env = make(fragile, "async", n=3)
    env.reset(0)
    env.step(np.array([0, 0, 0]))
    with pytest.raises(LabError, match="a worker process of Fragile-v0 failed") as e:
        env.step(np.array([0, 0, 1]))
    assert "ValueError: a fault of the env's own" in str(e.value)
    assert "fragile_env.py" in str(e.value)
    running = processes(env)
    env.close()
    assert all(p.poll() is not None for p in running)


def test_a_killed_worker_is_reported(fragile):
    env = make(fragile, "async", n=3)
    env.reset(0)
    for _ in range(2):
        with pytest.raises(LabError, match="a worker process of Fragile-v0 was killed by SIGKILL"):
            env.step(np.array([0, 0, 2]))
    env.close()


def test_an_env_that_can_not_be_made_is_told_as_in_this_process(fragile):
    texts = []
    for mode in ("sync", "async"):
        with pytest.raises(LabError) as e:
            make(fragile, mode, broken=True)
        texts.append(str(e.value))
    assert texts[0] == texts[1] == "  env.broken: can't make Fragile-v0 with True: born broken"


def test_closing_leaves_no_process(fragile):
    env = make(fragile, "async", n=4, threads=3)
    env.reset(0)
    running = processes(env)
    assert len(running) == 2
    env.close()
    env.close()
    assert [p.poll() for p in running] == [0, 0]
    with pytest.raises(LabError, match="closed"):
        env.reset(0)


def test_workers_do_not_outlive_their_parent(fragile, tmp_path, root):
    script = tmp_path / "parent.py"
    script.write_text(
        "from slm_lab.env.make import make_env\n"
        "from slm_lab.spec.model import EnvSpec\n"
        f"env = make_env(EnvSpec(name='{fragile}', num_envs=4, max_frame=1, vectorization='async'), threads=3)\n"
        "env.reset(0)\n"
        "print(*[w.process.pid for w in env._rows._workers], flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    import subprocess

    path = os.pathsep.join([str(root), str(tmp_path)])
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        os.kill(parent.pid, signal.SIGKILL)
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_renders_env_0_of_a_worker():
    frames = []
    for mode in ("sync", "async"):
        env = make_env(
            EnvSpec(name="MountainCar-v0", num_envs=3, max_frame=1, vectorization=mode), render="rgb_array", threads=2
        )
        env.reset(0)
        env.step(np.array([0, 1, 2]))
        frames.append(env.render())
        env.close()
    assert np.array_equal(*frames)


def test_threads_do_each_thing_once_and_hand_on_what_goes_wrong():
    threads = Threads(4)
    for n in (0, 1, 3, 50):
        done = []
        threads.each(done.append, n)
        assert sorted(done) == list(range(n))

    def fail(i):
        if i == 2:
            raise ValueError("two")

    with pytest.raises(ValueError, match="two"):
        threads.each(fail, 9)
    threads.each(done.append, 1)
    before = threading.active_count()
    threads.close()
    threads.close()
    assert threading.active_count() == before - 3


def test_what_parent_and_workers_fail_in_is_told_once(capfd):
    with pytest.raises(LabError, match="can't make GymV21Environment-v0"):
        make("GymV21Environment-v0", "async", n=4)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("fails", ["step", "reset"])
def test_an_env_that_fails_while_its_speed_is_measured_is_closed(fails):
    closed = []

    class Broken(gym.Wrapper):
        def close(self):
            closed.append(True)
            super().close()

    def fail(*args, **keys):
        raise RuntimeError("broken")

    env = Broken(gym.make("CartPole-v1"))
    setattr(env, fails, fail)
    with pytest.raises(RuntimeError, match="broken"):
        _gain(lambda i: env, 4, 2)
    assert closed == [True]


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_the_speed_of_an_env_is_measured_where_gymnasium_cant_draw_its_actions():
    taken = []

    class Wide(gym.Wrapper):
        action_space = gym.spaces.Box(-1.7e308, 1.7e308, (2,), np.float64)

        def step(self, action):
            taken.append(action)
            assert self.action_space.contains(action)
            return self.env.step(0)

    _gain(lambda i: Wide(gym.make("CartPole-v1")), 4, 2)
    assert len(taken) == 30
