"""From the agent's actions to the env's: numbers, bounds, shapes."""

import numpy as np
import pytest
from gymnasium import spaces

from slm_lab.env.actions import map_actions
from slm_lab.env.observations import map_obs
from slm_lab.env.translate import Translator
from slm_lab.types import Continuous


@pytest.mark.parametrize(
    ("space", "action", "want"),
    [
        (spaces.Discrete(3, start=5), 2, 7),
        (spaces.MultiDiscrete([2, 3], start=[10, -1]), [1, 0], [11, -1]),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), [1, 2, 3, 4], [[1, 2], [3, 4]]),
        (spaces.MultiBinary([2, 2]), [1, 0, 0, 1], [[1, 0], [0, 1]]),
        (spaces.Box(-2, 2, (2, 2)), [-1, 0, 0.5, 9], [[-2, 0], [1, 2]]),
        (spaces.Box(0, 5, (3,), np.int32), [-1, 0.2, 1], [0, 3, 5]),
        (spaces.Box(10, 14, (1, 2), np.uint8), [-1, 0.26], [[10, 13]]),
        (spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64), [-1, 0], [-(2**63), -512]),
        (spaces.Box(-1, 1, (1,), np.float16), [0.5], [0.5]),
        (spaces.Box(-2, 4, (), np.float32), [0.5], 2.5),
        (spaces.Box(-3, 9, (), np.int32), [0.5], 6),
    ],
    ids=str,
)
def test_actions_reach_the_env_in_its_numbers(space, action, want):
    maps = map_actions(space, "x")
    translator = Translator("x", map_obs(spaces.Discrete(2), "x"), maps)
    batch = np.array([action], maps.dtype)
    for given in (maps.each(batch)[0], translator.act(batch, alone=True)):
        assert np.asarray(given).tolist() == want
        assert space.contains(given)


@pytest.mark.parametrize("high", [np.finfo(np.float32).max, np.float32(2e38), np.float32(1e30)])
def test_wide_bounds_do_not_overflow(high):
    space = spaces.Box(-high, high, (1,), np.float32)
    maps = map_actions(space, "x")
    for a, share in ((-0.918, -0.918), (0.25, 0.25), (-1, -1), (1, 1), (30.0, 1), (-30.0, -1)):
        got = maps.decode(np.array([[a]], np.float32))[0]
        assert space.contains(got)
        assert np.isclose(got[0] / float(high), share, rtol=1e-6)


def test_the_last_integer_is_reached():
    space = spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64)
    got = map_actions(space, "x").decode(np.array([[1.0]], np.float32))[0]
    assert space.contains(got)
    assert got[0] > 0.999 * 2**63


def test_several_axes_are_flattened_for_the_agent():
    assert map_actions(spaces.Box(-1, 3, (2, 3)), "x").space == Continuous(6, (-1.0,) * 6, (3.0,) * 6)


def test_rounding_does_not_lead_out_of_the_bounds():
    rng = np.random.default_rng(0)
    for _ in range(300):
        low, high = np.sort(rng.normal(size=2) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
        space = spaces.Box(low, high, (1,))
        for a in (-1, 1, -0.99999994, 0.99999994):
            assert space.contains(map_actions(space, "x").decode(np.array([[a]], np.float32))[0])
