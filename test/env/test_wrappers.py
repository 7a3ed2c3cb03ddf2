"""What agents see of envs, against slow definitions."""

import io

import numpy as np
import pytest
import torch

from slm_lab.env.base import VecEnv
from slm_lab.env.make import make_env
from slm_lab.env.moments import EPSILON, Moments
from slm_lab.env.wrappers import wrap
from slm_lab.lib.errors import LabError
from slm_lab.spec.model import EnvSpec
from slm_lab.types import Discrete, EnvInfo, Step

N, GAMMA = 3, 0.9


class Script(VecEnv):
    """Shows random numbers; env i ends after every 4 + i steps, cut off where i is 0. Remembers all it showed."""

    scale = 1.0
    actions = observations = None

    def __init__(self, shape=(2,), dtype="float32"):
        self.info = EnvInfo("Script-v0", shape, dtype, Discrete(2), N, None)
        self.rng = np.random.default_rng(0)
        self.shown, self.finals, self.rewards, self.ended = [], [], [], []

    def draw(self):
        draws = self.rng.normal(3, 20, (N, *self.info.obs_shape))
        return np.clip(draws, 0, 255).astype(np.uint8) if self.info.obs_dtype == "uint8" else draws.astype(np.float32)

    def reset(self, seed):
        self.t = 0
        self.obs = self.draw()
        self.shown.append(self.obs)
        return self.obs

    def step(self, action):
        self.t += 1
        ended = np.array([self.t % (4 + i) == 0 for i in range(N)])
        self.obs = obs = self.draw()
        final = obs
        if ended.any():
            final = obs.copy()
            final[ended] = self.draw()[ended]
        reward = (self.scale * self.rng.normal(1, 5, N)).astype(np.float32)
        first = np.arange(N) == 0
        for kept, x in ((self.shown, obs), (self.finals, final), (self.rewards, reward), (self.ended, ended)):
            kept.append(x.copy())
        returns = [7.0] * int(ended.sum())
        return Step(obs, reward, ended & ~first, ended & first, final, returns, [1] * len(returns))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def wrapped(script=None, training=True, **keys):
    script = script or Script()
    spec = EnvSpec(name="Script-v0", num_envs=N, max_frame=1, **keys)
    return script, wrap(script, spec, gamma=GAMMA, training=training)


def course(env, steps=30):
    return [Step(*(np.copy(x) for x in env.step(np.zeros(N, np.int64))[:7])) for _ in range(steps)]


def test_nothing_asked_for_is_nothing_done():
    for keys in ({}, {"clip_obs": False, "clip_reward": False, "reward_scale": 1}):
        script, env = wrapped(**keys)
        assert env is script


def test_normalize_obs_is_by_the_mean_and_deviation_of_all_that_was_acted_on():
    script, env = wrapped(normalize_obs=True, clip_obs=False)
    first = env.reset(0)
    steps = course(env)
    assert first.dtype == np.float32
    for t in range(31):
        seen = np.concatenate(script.shown[: t + 1]).astype(np.float64)
        mean, deviation = seen.mean(0), np.sqrt(seen.var(0) + EPSILON)
        got = first if t == 0 else steps[t - 1].obs
        np.testing.assert_allclose(got, (script.shown[t] - mean) / deviation, rtol=1e-5, atol=1e-6)
        if t:
            final = (script.finals[t - 1] - mean) / deviation
            np.testing.assert_allclose(steps[t - 1].final_obs, final, rtol=1e-5, atol=1e-6)


def test_what_is_normalized_is_clipped_to_10_and_otherwise_if_asked_for():
    for keys, bound in ({}, 10), ({"clip_obs": 0.5}, 0.5):
        script, env = wrapped(normalize_obs=True, **keys)
        env.reset(0)
        env.step(np.zeros(N, np.int64))
        script.draw = lambda: np.full((N, 2), 1e6, np.float32)
        # one env counts for little among many samples
        env.load_normalizer_state({"obs": {**env.normalizer_state()["obs"], "count": 10**9}})
        step = course(env, 4)[-1]
        assert step.obs.max() == bound
        assert step.final_obs.max() == bound


@pytest.mark.parametrize(
    ("shape", "dtype", "bound"), [((2,), "float32", 2.5), ((1, 2, 2), "uint8", 9), ((1, 2, 2), "uint8", 300)]
)
def test_clip_obs_alone(shape, dtype, bound):
    script, env = wrapped(Script(shape, dtype), clip_obs=bound)
    assert np.array_equal(env.reset(0), np.clip(script.shown[0], -bound, bound))
    for t, step in enumerate(course(env)):
        assert np.array_equal(step.obs, np.clip(script.shown[t + 1], -bound, bound))
        assert np.array_equal(step.final_obs, np.clip(script.finals[t], -bound, bound))
    assert env.info.obs_dtype == env.obs.dtype == dtype


def naive_normalized_rewards(script):
    """Every return so far, for each step anew."""
    ret, seen, out = np.zeros(N), [], []
    for reward, ended in zip(script.rewards, script.ended, strict=True):
        ret = ret * GAMMA + reward
        seen.extend(ret)
        out.append(reward / np.sqrt(np.var(seen) + EPSILON))
        ret = np.where(ended, 0, ret)
    return np.array(out)


def test_normalize_reward_is_by_the_deviation_of_returns():
    script, env = wrapped(normalize_reward=True, clip_reward=False)
    env.reset(0)
    steps = course(env)
    np.testing.assert_allclose([s.reward for s in steps], naive_normalized_rewards(script), rtol=1e-5)
    assert steps[0].reward.dtype == np.float32
    # returns are those of the env
    assert {r for s in steps for r in s.episode_return} == {7.0}


@pytest.mark.parametrize(
    ("keys", "change"),
    [
        ({"clip_reward": 1.5}, lambda r: np.clip(r, -1.5, 1.5)),
        ({"clip_reward": [-1, 2]}, lambda r: np.clip(r, -1, 2)),
        ({"reward_scale": 0.1}, lambda r: r * np.float32(0.1)),
        ({"reward_scale": "sign"}, np.sign),
        ({"clip_reward": 1.5, "reward_scale": -2}, lambda r: np.clip(r, -1.5, 1.5) * -2),
    ],
)
def test_rewards(keys, change):
    script, env = wrapped(**keys)
    env.reset(0)
    steps = course(env)
    assert np.array_equal([s.reward for s in steps], np.array([change(r) for r in script.rewards], np.float32))
    assert {r for s in steps for r in s.episode_return} == {7.0}


def test_normalized_rewards_are_clipped_to_10_unless_told_otherwise():
    for keys, bound in ({}, 10), ({"clip_reward": 0.5}, 0.5), ({"clip_reward": False}, None):
        script, env = wrapped(normalize_reward=True, **keys)
        env.reset(0)
        course(env, 5)
        env.load_normalizer_state({"reward": {**env.normalizer_state()["reward"], "count": 10**12}})
        script.scale = 1e5
        highest = env.step(np.zeros(N, np.int64)).reward.max()
        assert highest == bound if bound else highest > 100


def test_a_family_may_clip_where_the_spec_says_nothing():
    script = Script()
    spec = EnvSpec(name="Script-v0", num_envs=N, max_frame=1)
    for keys, bound in ({}, 1), ({"clip_reward": 3}, 3), ({"clip_reward": False}, None):
        env = wrap(script, spec.model_copy(update=keys), gamma=GAMMA, training=True, clip_reward=1.0)
        env.reset(0)
        highest = max(np.abs(s.reward).max() for s in course(env))
        assert highest == bound if bound else highest > 3


@pytest.mark.parametrize(
    ("op", "shape", "dtype", "want"),
    [
        ("concat", (2,), "float32", (6,)),
        ("stack", (2,), "float32", (3, 2)),
        ("concat", (1, 4, 4), "uint8", (3, 4, 4)),
        ("stack", (1, 4, 4), "uint8", (3, 1, 4, 4)),
        ("concat", (), "float32", (3,)),
    ],
)
def test_frames(op, shape, dtype, want):
    script, env = wrapped(Script(shape, dtype), frame_op=op, frame_op_len=3)
    assert (env.info.obs_shape, env.info.obs_dtype) == (want, dtype)
    first = env.reset(0)
    steps = course(env)
    histories = [[script.shown[0][i]] * 3 for i in range(N)]

    def show(frames):
        return np.concatenate(frames) if op == "concat" and shape else np.stack(frames)

    assert np.array_equal(first, [show(h) for h in histories])
    for t, step in enumerate(steps):
        for i in range(N):
            true = [*histories[i][1:], script.finals[t][i]]
            assert np.array_equal(step.final_obs[i], show(true))
            histories[i] = [script.shown[t + 1][i]] * 3 if script.ended[t][i] else true
            assert np.array_equal(step.obs[i], show(histories[i]))


def test_order():
    """Frames are joined before they are normalized, and rewards normalized before they are clipped and scaled."""
    keys = {"frame_op": "concat", "frame_op_len": 2, "normalize_obs": True, "normalize_reward": True}
    _script, env = wrapped(**keys, clip_obs=0.7, clip_reward=0.2, reward_scale=10)
    _plain, reference = wrapped(**keys, clip_obs=False, clip_reward=False)
    assert env.reset(0).shape == (N, 4)
    reference.reset(0)
    for got, want in zip(course(env), course(reference), strict=True):
        assert np.array_equal(got.obs, np.clip(want.obs, -0.7, 0.7).astype(np.float32))
        assert np.array_equal(got.final_obs, np.clip(want.final_obs, -0.7, 0.7).astype(np.float32))
        np.testing.assert_allclose(got.reward, np.clip(want.reward, -0.2, 0.2) * 10, rtol=1e-6)
        assert np.array_equal(got.terminated, want.terminated)


def test_frozen_statistics_are_those_of_the_training_env_and_stay():
    keys = {"normalize_obs": True, "normalize_reward": True}
    _, train = wrapped(**keys)
    train.reset(0)
    course(train)
    state = train.normalizer_state()
    script, frozen = wrapped(**keys, training=False)
    frozen.load_normalizer_state(state)
    frozen.reset(0)
    steps = course(frozen)
    assert frozen.normalizer_state() == state
    obs, reward = moments_of(train, "obs"), moments_of(train, "reward")
    for t, step in enumerate(steps):
        want = np.clip((script.shown[t + 1] - obs.mean) / np.sqrt(obs.var + EPSILON), -10, 10)
        np.testing.assert_allclose(step.obs, want, rtol=1e-6)
        np.testing.assert_allclose(step.reward, script.rewards[t] / np.sqrt(reward.var + EPSILON), rtol=1e-6)


def test_envs_without_statistics_have_no_state_of_them():
    env = make_env(EnvSpec(name="CartPole-v1", max_frame=1))
    assert env.normalizer_state() == {}
    env.load_normalizer_state({})


def test_statistics_of_other_wrappers_are_refused():
    plain, learned, *others = (
        make_env(EnvSpec(name="CartPole-v1", max_frame=1, **keys))
        for keys in ({}, {"normalize_obs": True}, {"clip_reward": 1.0}, {"normalize_reward": True})
    )
    state = learned.normalizer_state()
    for env, ours in zip(others, ("nothing", "reward"), strict=True):
        # what lies between env and agent is known of wrapped envs too
        assert (env.actions.space, env.observations.shape) == (plain.actions.space, plain.observations.shape)
        with pytest.raises(LabError, match=f"CartPole-v1 normalizes {ours}, but the saved policy learned with obs"):
            env.load_normalizer_state(state)


KINDS = {
    "both": {"normalize_obs": True, "normalize_reward": True, "clip_obs": 0.5, "clip_reward": 0.2, "reward_scale": 3.0},
    "observations": {"normalize_obs": True},
    "rewards": {"normalize_reward": True, "clip_obs": 2.0},
    "frames": {"normalize_obs": True, "frame_op": "stack", "frame_op_len": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_step_also_tells_what_it_was_before_statistics(kind, dtype):
    shape = (2,) if dtype == "float32" else (2, 3, 3)
    _, env = wrapped(Script(shape, dtype), **KINDS[kind])
    # the same env with the changes that follow no statistics
    plain = {k: v for k, v in KINDS[kind].items() if k.startswith("frame") or (kind == "rewards" and k == "clip_obs")}
    _, other = wrapped(Script(shape, dtype), **plain)
    assert env.info.normalized
    assert not other.info.normalized
    before = other.reset(0)
    env.reset(0)
    for _ in range(12):
        raw = env.step(np.zeros(N, np.int64)).raw
        step = other.step(np.zeros(N, np.int64))
        assert raw.obs.dtype == step.obs.dtype
        np.testing.assert_array_equal(raw.obs, before)
        for ours, theirs in zip(raw.step, step, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert raw.step.raw is None
        before = step.obs.copy()


@pytest.mark.parametrize("kind", KINDS)
def test_raw_steps_are_normalized_by_the_statistics_of_the_moment(kind):
    _, env = wrapped(**KINDS[kind])
    env.reset(0)
    first = env.step(np.zeros(N, np.int64)).raw
    kept = first.step.reward.copy()
    for _ in range(20):
        step = env.step(np.zeros(N, np.int64))
    raw, normalizer = step.raw.step, step.raw.normalizer
    before = env.normalizer_state()
    np.testing.assert_array_equal(normalizer.normalize_obs(raw.obs), step.obs)
    np.testing.assert_array_equal(normalizer.normalize_obs(raw.final_obs), step.final_obs)
    np.testing.assert_array_equal(normalizer.normalize_reward(raw.reward), step.reward)
    assert env.normalizer_state() == before
    if "normalize_reward" in KINDS[kind]:
        keys = KINDS[kind]
        bound = keys.get("clip_reward", 10)
        scaled = np.clip(kept / np.sqrt(moments_of(env, "reward").var + EPSILON), -bound, bound)
        np.testing.assert_allclose(normalizer.normalize_reward(kept), scaled * keys.get("reward_scale", 1), rtol=1e-6)


def moments_of(env, key):
    moments = Moments(())
    moments.load_state_dict(env.normalizer_state()[key])
    return moments


@pytest.mark.parametrize("k", [0, 7, 50])
def test_continues_exactly(k):
    keys = {"frame_op": "concat", "frame_op_len": 3, "normalize_obs": True, "normalize_reward": True}
    spec = EnvSpec(name="Pendulum-v1", num_envs=2, max_frame=1, max_t=20, **keys)
    env, other = make_env(spec), make_env(spec)
    env.reset(1)
    actions = np.random.default_rng(2).uniform(-1, 1, (k + 60, 2, 1)).astype(np.float32)

    def told(step):
        return [np.array(x).tobytes() for x in (*step[:7], step.raw.obs, *step.raw.step)]

    def run(env, actions):
        return [told(env.step(a)) for a in actions]

    run(env, actions[:k])
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    there = env.obs.copy()
    rest = run(env, actions[k:])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert np.array_equal(other.obs, there)
    assert run(other, actions[k:]) == rest
    assert other.state_dict() == env.state_dict()
