"""Nets for observations of several parts."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from loguru import logger

from slm_lab.agent.net.check import net_faults
from slm_lab.agent.net.critic import StateActionNet
from slm_lab.agent.net.parts import take_apart, usual_convolutions
from slm_lab.env.observations import map_obs
from slm_lab.lib.errors import SpecError
from slm_lab.lib.log import renew_notes
from slm_lab.lib.registry import lookup
from slm_lab.types import PackedShape

SPACE = spaces.Dict(screen=spaces.Box(0, 255, (8, 9, 3), np.uint8), flag=spaces.Discrete(2), v=spaces.Box(-1, 1, (3,)))
REALS = spaces.Dict(screen=spaces.Box(0, 1, (8, 9, 3)), v=spaces.Box(-1, 1, (3,)))
VECTORS = spaces.Dict(a=spaces.Box(-1, 1, (3,)), b=spaces.Discrete(2))


def make(shape: tuple[int, ...], type: str = "MultiInputNet", **keys: Any) -> Any:
    cls = lookup("net", type)
    spec = cls.Spec.model_validate({"type": type, **keys}).for_role("actor")
    return cls(spec, shape, {"policy": 4})


def rows(space: spaces.Dict, n: int = 5) -> tuple[PackedShape, torch.Tensor, list[dict[str, Any]]]:
    space.seed(0)
    seen = [space.sample() for _ in range(n)]
    maps = map_obs(space, "x")
    assert isinstance(maps.shape, PackedShape)
    return maps.shape, torch.from_numpy(maps.rows(seen)[0]), seen


@pytest.mark.parametrize("space", [SPACE, REALS], ids=["bytes", "reals"])
def test_a_row_is_taken_apart_into_views(space):
    shape, obs, seen = rows(space)
    parts = dict(zip([part.name for part in shape.parts], take_apart(obs, shape), strict=True))
    for i, one in enumerate(seen):
        assert np.allclose(parts["v"][i].numpy(), one["v"])
        assert np.array_equal(parts["screen"][i].numpy(), np.moveaxis(one["screen"], -1, 0))
    assert parts["screen"].data_ptr() >= obs.data_ptr()
    assert parts["screen"].data_ptr() < obs.data_ptr() + obs.nbytes


def test_every_part_reaches_the_heads():
    shape, obs, seen = rows(SPACE, 1)
    net = make(shape, fc_hid_layers=[8], hid_layers=[6], joint_hid_layers=[7])
    assert net.features(obs).shape == (1, 7)
    maps, out = map_obs(SPACE, "x"), net(obs)[0]
    for name, other in {"screen": seen[0]["screen"] ^ 255, "flag": 1 - seen[0]["flag"], "v": -seen[0]["v"]}.items():
        changed = torch.from_numpy(maps.rows({**seen[0], name: other})[0])
        assert not torch.allclose(net(changed)[0], out)


def test_images_are_from_0_to_1():
    shape, obs, _ = rows(SPACE)
    net = make(shape, parts={"screen": {"hid_layers": []}, "flag": {"hid_layers": []}})
    features = net.parts_body(obs)
    # screen and flag as they are, then v through the layers of the rest
    image = take_apart(obs, shape)[2].flatten(1)
    assert torch.allclose(features[:, 2 : 2 + 216], image / 255)
    assert features.shape[1] == 216 + 2 + 64


def test_a_part_has_a_body_of_its_own():
    shape, obs, _ = rows(SPACE)
    net = make(
        shape, parts={"screen": {"conv_hid_layers": [[4, 3, 1, 0, 1]], "fc_hid_layers": [5]}, "v": {"hid_layers": [6]}}
    )
    assert [body.width for body in net.parts_body.bodies] == [6, 5]
    assert net(obs)[0].shape == (5, 4)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"sceen": {}}, "agent.net.parts.sceen: no such part, did you mean 'screen'"),
        ({"flag": {"conv_hid_layers": [[4, 3, 1, 0, 1]]}}, r"agent.net.parts.flag: is no image but \[2\]"),
        ({"screen": {"conv_hid_layers": [[4, 99, 1, 0, 1]]}}, "agent.net.parts.screen: nothing is left of an image"),
    ],
)
def test_parts_that_do_not_fit(parts, text):
    with pytest.raises(SpecError, match=text):
        make(rows(SPACE)[0], parts=parts)


@pytest.mark.parametrize("shape", [(3, 8, 9), rows(SPACE)[0]], ids=["image", "parts"])
def test_convolutions_of_all_images_are_told_under_their_own_key(shape):
    with pytest.raises(SpecError, match=r"agent\.net\.conv_hid_layers: nothing is left of an image"):
        make(shape, conv_hid_layers=[[4, 99, 1, 0, 1]])


def test_a_part_is_an_image_or_a_vector():
    net = {"type": "auto", "parts": {"screen": {"hid_layers": [3], "fc_hid_layers": [3]}}}
    with pytest.raises(ValueError, match="kinds") as caught:
        lookup("net", "auto").Spec.model_validate(net)
    assert "{why}" not in str(caught.value)


@pytest.mark.parametrize("type", ["ConvNet", "TorchArcNet"])
def test_nets_of_one_input_refuse_parts(type):
    arc = {"modules": {"a": {"Sequential": ["Tanh"]}}, "graph": {"input": "x", "modules": {"a": ["x"]}, "output": "a"}}
    keys = {"conv_hid_layers": [[4, 3, 1, 0, 1]]} if type == "ConvNet" else {"arc": arc}
    with pytest.raises(SpecError, match=r"not parts \(flag, v, screen\): use MultiInputNet"):
        make(rows(SPACE)[0], type, **keys)


@pytest.mark.parametrize("type", ["MLPNet", "RecurrentNet"])
def test_nets_for_vectors_read_images_through_convolutions_and_say_so(type):
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}")
    keys = {"hid_layers": [6]} if type == "MLPNet" else {"rnn_hidden_size": 6, "seq_len": 2}
    net = make(rows(SPACE)[0], type, **keys)
    logger.remove(sink)
    assert any(isinstance(module, torch.nn.Conv2d) for module in net.modules())
    assert lines[-1:] == [f"agent.net: {type} reads images (screen) through convolutions first, as MultiInputNet does"]


def test_vectors_alone_are_one_vector():
    shape, obs, _ = rows(VECTORS)
    assert shape.flat
    net = make(shape, "MLPNet", hid_layers=[6])
    assert net.front is None
    assert torch.equal(net(obs)[0], net(obs.clone())[0])
    apart = make(shape, parts={"a": {"hid_layers": [3]}})
    assert apart.parts_body.width == 3 + 64


@pytest.mark.parametrize(("shape", "image"), [((5,), False), ((3, 8, 9), True), ((2, 6), False)])
def test_auto_is_an_mlp_or_a_convolutional_net(shape, image):
    net = make(shape, "auto", fc_hid_layers=[8], hid_layers=[6])
    assert any(isinstance(module, torch.nn.Conv2d) for module in net.modules()) == image
    assert net.features(torch.rand((2, *shape))).shape == (2, 8 if image else 6)


@pytest.mark.parametrize("space", [SPACE, REALS, VECTORS], ids=["bytes", "reals", "vectors"])
@pytest.mark.parametrize("keys", [{}, {"hid_layers": [6]}], ids=["auto", "hid_layers"])
def test_critics_of_actions_read_parts(space, keys):
    shape, obs, _ = rows(space)
    cls = lookup("net", "auto")
    spec = cls.Spec.model_validate({"type": "auto", **keys}).for_role("critic")
    net = StateActionNet(cls, spec, shape, 2)
    q = net(obs, torch.zeros(5, 2))
    assert q.shape == (5,)
    assert not torch.allclose(net(obs, torch.ones(5, 2)), q)


def test_larger_images_end_as_small_maps():
    for side in (36, 84, 100, 240, 600):
        left = side
        for _, kernel, stride, padding, _ in usual_convolutions(side, side):
            left = (left + 2 * padding - kernel) // stride + 1
        assert 1 <= left <= 11


def test_keys_are_checked_like_those_of_other_nets():
    spec = lookup("net", "auto").Spec.model_validate({"type": "auto", "hid_layers_activation": "rely"})
    assert "unknown activation 'rely'" in net_faults(spec)[0]


@pytest.mark.parametrize("net", ["MLPNet", "RecurrentNet", "MultiInputNet"])
@pytest.mark.parametrize(
    ("shape", "said"),
    [((20, 31), "620"), ((2, 9, 10), "180"), ((2, 7, 7), None), ((4, 27), None), ((5,), None)],
)
def test_what_reads_a_lone_image_as_a_vector_says_so(net, shape, said):
    renew_notes()
    lines: list[str] = []
    sink = logger.add(lambda m: lines.append(m.strip()), level="INFO", format="{message}")
    keys = {"MLPNet": {"hid_layers": [4]}, "RecurrentNet": {"rnn_hidden_size": 4, "seq_len": 2}}.get(net, {})
    make(shape, net, **keys)
    logger.remove(sink)
    # MultiInputNet reads three axes through convolutions
    if said is None or (net == "MultiInputNet" and len(shape) == 3):
        assert lines == []
    else:
        count = f"{said} numbers in a row"
        assert lines == [
            f"agent.net: {net} reads observations {[*shape]} as {count}; ConvNet would read them as an image"
        ]
