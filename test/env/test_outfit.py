"""What a spec puts around single envs: wrappers, parts that are picked, weights of rewards, tuples."""

import gymnasium as gym
import numpy as np
import pytest
from loguru import logger
from pydantic import ValidationError

from slm_lab.env.check import check_env
from slm_lab.env.make import make_env
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import renew_notes
from slm_lab.spec.model import EnvSpec


@pytest.fixture
def pays():
    gym.register("Pays-v0", "support.paying:Pays")
    yield lambda **keys: make_env(spec(**keys))
    gym.registry.pop("Pays-v0", None)


def spec(**keys):
    return EnvSpec(**{"name": "Pays-v0", "num_envs": 2, "max_frame": 1, "vectorization": "sync", **keys})


def returns_of_an_episode(env):
    env.reset(0)
    while True:
        step = env.step(np.zeros(2, int))
        if step.episode_return:
            return step


@pytest.mark.parametrize("vectorization", ["sync", "async", "thread"])
def test_a_reward_of_shape_one_is_a_number(pays, vectorization):
    env = pays(pay=[0.25], vectorization=vectorization)
    assert returns_of_an_episode(env).episode_return == [1.25, 1.25]
    env.close()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_several_rewards_are_weighted(pays, vectorization):
    env = pays(pay=[1, -2, 0.5], reward_weights=[1, 0.5, 4], told=True, vectorization=vectorization)
    step = returns_of_an_episode(env)
    assert step.reward.tolist() == [2.0, 2.0]
    assert step.episode_return == [10.0, 10.0]
    env.close()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("weights", "text"),
    [
        (None, r"env.reward_weights: missing: Pays-v0 pays 3 rewards at once, .* \[1, 1, 1\] say"),
        ([1, 2], "env.reward_weights: Pays-v0 pays 3 rewards, and these are 2 weights"),
    ],
)
def test_several_rewards_are_refused_by_name(pays, told, weights, text):
    with pytest.raises(LabError, match=text):
        returns_of_an_episode(pays(pay=[1, 2, 3], told=told, reward_weights=weights))


@pytest.mark.parametrize("vectorization", ["sync", "async", "thread"])
def test_a_reward_that_is_no_number_is_refused(pays, vectorization):
    env = pays(pay="much", vectorization=vectorization)
    with pytest.raises(LabError, match=r"step of Pays-v0 must give a number as its reward .got 'much'"):
        returns_of_an_episode(env)
    env.close()


def test_a_state_goes_on_with_rewards_of_any_kind(pays):
    for keys in ({"pay": [0.25]}, {"pay": [1, 2], "reward_weights": [1, 1]}):
        env = pays(**keys)
        env.reset(0)
        env.step(np.zeros(2, int))
        other = pays(**keys)
        other.load_state_dict(env.state_dict())
        assert [s.episode_return for s in (returns(e) for e in (env, other))] == [[5 * sum(keys["pay"])] * 2] * 2


def returns(env):
    while True:
        step = env.step(np.zeros(2, int))
        if step.episode_return:
            return step


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_parts_are_picked(pays, vectorization):
    env = pays(obs_keys=["day"], vectorization=vectorization)
    assert env.info.obs_shape == (2,)
    assert env.reset(0).tolist() == [[1, 0], [1, 0]]
    assert env.step(np.zeros(2, int)).obs.tolist() == [[0, 1], [0, 1]]
    env.close()


def test_wrappers_are_put_around_in_their_order(pays):
    one = {"name": "support.paying:Doubled", "kwargs": {"factor": 3, "shape": {"__tuple__": [1]}}}
    flat = {"name": "gymnasium.wrappers:FilterObservation", "kwargs": {"filter_keys": ["day"]}}
    env = pays(wrappers=[one, flat, {"name": "support.paying:Doubled"}])
    assert env.info.obs_shape == (2,)
    assert returns_of_an_episode(env).episode_return == [30.0, 30.0]


def test_a_vector_env_gives_way_to_wrappers():
    env = make_env(EnvSpec(name="CartPole-v1", max_frame=1, wrappers=[{"name": "support.paying:Doubled"}]))
    env.reset(0)
    assert env.step(np.array([0])).reward.tolist() == [2.0]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"wrappers": [{"name": "gymnasium.wrappers:FlatenObservation"}]}, "did you mean 'FlattenObservation'"),
        ({"wrappers": [{"name": "no_such_module:X"}]}, r"env.wrappers\[0\].name: can't import 'no_such_module'"),
        ({"wrappers": [{"name": "support.paying:Refuses"}]}, r"env.wrappers\[0\]: can't put .*for robots"),
        ({"obs_keys": ["dey"]}, "env.obs_keys: observations of Pays-v0 have no part 'dey', did you mean 'day'"),
        ({"obs_keys": ["text"]}, "env.obs_keys: .* as its part 'text', which no net can read"),
        ({"image_axes": "HWC"}, "env.image_axes: Pays-v0 shows no images"),
    ],
)
def test_what_is_refused(pays, keys, text):
    with pytest.raises(LabError, match=text):
        pays(**keys)


@pytest.mark.parametrize("name", ["Pays", "a.b.Pays", ":Pays", "a b:Pays"])
def test_a_wrapper_is_named_by_its_module(name):
    with pytest.raises(ValidationError, match=r"package\.module:Class"):
        spec(wrappers=[{"name": name}])


def test_vector_envs_of_their_own_say_what_they_cant_follow():
    keys = {"obs_keys": ["a"], "reward_weights": [1.0], "wrappers": [{"name": "support.paying:Doubled"}]}
    faults = check_env(EnvSpec(name="ALE/Pong-v5", max_frame=1, **keys))
    assert faults == [
        f"env.{key}: the vector env of ALE/Pong-v5 does not support it"
        for key in ("wrappers", "reward_weights", "obs_keys")
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {"size": {"__tuple__": [4, 5]}},
        {"size": [4, 5]},
        {"size": [4, 5], "shape": {"grid": {"__tuple__": [1, 2]}}},
        {"size": [4, 5], "shape": {"grid": [1, 2]}},
    ],
)
def test_lists_where_an_env_wants_tuples(pays, keys):
    assert pays(**keys).info.obs_shape == (22,)


@pytest.mark.parametrize("shape", [{"__tuple__": [1, 2]}, [1, 2]])
def test_lists_where_a_wrapper_wants_tuples(pays, shape):
    env = pays(wrappers=[{"name": "support.paying:Doubled", "kwargs": {"factor": 3, "shape": shape}}])
    assert returns_of_an_episode(env).episode_return == [15.0, 15.0]


def test_what_a_wrapper_refuses_as_a_list_it_is_given_as_a_tuple(pays):
    with pytest.raises(
        LabError, match=r"env\.wrappers\[0\]: can't put support\.paying:Sized around Pays-v0: .*of three"
    ):
        pays(wrappers=[{"name": "support.paying:Sized", "kwargs": {"sizes": {"a": [1, 2]}}}])
    env = pays(wrappers=[{"name": "support.paying:Sized", "kwargs": {"sizes": {"a": [1, 2, 3]}}}])
    assert returns_of_an_episode(env).episode_return == [5.0, 5.0]


def test_an_env_that_ends_in_both_ways_has_terminated(pays):
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}")
    step = returns_of_an_episode(pays())
    logger.remove(sink)
    assert step.terminated.all()
    assert not step.truncated.any()
    assert "env: Pays-v0 reported one step as terminated and truncated: it counts as terminated" in lines


@pytest.mark.parametrize(("max_t", "ends", "terminated"), [(3, 3, True), (3, 4, False), (4, 3, True)])
def test_an_end_at_the_time_limit(pays, max_t, ends, terminated):
    step = returns_of_an_episode(pays(max_t=max_t, ends=ends))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([terminated] * 2, [not terminated] * 2)
