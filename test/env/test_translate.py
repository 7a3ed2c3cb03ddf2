"""What lies between env and agent, for who acts in envs of their own: the same as in training."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from loguru import logger

from slm_lab.env.make import make_env
from slm_lab.env.observations import map_obs
from slm_lab.env.parts import Seen
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import renew_notes
from slm_lab.spec.model import EnvSpec
from slm_lab.types import PackedShape

SCREEN = spaces.Box(0, 255, (12, 9, 3), np.uint8)


class Shows(gym.Env):
    """Shows samples of a space."""

    action_space = spaces.Discrete(2)

    def __init__(self, obs):
        self.observation_space = obs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen = self.observation_space.sample()
        return self.seen, {}

    def step(self, action):
        self.seen = self.observation_space.sample()
        return self.seen, 1.0, False, False, {}


@pytest.fixture
def shows():
    made: list[Shows] = []

    def create(**kwargs):
        made.append(Shows(**kwargs))
        return made[-1]

    def make(obs, n=2, **keys):
        gym.register("Shows-v0", create)
        env = make_env(EnvSpec(name="Shows-v0", num_envs=n, max_frame=1, vectorization="sync", obs=obs, **keys))
        env.reset(0)
        return env, made

    yield make
    gym.registry.pop("Shows-v0", None)


OBSERVATIONS = [
    spaces.Box(-2, 3, (4,), np.float64),
    spaces.Box(0, 1, (2, 3), np.uint8),
    spaces.Box(3, 13, (5,), np.uint8),
    spaces.Box(0, 255, (7, 7, 6), np.uint8),
    spaces.Box(0, 1, (10, 10, 6), bool),
    spaces.Box(0, 1, ()),
    spaces.Discrete(6, start=-2),
    spaces.MultiDiscrete([2, 3], start=[4, 0]),
    spaces.MultiBinary([2, 2]),
    spaces.Dict(a=spaces.Box(-1, 1, (2, 2)), b=spaces.Discrete(3)),
    spaces.Dict(screen=SCREEN, side=spaces.Discrete(3, start=1), deep=spaces.Dict(x=spaces.Box(-1, 1, (3,)))),
    spaces.Tuple([SCREEN, spaces.Box(-1, 1, (1,)), spaces.Tuple([spaces.MultiBinary(2)])]),
    spaces.Dict(
        grid=spaces.Box(0, 255, (9, 8), np.uint8),
        far=spaces.Box(0, 1, (8, 6, 2)),
        few=spaces.Box(0, 255, (3,), np.uint8),
    ),
    spaces.Dict({3: spaces.Box(-1, 1, (2,)), 7: spaces.Discrete(3)}),
    spaces.Tuple([spaces.Dict(a=spaces.Box(-1, 1, (2,))), spaces.Discrete(3)]),
]


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_what_the_env_shows_becomes_what_training_sees(shows, space):
    env, made = shows(space, n=3)
    env.step(np.zeros(3, int))
    translator = env.translator()
    seen = [e.seen for e in made]
    rows, alone = translator.observe(seen[0])
    assert alone
    assert np.array_equal(rows, env.obs[:1])
    assert rows.dtype == env.info.obs_dtype
    together = gym.vector.utils.concatenate(space, seen, gym.vector.utils.create_empty_array(space, 3))
    for batch in (together, seen):
        rows, alone = env.translator().observe(batch)
        assert not alone
        assert np.array_equal(rows, env.obs)


def test_bytes_are_scaled_by_their_bounds():
    space = spaces.Box(np.array([3, 0, 7], np.uint8), np.array([13, 255, 7], np.uint8), dtype=np.uint8)
    rows, _ = map_obs(space, "x").rows(np.array([8, 51, 7], np.uint8))
    assert np.allclose(rows, [[0.5, 0.2, 0.0]])
    assert map_obs(spaces.Box(0, 255, (3,), np.uint8), "x").dtype == np.uint8


@pytest.mark.parametrize(
    ("shape", "axes", "want"),
    [
        ((12, 12, 5), None, (5, 12, 12)),
        ((12, 14, 9), None, (9, 12, 14)),
        ((10, 10, 6), None, (6, 10, 10)),
        ((4, 84, 84), None, (4, 84, 84)),
        ((6, 10, 10), None, (6, 10, 10)),
        ((9, 9, 9), None, (9, 9, 9)),
        ((9, 8, 9), "HWC", (9, 9, 8)),
        ((12, 12, 5), "CHW", (12, 12, 5)),
    ],
)
def test_channels_are_the_smallest_axis_unless_told(shape, axes, want):
    space = spaces.Box(0, 255, shape, np.uint8)
    maps = map_obs(space, "x", Seen(image_axes=axes))
    assert maps.shape == want
    image = space.sample()
    turned = image if want == shape else np.moveaxis(image, -1, 0)
    assert np.array_equal(maps.rows(image)[0][0], turned)


def test_reals_without_bounds_are_turned_as_others_are():
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lines.append, level="INFO", format="{message}")
    maps = map_obs(spaces.Box(-np.inf, np.inf, (10, 12, 6)), "x")
    logger.remove(sink)
    assert (maps.shape, maps.parts[0].image) == ((6, 10, 12), True)
    obs = np.arange(720, dtype=np.float32).reshape(10, 12, 6)
    assert np.array_equal(maps.rows(obs)[0][0], np.moveaxis(obs, -1, 0))
    assert lines == ["env: images of x are read as 6 channels of 10 x 12\n"]


@pytest.mark.parametrize(
    ("space", "axes", "want"),
    [
        (spaces.Box(-1, 1, (2, 3, 4)), None, (24,)),
        (spaces.Box(-1, 1, (3, 4, 2)), None, (24,)),
        (spaces.Box(-1, 1, (2, 3, 4)), "HWC", (4, 2, 3)),
        (spaces.Box(-1, 1, (8, 8, 2)), None, (2, 8, 8)),
        (spaces.Box(-np.inf, np.inf, (10, 10, 6)), None, (6, 10, 10)),
        (spaces.Box(-np.inf, np.inf, (3, 20, 6)), None, (360,)),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), None, (3, 7, 7)),
    ],
    ids=str,
)
def test_a_part_is_an_image_if_it_is_no_small_table(space, axes, want):
    maps = map_obs(spaces.Dict(a=space, b=spaces.Box(0, 255, (9, 9, 1), np.uint8)), "x", Seen(image_axes=axes))
    [part] = [part for part in maps.parts if part.name == "a"]
    assert (part.shape, part.image) == (want, len(want) == 3)


def test_parts_are_views_of_the_row():
    space = spaces.Dict(screen=SCREEN, side=spaces.Discrete(3, start=1), speed=spaces.Box(-9, 9, (2,)))
    maps = map_obs(space, "x")
    assert isinstance(maps.shape, PackedShape)
    assert [(p.name, p.shape, p.dtype, p.begin, p.end) for p in maps.shape.parts] == [
        ("side", (3,), "float32", 0, 12),
        ("speed", (2,), "float32", 12, 20),
        ("screen", (3, 12, 9), "uint8", 20, 20 + 324),
    ]
    assert maps.shape == (344,)
    obs = {"screen": SCREEN.sample(), "side": 3, "speed": np.array([1.5, -2.0], np.float32)}
    row = np.zeros(344, np.uint8)
    maps.write(row, obs)
    side, speed, screen = maps.views(row)
    assert side.tolist() == [0, 0, 1]
    assert speed.tolist() == [1.5, -2.0]
    assert np.array_equal(screen, np.moveaxis(obs["screen"], -1, 0))


MIXED = spaces.Dict(
    image=SCREEN, direction=spaces.Discrete(4), mission=spaces.Text(9), deep=spaces.Dict(a=spaces.Discrete(2), b=SCREEN)
)


def test_a_single_part_is_the_observation():
    maps = map_obs(MIXED, "x", Seen(("image",)))
    assert maps.shape == (3, 12, 9)
    assert not isinstance(maps.shape, PackedShape)
    obs = MIXED.sample()
    assert np.array_equal(maps.rows(obs)[0][0], np.moveaxis(obs["image"], -1, 0))


class Own(spaces.Space):
    """A space that gymnasium knows nothing of."""

    def __init__(self, dtype=None):
        super().__init__(dtype=dtype)


SAME_NAME = spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(3)), "c": spaces.Discrete(4)})


@pytest.mark.parametrize(
    ("space", "keys", "names"),
    [
        (MIXED, None, ["direction", "deep.a", "image", "deep.b"]),
        (MIXED, ("image", "direction"), ["direction", "image"]),
        (MIXED, ("deep",), ["deep.a", "deep.b"]),
        (MIXED, ("deep.a", "direction"), ["direction", "deep.a"]),
        # two parts of one name are left out, and a text of a class of its own
        (SAME_NAME, ("c",), ["c"]),
        (spaces.Dict(a=spaces.Discrete(2), mission=Own(str)), None, ["a"]),
    ],
)
def test_parts_are_picked(space, keys, names):
    assert [part.name for part in map_obs(space, "x", Seen(keys)).parts] == names


@pytest.mark.parametrize(
    ("space", "seen", "text"),
    [
        (SAME_NAME, Seen(), "env.name: observations of x have several parts named 'a.b'"),
        (SAME_NAME, Seen(("a",)), "env.name: observations of x have several parts named 'a.b'"),
        (spaces.Dict(a=spaces.Discrete(2), b=Own()), Seen(), "env.name: x gives observations from .* as its part 'b'"),
        (MIXED, Seen(("mission",)), "env.obs_keys: x gives observations from Text.* as its part 'mission'"),
        (spaces.Dict(a=Own(str)), Seen(), "env.name: x shows nothing that a net can read"),
        (MIXED, Seen(("imag",)), "env.obs_keys: observations of x have no part 'imag', did you mean 'image'"),
        (SCREEN, Seen(("image",)), "env.obs_keys: observations of x have no parts"),
        (spaces.Discrete(2), Seen(None, "HWC"), "env.image_axes: x shows no images"),
    ],
)
def test_observations_that_are_refused_by_name(space, seen, text):
    with pytest.raises(LabError, match=text):
        map_obs(space, "x", seen)


@pytest.mark.parametrize(
    ("space", "obs", "text"),
    [
        (
            spaces.MultiDiscrete([3, 3]),
            [4, 0],
            "observation is outside its space: 4 in place 0, must be from 0 to 2",
        ),
        (spaces.MultiDiscrete([3, 3]), [0, -1], "an observation is outside its space: -1 in place 1"),
        (spaces.MultiDiscrete([2, 3], start=[5, 1]), [6, 4], "4 in place 1, must be from 1 to 3"),
        (spaces.Discrete(3), 3, "an observation is outside its space: 3, must be from 0 to 2"),
        (spaces.Discrete(3), np.int8(-1), "outside its space: -1, must be"),
        (
            spaces.Dict(a=spaces.Discrete(3, start=2), b=spaces.Discrete(2)),
            {"a": 1, "b": 0},
            "part 'a' of an observation is outside its space: 1, must be from 2 to 4",
        ),
    ],
)
def test_integers_outside_their_space_are_an_error_in_training(shows, space, obs, text):
    maps = map_obs(space, "x")
    with pytest.raises(LabError, match=text):
        maps.write(np.zeros(maps.shape, maps.dtype), obs)
    env, made = shows(space, n=2)
    made[1].observation_space = SimpleNamespace(sample=lambda: obs)
    with pytest.raises(LabError, match=text):
        env.step(np.zeros(2, int))


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.uint64])
def test_integers_of_every_kind_become_one_hot(kind):
    maps = map_obs(spaces.MultiDiscrete([2, 3], start=[5, 1]), "x")
    rows = np.zeros((2, 5), np.float32)
    maps.write(rows, np.array([[6, 3], [5, 1]], kind))
    assert rows.tolist() == [[0, 1, 0, 0, 1], [1, 0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("space", "obs", "text"),
    [
        (spaces.Box(-1, 1, (4,)), np.zeros(3), r"obs: shape \(3,\), must be \(4,\)"),
        (spaces.Box(-1, 1, (4,)), ["a", "b", "c", "d"], "obs: must be numbers"),
        (spaces.Discrete(3), 3, "obs: 3 is none of its values"),
        (MIXED, {"image": SCREEN.sample()}, "obs.direction: missing"),
    ],
)
def test_what_is_no_observation(space, obs, text):
    with pytest.raises(ValueError, match=text):
        map_obs(space, "x").rows(obs)


def test_normalized_and_clipped_as_in_training(shows):
    env, made = shows(spaces.Box(900, 1100, (3,)), n=2, normalize_obs=True, clip_obs=1.0)
    for _ in range(20):
        env.step(np.zeros(2, int))
    rows = env.translator().observe([e.seen for e in made])[0]
    # the statistics as they stand, which nobody changes by acting
    assert np.allclose(rows, env.obs)
    before = env.normalizer_state()
    env.translator().observe([e.seen for e in made])
    assert env.normalizer_state() == before


@pytest.mark.parametrize("op", ["concat", "stack"])
@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), MIXED], ids=["vector", "parts"])
def test_earlier_frames_are_remembered_until_an_episode_ends(shows, op, space):
    env, made = shows(space, n=1, frame_op=op, frame_op_len=3)
    translator = env.translator()
    rows = translator.observe(made[0].seen)[0]
    assert np.array_equal(rows, env.obs)
    for _ in range(4):
        env.step(np.zeros(1, int))
        rows = translator.observe(made[0].seen)[0]
        assert np.array_equal(rows, env.obs)
    translator.forget(np.array([True]))
    again = translator.observe(made[0].seen)[0]
    fresh = env.translator().observe(made[0].seen)[0]
    assert np.array_equal(again, fresh)
    assert not np.array_equal(again, rows)


def test_frames_of_parts_are_joined_part_by_part(shows):
    space = spaces.Dict(screen=spaces.Box(0, 255, (8, 9, 1), np.uint8), v=spaces.Box(-1, 1, (3,)))
    env, made = shows(space, n=2, frame_op="concat", frame_op_len=2)
    first = [e.seen for e in made]
    env.step(np.zeros(2, int))
    shape = env.info.obs_shape
    assert [(p.name, p.shape) for p in shape.parts] == [("v", (6,)), ("screen", (2, 8, 9))]
    for row, a, b in zip(env.obs, first, [e.seen for e in made], strict=True):
        v, screen = row[:24].view(np.float32), row[24 : 24 + 144].reshape(2, 8, 9)
        assert np.allclose(v, np.concatenate([a["v"], b["v"]]))
        assert np.array_equal(screen, np.stack([a["screen"][..., 0], b["screen"][..., 0]]))


def test_only_vectors_of_parts_are_normalized(shows):
    space = spaces.Dict(screen=SCREEN, v=spaces.Box(100, 300, (3,)))
    env, made = shows(space, n=4, normalize_obs=True)
    for _ in range(50):
        env.step(np.zeros(4, int))
    v = env.obs[:, :12].copy().view(np.float32)
    assert np.abs(v).max() < 3
    for row, one in zip(env.obs, made, strict=True):
        assert np.array_equal(row[12:].reshape(3, 12, 9), np.moveaxis(one.seen["screen"], -1, 0))
