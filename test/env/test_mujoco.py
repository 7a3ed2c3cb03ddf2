"""The eleven MuJoCo tasks are gymnasium's, number for number."""

import io

import gymnasium as gym
import numpy as np
import pytest
import torch

from slm_lab.env.make import make_env
from slm_lab.env.mujoco import MujocoVec, warnings_to_log
from slm_lab.env.mujoco_tasks import TASKS
from slm_lab.lib.errors import LabError
from slm_lab.lib.seeding import episode_seed
from slm_lab.spec.model import EnvSpec
from slm_lab.spec.past.envs import MUJOCO

N = 2
VARIANTS = [
    ("Ant", {"include_cfrc_ext_in_observation": False, "healthy_z_range": [0.3, 0.9], "contact_cost_weight": 1.0}),
    ("Ant", {"exclude_current_positions_from_observation": False, "main_body": "front_left_leg"}),
    ("HalfCheetah", {"forward_reward_weight": 2.0, "ctrl_cost_weight": 1.0, "frame_skip": 2}),
    ("Hopper", {"terminate_when_unhealthy": False, "reset_noise_scale": 0.1}),
    ("Humanoid", {"include_cinert_in_observation": False, "include_cfrc_ext_in_observation": False}),
    ("HumanoidStandup", {"impact_cost_weight": 1e-3, "include_cvel_in_observation": False}),
    ("InvertedDoublePendulum", {"healthy_reward": 3.0}),
    ("Walker2d", {"exclude_current_positions_from_observation": False, "healthy_reward": 0.5}),
]


def make(task, mode, n=N, **kwargs):
    return make_env(EnvSpec(name=f"{task}-v5", num_envs=n, max_frame=1, vectorization=mode, **kwargs), threads=2)


def actions_for(env, steps):
    rng = np.random.default_rng(3)
    return rng.uniform(-1.2, 1.2, (steps, env.info.num_envs, env.info.action.dim)).astype(np.float32)


def as_bytes(step):
    return [np.asarray(x).tobytes() for x in step]


@pytest.mark.parametrize(
    ("task", "kwargs", "steps"),
    [*((task, {}, 1000) for task in MUJOCO), *((*v, 100) for v in VARIANTS)],
    ids=lambda x: x if isinstance(x, str) else "-".join(x) if isinstance(x, dict) else "",
)
def test_trajectories_are_those_of_gymnasium(task, kwargs, steps):
    """In double precision, over 1000 steps; the episodes that end on the way included."""
    env = make(task, "native", **kwargs)
    assert isinstance(env, MujocoVec)
    registration = gym.registry[f"{task}-v5"]
    with warnings_to_log():
        naive = [gym.make(registration, disable_env_checker=True, **kwargs) for _ in range(N)]
    env.reset(5)
    obs = [e.reset(seed=episode_seed(5, i, 0))[0] for i, e in enumerate(naive)]
    begun = [1] * N
    assert np.array_equal(env.obs, np.asarray(obs, np.float32))
    returns = np.zeros(N)
    space = naive[0].action_space
    low, high = space.low, space.high
    for action in actions_for(env, steps):
        step = env.step(action)
        scaled = np.clip(action * ((high - low) / 2) + (high + low) / 2, low, high).astype(np.float32)
        for i, e in enumerate(naive):
            seen, reward, terminated, truncated, _ = e.step(scaled[i])
            assert np.array_equal(step.final_obs[i], seen.astype(np.float32))
            assert step.reward[i] == np.float32(reward)
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated and not terminated)
            returns[i] += reward
            if terminated or truncated:
                seen, returns[i] = e.reset(seed=episode_seed(5, i, begun[i]))[0], 0
                begun[i] += 1
            data = e.unwrapped.data
            np.testing.assert_allclose(env.fields["qpos"][i], data.qpos, rtol=0, atol=1e-10)
            np.testing.assert_allclose(env.fields["qvel"][i], data.qvel, rtol=0, atol=1e-10)
            shown = np.concatenate([part[i] for part in env._task.obs(env.fields)])
            np.testing.assert_allclose(shown, seen, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(env._returns, returns, rtol=1e-10, atol=1e-10)
    env.close()


@pytest.mark.parametrize("task", MUJOCO)
def test_the_ways_to_step_give_the_same_steps_bit_for_bit(task):
    envs = [make(task, mode) for mode in ("native", "sync", "thread")]
    assert len({env.info for env in envs}) == 1
    assert len({env.reset(8).tobytes() for env in envs}) == 1
    for action in actions_for(envs[0], 60):
        native, *others = [as_bytes(env.step(action)) for env in envs]
        assert all(other == native for other in others)
    for env in envs:
        env.close()


def test_any_number_of_threads_gives_the_same():
    courses = []
    for threads in (1, 2, 5):
        env = make_env(EnvSpec(name="Humanoid-v5", num_envs=3, max_frame=1), threads=threads)
        env.reset(1)
        courses.append([as_bytes(env.step(a)) for a in actions_for(env, 40)])
        env.close()
    assert courses[0] == courses[1] == courses[2]


@pytest.mark.parametrize("k", [0, 40])
@pytest.mark.parametrize("task", MUJOCO)
def test_continues_exactly(task, k):
    env, other = (make(task, "native", max_t=50) for _ in range(2))
    env.reset(4)
    other.reset(5)
    actions = actions_for(env, k + 60)
    for a in actions[:k]:
        env.step(a)
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    there = env.obs.copy()
    rest = [as_bytes(env.step(a)) for a in actions[k:]]
    other.step(actions[0])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert np.array_equal(other.obs, there)
    assert [as_bytes(other.step(a)) for a in actions[k:]] == rest
    assert other.state_dict() == env.state_dict()
    env.close()
    other.close()


def test_another_state_is_refused():
    hopper, walker = make("Hopper", "native"), make("Walker2d", "native")
    walker.reset(0)
    with pytest.raises(LabError, match="the saved state is of 2 x Walker2d-v5, not of 2 x Hopper-v5"):
        hopper.load_state_dict(walker.state_dict())
    hopper.reset(0)
    state = hopper.state_dict()
    state["physics"] = walker.state_dict()["physics"]
    with pytest.raises(LabError, match="of another version of MuJoCo"):
        hopper.load_state_dict(state)


def test_every_task_of_gymnasium_is_native():
    ids = [f"{task}-v5" for task in MUJOCO]
    assert sorted(TASKS) == sorted(str(gym.registry[i].entry_point) for i in ids)
    for task in MUJOCO:
        assert isinstance(make(task, "auto", n=1), MujocoVec)


def test_nothing_is_printed_or_left_lying_about(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for mode in ("native", "sync"):
        make("HalfCheetah", mode).close()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
