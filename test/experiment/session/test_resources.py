from collections.abc import Callable

import pytest

from slm_lab.experiment.session.resources import (
    available_cores,
    choose_device,
    gpu_pays,
    is_small,
    memory_share,
    parallel_sessions,
    session_threads,
    update_rows,
    use_compile,
    widest,
)
from slm_lab.lib.compiler import Effort
from slm_lab.lib.errors import SpecError
from slm_lab.spec.model import Spec

Tiny = Callable[..., Spec]


def test_there_is_a_core() -> None:
    assert available_cores() >= 1


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
    assert session_threads(spec, cores) == threads
    assert threads * parallel_sessions(sessions, cores) <= max(cores, sessions)


def test_a_wide_critic_is_not_small(tiny: Tiny) -> None:
    assert is_small(tiny().agent.net)
    assert not is_small(tiny(agent__net__critic_hid_layers=[512]).agent.net)


def test_a_dueling_net_is_as_small_as_its_layers(tiny: Tiny) -> None:
    for name in ("DuelingMLPNet", "MLPNet"):
        assert session_threads(tiny(agent__net={"type": name, "hid_layers": [128]}), 16) == 1
    assert not is_small(tiny(agent__net={"type": "DuelingMLPNet", "hid_layers": [256]}).agent.net)


@pytest.mark.parametrize(
    ("layers", "small"),
    [
        ([{"LazyLinear": {"out_features": 128}}, "ReLU", {"Linear": [128, 64]}, {"LazyLinear": [64, False]}], True),
        ([{"LazyLinear": {"out_features": 256}}], False),
        ([{"Linear": [4, 256]}], False),
        ([{"Sequential": [{"LazyLinear": [256]}]}], False),
        ([{"LazyConv2d": [4, 3]}, "Flatten"], False),
    ],
)
def test_a_net_written_out_may_be_small(tiny: Tiny, layers: list[object], small: bool) -> None:
    graph = {"input": "x", "modules": {"body": ["x"]}, "output": "body"}
    arcs = [{"modules": {"body": {"Sequential": body}}, "graph": graph} for body in (["ReLU"], layers)]
    spec = tiny(agent__net={"type": "TorchArcNet", "arc": arcs[0], "critic_arc": arcs[1]})
    assert is_small(spec.agent.net) is small


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
    assert use_compile(setting, max_frame) is compiled


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
