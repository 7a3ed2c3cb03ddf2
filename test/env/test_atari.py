"""Atari: what is shown, what ends, what counts, and that a game goes on where it was."""

import io

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch
from ale_py.vector_env import AtariVectorEnv
from loguru import logger

from slm_lab.env import atari
from slm_lab.env.atari import Atari
from slm_lab.env.check import check_env
from slm_lab.env.make import make_env
from slm_lab.env.wrappers import Pipeline
from slm_lab.lib.errors import LabError
from slm_lab.spec.model import EnvSpec
from slm_lab.types import Discrete

gym.register_envs(ale_py)
GAMES = sorted(i for i in gym.registry if i.startswith("ALE/"))


made = []


def make(name="ALE/Breakout-v5", n=2, render=None, training=True, **keys):
    spec = EnvSpec(name=name, num_envs=n, max_frame=1, **keys)
    made.append(make_env(spec, render=render, training=training, threads=2))
    return made[-1]


@pytest.fixture(autouse=True)
def _close():
    yield
    while made:
        made.pop().close()


def actions_for(env, steps, seed=3):
    return np.random.default_rng(seed).integers(env.info.action.n, size=(steps, env.info.num_envs))


def bare(env):
    return env._env if isinstance(env, Pipeline) else env


def as_bytes(step):
    return [np.asarray(x).tobytes() for x in step]


def test_preprocessing_is_the_usual_one():
    env = make("ALE/Pong-v5", n=3)
    info = env.info
    assert (info.name, info.obs_shape, info.obs_dtype) == ("ALE/Pong-v5", (4, 84, 84), "uint8")
    assert info.action == Discrete(6)
    # 108,000 frames of the console, at 4 a step
    assert info.max_t == 27_000
    obs = env.reset(0)
    # an episode begins with one picture; nothing was before
    assert not obs[:, :3].any()
    assert obs[:, 3].any()
    for action in actions_for(env, 12):
        before, step = obs, env.step(action)
        assert np.array_equal(step.obs[:, :3], before[:, 1:])
        obs = step.obs


def naive_frames(seed, actions, skip=4):
    """Pong by ALE's single-env interface: the brighter pixels of the last two frames of each step, in gray."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.25)
    ale.setInt("random_seed", seed)
    ale.loadROM(ale_py.roms.get_rom_path("pong"))
    ale.reset_game()
    known = ale.getMinimalActionSet()
    rewards, pictures = [], []
    ale.act(known[1])  # FIRE
    for action in actions:
        reward, last = 0, []
        for _ in range(skip):
            reward += ale.act(known[action])
            last.append(ale.getScreenGrayscale())
        rewards.append(reward)
        pictures.append(np.maximum(last[-1], last[-2]))
    return rewards, pictures


def test_frames_are_skipped_pooled_and_actions_stick_as_in_the_emulator():
    """At full size the pictures are the emulator's, bit for bit: so are the stuck actions."""
    env = make("ALE/Pong-v5", n=1, noop_max=1, img_height=210, img_width=160)
    obs = env.reset(11)
    seed = 1 + atari.derive(11, 0, 1) // 2
    actions = actions_for(env, 120)
    rewards, pictures = naive_frames(seed, actions[:, 0])
    got = []
    for action in actions:
        step = env.step(action)
        got.append(step.reward[0])
        obs = step.obs
        assert np.array_equal(obs[0, 3], pictures[len(got) - 1])
    assert got == rewards
    assert any(rewards)


def test_resized_pictures_are_of_the_same_frames():
    small, large = (make("ALE/Pong-v5", n=1, **k) for k in ({}, {"img_height": 210, "img_width": 160}))
    for env in (small, large):
        env.reset(4)
    for action in actions_for(small, 30):
        a, b = small.step(action).obs[0, 3], large.step(action).obs[0, 3]
        # every pixel of the small one is a mean over 2.5 x 1.9 of the large one
        assert abs(a.mean() - b.mean()) < 1
        assert (a.min(), a.max()) >= (b.min(), 0)


def test_one_env_and_many_enjoy_and_rendering_see_the_same():
    """Env 0 of each, frame by frame, over the ends of games."""
    many = make(n=3, max_t=50)
    one = make(n=1, max_t=50)
    enjoyed = make(n=1, max_t=50, training=False)
    rendered = make(n=1, max_t=50, training=False, render="rgb_array")
    envs = [many, one, enjoyed, rendered]
    assert len({env.reset(5)[0].tobytes() for env in envs}) == 1
    pictures = []
    for action in actions_for(many, 130):
        steps = [env.step(action[: env.info.num_envs]) for env in envs]
        for part in ("obs", "final_obs", "reward", "terminated", "truncated"):
            assert len({getattr(step, part)[:1].tobytes() for step in steps}) == 1
        pictures.append(rendered.render())
    assert pictures[0].shape == (210, 160, 3)
    assert not np.array_equal(pictures[0], pictures[40])


def test_the_picture_is_of_the_game_that_is_played():
    """Gray at full size, it is what the agent sees at full size."""
    env = make("ALE/Pong-v5", n=2, render="rgb_array", img_height=210, img_width=160, max_t=25)
    env.reset(1)
    for action in actions_for(env, 60):
        seen = env.step(action).obs[0, 3].astype(float)
        red, green, blue = np.moveaxis(env.render().astype(float), -1, 0)
        # the console's palette of grays is close to the usual weights
        assert np.abs(0.299 * red + 0.587 * green + 0.114 * blue - seen).mean() < 1


def test_episodes_are_whole_games_in_raw_points():
    env = make(n=4)
    env.reset(2)
    total, length, games = np.zeros(4), np.zeros(4, int), 0
    raw = make(n=4, clip_reward=False)
    raw.reset(2)
    for action in actions_for(env, 420):
        step, unclipped = env.step(action), raw.step(action)
        assert np.array_equal(step.reward, np.clip(unclipped.reward, -1, 1))
        total += unclipped.reward
        length += 1
        ended = step.terminated | step.truncated
        assert step.episode_return == unclipped.episode_return == total[ended].tolist()
        assert step.episode_length == length[ended].tolist()
        games += int(ended.sum())
        total[ended], length[ended] = 0, 0
        # no end, no other successor
        assert np.array_equal(step.final_obs[~ended], step.obs[~ended])
        assert all(not np.array_equal(step.final_obs[i], step.obs[i]) for i in np.flatnonzero(ended))
        assert not step.obs[ended][:, :3].any()
    assert games >= 4


def test_points_above_one_are_clipped_unless_told_otherwise():
    keys = {"n": 2, "noop_max": 1, "use_fire_reset": False}
    envs = [make("ALE/BankHeist-v5", **keys, **more) for more in ({}, {"clip_reward": False}, {"clip_reward": 5})]
    for env in envs:
        env.reset(0)
    seen = [set(), set(), set()]
    for action in actions_for(envs[0], 260):
        for env, rewards in zip(envs, seen, strict=True):
            rewards |= set(env.step(action).reward.tolist())
    assert seen == [{0.0, 1.0}, {0.0, 10.0}, {0.0, 5.0}]


def test_a_lost_life_ends_an_episode_for_the_learner_alone():
    plain, signal, enjoyed = make(n=3), make(n=3, life_loss_info=True), make(n=3, life_loss_info=True, training=False)
    for env in (plain, signal, enjoyed):
        env.reset(6)
    lost = games = 0
    for action in actions_for(plain, 400):
        a, b, c = (env.step(action) for env in (plain, signal, enjoyed))
        assert as_bytes(a) == as_bytes(c)
        assert np.array_equal(a.obs, b.obs)
        assert np.array_equal(a.final_obs, b.final_obs)
        assert (a.episode_return, a.episode_length) == (b.episode_return, b.episode_length)
        # the last life is the end of the game
        assert not (a.terminated & ~b.terminated).any()
        lost += int(b.terminated.sum())
        games += int(a.terminated.sum())
    # Breakout gives five lives
    assert games >= 2
    assert 5 * games <= lost <= 5 * games + 4 * 3


def test_a_life_lost_at_the_limit_ends_the_episode_too():
    env = make(n=1, life_loss_info=True)
    env.reset(6)
    actions = actions_for(env, 400)
    lost = next(t for t, action in enumerate(actions, 1) if env.step(action).terminated[0])
    cut = make(n=1, life_loss_info=True, max_t=lost)
    cut.reset(6)
    for action in actions[:lost]:
        step = cut.step(action)
    assert (step.terminated.tolist(), step.truncated.tolist(), step.episode_length) == ([True], [False], [lost])


def test_the_limit_in_frames_of_the_console_is_a_step_at_least():
    assert [make(n=1, max_num_frames_per_episode=frames).info.max_t for frames in (2, 43)] == [1, 10]


def test_a_limit_cuts_games_off():
    env = make(n=3, max_t=20)
    env.reset(0)
    for t in range(1, 61):
        step = env.step(np.zeros(3, np.int64))
        assert step.truncated.tolist() == [t % 20 == 0] * 3
        assert not step.terminated.any()
    assert step.episode_length == [20, 20, 20]


def test_a_seed_decides_everything():
    env = make("ALE/Pong-v5", n=2)
    actions = actions_for(env, 40)

    def course(seed):
        return [env.reset(seed).tobytes(), *(env.step(a).obs.tobytes() for a in actions)]

    one, other, again = course(1), course(2), course(1)
    assert one == again
    assert one[1:] != other[1:]


@pytest.mark.parametrize(("k", "reseed"), [(0, 20_000), (200, 60), (200, 20_000)])
def test_continues_exactly(k, reseed, monkeypatch):
    """Also where games began from where the dice of the one before were left, and from new seeds."""
    monkeypatch.setattr(atari, "RESEED", reseed)
    keys = {"n": 2, "max_t": 90, "life_loss_info": True}
    env, other = make(**keys), make(**keys)
    env.reset(4)
    actions = actions_for(env, k + 120)
    for a in actions[:k]:
        env.step(a)
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    there = env.obs.copy()
    rest = [as_bytes(env.step(a)) for a in actions[k:]]
    other.reset(9)
    other.step(actions[0])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert np.array_equal(other.obs, there)
    assert [as_bytes(other.step(a)) for a in actions[k:]] == rest
    assert other.state_dict() == env.state_dict()


def test_the_picture_goes_on_too():
    envs = [make(n=2, max_t=40, render="rgb_array") for _ in range(2)]
    envs[0].reset(1)
    actions = actions_for(envs[0], 90)
    for a in actions[:60]:
        envs[0].step(a)
    envs[1].load_state_dict(envs[0].state_dict())
    for a in actions[60:]:
        for env in envs:
            env.step(a)
        assert np.array_equal(envs[0].render(), envs[1].render())


def test_the_state_of_another_game_is_refused():
    breakout, pong = make(n=1), make("ALE/Pong-v5", n=1)
    pong.reset(0)
    with pytest.raises(LabError, match="the saved state is of 1 x ALE/Pong-v5, not of 1 x ALE/Breakout-v5"):
        breakout.load_state_dict(pong.state_dict())


def test_another_course_is_reported():
    env = make(n=1)
    env.reset(0)
    state = env.state_dict()
    state["env"]["check"] += 1
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    env.load_state_dict(state)
    logger.remove(sink)
    assert "ALE/Breakout-v5 took another course" in "".join(lines)


def test_old_ids_and_arguments_reach_the_game():
    env = make("PongNoFrameskip-v4", n=1, repeat_action_probability=0.0, full_action_space=True, stack_num=2)
    assert env.info.name == "ALE/Pong-v5"
    assert env.info.action == Discrete(18)
    assert env.info.obs_shape == (2, 84, 84)
    assert isinstance(bare(env), Atari)


def test_continuous_actions():
    env = make("ALE/Pong-v5", n=2, continuous=True)
    env.reset(0)
    assert env.info.action.dim == 3
    step = env.step(np.zeros((2, 3), np.float32))
    assert step.obs.shape == (2, 4, 84, 84)
    state = env.state_dict()
    env.step(np.ones((2, 3), np.float32))
    env.load_state_dict(state)
    assert np.array_equal(env.obs, step.obs)


def test_colours_are_channels():
    gray, colours = make("ALE/Pong-v5", n=2), make("ALE/Pong-v5", n=2, grayscale=False)
    assert colours.info.obs_shape == (12, 84, 84)
    gray.reset(3)
    assert colours.reset(3).shape == (2, 12, 84, 84)
    for action in actions_for(gray, 10):
        a, b = gray.step(action).obs, colours.step(action).obs
        # the console's gray is close to the usual weights
        mixed = np.einsum("c,nschw->nshw", [0.299, 0.587, 0.114], b.reshape(2, 4, 3, 84, 84))
        assert np.abs(mixed - a).mean() < 1


@pytest.mark.parametrize("name", GAMES)
def test_every_game_there_is(name):
    assert check_env(EnvSpec(name=name, max_frame=1)) == []
    env = make(name, n=1, noop_max=1)
    obs = env.reset(0)
    for action in actions_for(env, 4):
        step = env.step(action)
    assert obs.shape == step.obs.shape == step.final_obs.shape == (1, 4, 84, 84)


def test_the_limit_of_the_vector_env_is_never_reached():
    assert atari.NEVER > 108_000
    assert "max_num_frames_per_episode" in AtariVectorEnv.__init__.__kwdefaults__
