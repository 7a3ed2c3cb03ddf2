from collections.abc import Callable

import pytest

from slm_lab.agent.agent import Agent
from slm_lab.experiment.session.resources import (
    choose_device,
    gpu_pays,
    memory_share,
    parallel_sessions,
    session_threads,
    thread_share,
    update_rows,
    use_compile,
    widest,
)
from slm_lab.lib.compiler import Effort
from slm_lab.lib.errors import SpecError
from slm_lab.spec.model import Spec
from slm_lab.types import Discrete, EnvInfo, ObsPart, PackedShape

Tiny = Callable[..., Spec]


def threads_of(spec: Spec, cores: int, shape: tuple[int, ...] = (4,)) -> int:
    """What its session takes, where observations are of this shape."""
    dtype = "uint8" if len(shape) == 3 else "float32"
    info = EnvInfo("x", shape, dtype, Discrete(2), spec.env.num_envs, 100)
    return session_threads(Agent(spec, info, seed=0).work, thread_share(spec, cores))


@pytest.mark.parametrize(("sessions", "cores", "parallel"), [(4, 2, 2), (4, 16, 4), (1, 8, 1), (3, 1, 1)])
def test_sessions_never_outnumber_the_cores(sessions: int, cores: int, parallel: int) -> None:
    assert parallel_sessions(sessions, cores) == parallel


@pytest.mark.parametrize(
    ("widths", "sessions", "cores", "threads"),
    [
        ([64, 64], 1, 16, 1),
        ([128], 1, 16, 1),
        ([64, 256], 1, 16, 16),
        ([256], 4, 16, 4),
        ([256], 4, 6, 1),
        ([256], 8, 2, 1),
    ],
)
def test_threads_of_a_session(tiny: Tiny, widths: list[int], sessions: int, cores: int, threads: int) -> None:
    spec = tiny(agent__net__hid_layers=widths, meta__max_session=sessions)
    assert threads_of(spec, cores) == threads
    assert threads * parallel_sessions(sessions, cores) <= max(cores, sessions)


VECTOR, TINY, PIXELS = (4,), (3, 7, 7), (4, 84, 84)
NATURE = [[32, 8, 4, 0, 1], [64, 4, 2, 0, 1], [64, 3, 1, 0, 1]]
SMALL = [[16, 2, 1, 0, 1], [32, 2, 1, 0, 1], [64, 2, 1, 0, 1]]
PARTS = PackedShape(
    (152,), (ObsPart("v", (5,), "float32", 0, 5, False), ObsPart("image", (3, 7, 7), "float32", 5, 152, True))
)
SCREEN = PackedShape((28224,), (ObsPart("screen", (4, 84, 84), "float32", 0, 28224, True),))
CELLS = {"type": "RecurrentNet", "seq_len": 4}


@pytest.mark.parametrize(
    ("net", "shape", "small"),
    [
        ({"critic_hid_layers": [512]}, VECTOR, False),
        ({"type": "DuelingMLPNet", "hid_layers": [128]}, VECTOR, True),
        ({"type": "DuelingMLPNet", "hid_layers": [256]}, VECTOR, False),
        ({"type": "auto"}, VECTOR, True),
        ({"type": "MultiInputNet"}, TINY, True),
        ({"type": "MultiInputNet"}, PARTS, True),
        ({"type": "MultiInputNet"}, SCREEN, False),
        ({"type": "MLPNet", "hid_layers": [64]}, PARTS, True),
        # images among parts go through convolutions, whatever comes behind
        ({"type": "MLPNet", "hid_layers": [64]}, SCREEN, False),
        ({"type": "ConvNet", "conv_hid_layers": SMALL, "fc_hid_layers": [64]}, TINY, True),
        ({"type": "ConvNet", "conv_hid_layers": SMALL, "fc_hid_layers": [512]}, TINY, False),
        ({"type": "ConvNet", "conv_hid_layers": [[16, 3, 1, 0, 1]], "fc_hid_layers": [128]}, (6, 10, 10), True),
        ({"type": "DuelingConvNet", "conv_hid_layers": SMALL, "fc_hid_layers": [64]}, TINY, True),
        ({"type": "ConvNet", "conv_hid_layers": NATURE, "fc_hid_layers": [64]}, PIXELS, False),
        ({**CELLS, "rnn_hidden_size": 128}, VECTOR, True),
        ({**CELLS, "rnn_hidden_size": 64}, PARTS, True),
        ({**CELLS, "rnn_hidden_size": 64}, SCREEN, False),
        ({**CELLS, "rnn_hidden_size": 256}, VECTOR, False),
    ],
)
def test_a_net_is_small_by_its_work(tiny: Tiny, net: dict[str, object], shape: tuple[int, ...], small: bool) -> None:
    written = net if "type" in net else tiny().to_dict()["agent"]["net"] | net
    assert (threads_of(tiny(agent__net=written), 16, shape) == 1) is small


@pytest.mark.parametrize(
    ("layers", "small"),
    [
        ([{"LazyLinear": {"out_features": 128}}, "ReLU", {"Linear": [128, 64]}, {"LazyLinear": [64, False]}], True),
        ([{"LazyLinear": {"out_features": 256}}], False),
        ([{"Linear": [4, 256]}], False),
        ([{"Sequential": [{"LazyLinear": [256]}]}], False),
    ],
)
def test_a_net_written_out_may_be_small(tiny: Tiny, layers: list[object], small: bool) -> None:
    graph = {"input": "x", "modules": {"body": ["x"]}, "output": "body"}
    arcs = [{"modules": {"body": {"Sequential": body}}, "graph": graph} for body in (["ReLU"], layers)]
    spec = tiny(agent__net={"type": "TorchArcNet", "arc": arcs[0], "critic_arc": arcs[1]})
    assert (threads_of(spec, 16) == 1) is small


@pytest.mark.parametrize(("side", "small"), [(10, True), (84, False)])
def test_convolutions_written_out_may_be_small(tiny: Tiny, side: int, small: bool) -> None:
    layers = [{"LazyConv2d": [16, 3]}, "ReLU", {"LazyConv2d": [16, 3, 2]}, "Flatten"]
    graph = {"input": "x", "modules": {"body": ["x"]}, "output": "body"}
    spec = tiny(
        agent__net={"type": "TorchArcNet", "arc": {"modules": {"body": {"Sequential": layers}}, "graph": graph}}
    )
    assert (threads_of(spec, 16, (3, side, side)) == 1) is small


@pytest.mark.parametrize(
    ("setting", "max_frame", "compiled"),
    [
        ("auto", 9_999, Effort.OFF),
        ("auto", 99_999, Effort.QUICK),
        ("auto", 100_000, Effort.FULL),
        ("on", 10, Effort.FULL),
        ("off", 10**9, Effort.OFF),
    ],
)
def test_when_to_compile(setting: str, max_frame: int, compiled: Effort) -> None:
    assert use_compile(setting, max_frame, {"type": "MLPNet"}) is compiled


@pytest.mark.parametrize(
    ("gpu", "width", "device", "numbers", "chosen"),
    [
        ("auto", 64, "auto", (0, 0, 2), "cpu"),
        ("auto", 512, "auto", (0, 0, 2), "cuda:0"),
        ("auto", 512, "auto", (0, 0, 0), "cpu"),
        (True, 64, "auto", (3, 0, 2), "cuda:1"),
        (True, 64, "auto", (3, 1, 2), "cuda:0"),
        (False, 512, "auto", (0, 0, 2), "cpu"),
        (False, 64, "cuda", (1, 0, 4), "cuda:1"),
        (True, 512, "cuda:3", (1, 1, 4), "cuda:3"),
        (True, 512, "cpu", (1, 1, 4), "cpu"),
    ],
)
def test_the_device_of_a_session(
    tiny: Tiny, gpu: object, width: int, device: str, numbers: tuple[int, int, int], chosen: str
) -> None:
    spec = tiny(agent__net__gpu=gpu, agent__net__hid_layers=[width])
    assert choose_device(spec, device, *numbers) == chosen


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_told(tiny: Tiny, device: str) -> None:
    with pytest.raises(SpecError, match=r"--device: 'cuda.*', but torch finds no GPU"):
        choose_device(tiny(), device, 0, 0, 0)


@pytest.mark.parametrize(
    ("width", "rows", "pays"),
    [
        (64, 64, False),
        (64, 4095, False),
        (64, 4096, True),
        (65, 1023, False),
        (65, 1024, True),
        (128, 1024, True),
        (129, 1, True),
        (None, 1, True),
    ],
)
def test_when_a_gpu_pays(width: int | None, rows: int, pays: bool) -> None:
    assert gpu_pays(width, rows) is pays


def test_large_batches_of_a_small_net_go_to_a_gpu(tiny: Tiny) -> None:
    spec = tiny(agent__net__hid_layers=[64, 32])
    assert widest(spec.agent.net) == 64
    assert choose_device(spec, "auto", 0, 0, 1) == "cpu"
    many = 4096 * spec.env.num_envs
    wide = tiny(agent__net__hid_layers=[64, 32], env__num_envs=many)
    assert update_rows(wide) == 4096 * update_rows(spec)
    assert choose_device(wide, "auto", 0, 0, 1) == "cuda:0"


@pytest.mark.parametrize(
    ("gpu", "sessions", "cores", "share"),
    [(0.5, 1, 8, 0.5), (0.5, 2, 8, 0.25), (0.5, 8, 2, 0.25), (1, 1, 8, None), (0, 1, 8, None), (None, 1, 8, None)],
)
def test_sessions_of_a_search_share_the_memory_of_a_gpu(
    tiny: Tiny, gpu: float | None, sessions: int, cores: int, share: float | None
) -> None:
    asked = None if gpu is None else {"gpu": gpu}
    assert memory_share(tiny(meta__search_resources=asked, meta__max_session=sessions), cores) == share
