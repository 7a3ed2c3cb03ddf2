"""How a trial shares the machine: cores, threads, devices, and whether compiling pays.

Pure functions of the spec and of what the machine has, so that a resumed run decides as the run before it did.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slm_lab.lib.compiler import Effort
from slm_lab.lib.errors import SpecError
from slm_lab.lib.registry import lookup
from slm_lab.spec.model import NetSpec, Spec

if TYPE_CHECKING:
    from slm_lab.agent.net.work import Work
    from slm_lab.experiment.session.run import Run

SMALL_WIDTH = 128
"""Fully connected nets up to this width are slower on more threads than on one."""
SMALL_CONVOLUTIONS = 500_000
"""Multiply-adds per image: so are nets whose convolutions have no more. MiniGrid's take 0.2 million, Atari's 8."""
GPU_ROWS = {SMALL_WIDTH: 1024, SMALL_WIDTH // 2: 4096}
"""Rows of an update from which a GPU pays, for fully connected nets up to that width."""
COMPILE_FROM = {Effort.QUICK: 10_000, Effort.FULL: 100_000}
"""Frames of a session from which `meta.compile: auto` spends that much on compilation."""


def parallel_sessions(sessions: int, cores: int) -> int:
    """Sessions run at a time: all, but no more than there are cores.

    >>> parallel_sessions(4, 2), parallel_sessions(4, 16)
    (2, 4)
    """
    return max(1, min(sessions, cores))


def thread_share(spec: Spec, cores: int) -> int:
    """torch threads that a session may have at most: an equal share of the cores.

    It follows from `meta.max_session`, not from how many sessions are left: sums over another number of threads may
    differ in their last bit, so a resumed session must have as many as before.
    """
    return max(1, cores // parallel_sessions(spec.meta.max_session, cores))


def session_threads(work: "Work", share: int) -> int:
    """torch threads of a session whose nets have this work: 1 for small ones, else its share of the cores."""
    is_small = work.width <= SMALL_WIDTH and work.convolutions <= SMALL_CONVOLUTIONS
    return 1 if is_small else share


def widest(net: NetSpec) -> int | None:
    """Units of the widest layer of a net that is fully connected, or recurrent; None: it has other layers."""
    if net.type == "TorchArcNet":
        arcs = [getattr(net, key) for key in type(net).model_fields if key.endswith("arc")]
        return None if "Conv" in str(arcs) else max(_linear_widths(arcs), default=0)
    if not net.type.upper().startswith(("MLP", "DUELINGMLP", "RECURRENT")):
        return None
    wide = ("hid_layers", "rnn_hidden_size")
    widths = [w for key in type(net).model_fields if key.endswith(wide) for w in _widths(getattr(net, key))]
    return max(widths, default=0)


def gpu_pays(width: int | None, rows: int) -> bool:
    """Whether a GPU is likely to be faster than a CPU. A rule of thumb: it was not measured yet.

    A small net on few rows is done before a GPU has begun. `GPU_ROWS` says from how many rows of an update on it pays,
    by the widest layer; nets with images, or wider layers, pay always.

    >>> gpu_pays(64, 64), gpu_pays(64, 4096), gpu_pays(128, 1024), gpu_pays(256, 32), gpu_pays(None, 32)
    (False, True, True, True, True)
    """
    if width is None:
        return True
    return all(rows >= least for limit, least in GPU_ROWS.items() if width <= limit)


def update_rows(spec: Spec) -> int:
    """Rows that one gradient step learns from, as far as the spec says."""
    algorithm, memory = spec.agent.algorithm, spec.agent.memory
    if (size := getattr(algorithm, "minibatch_size", None)) is not None:
        return int(size)
    if not getattr(lookup("memory", memory.name), "on_policy", True):
        return int(getattr(memory, "batch_size", 1))
    return spec.env.num_envs * int(getattr(algorithm, "frequency", 1))


def needs_inductor(net: Mapping[str, Any] | NetSpec) -> bool:
    """Whether updates of such a net are likely to be beyond the quick compiler, from its keys alone."""
    keys = net if isinstance(net, Mapping) else vars(net)
    return keys.get("type") != "MLPNet" or bool(keys.get("batch_norm"))


def use_compile(setting: object, max_frame: float, net: Mapping[str, Any] | NetSpec) -> Effort:
    """Whether to compile.

    Args:
        setting: `meta.compile`. `auto`: with what a session of so many frames wins back, see COMPILE_FROM.
        max_frame: frames of a session.
        net: its keys.

    >>> [use_compile("auto", frames, {"type": "MLPNet"}).name for frames in (9_999, 10_000, 100_000)]
    ['OFF', 'QUICK', 'FULL']
    >>> [use_compile("auto", frames, {"type": "ConvNet"}).name for frames in (9_999, 10_000, 100_000)]
    ['OFF', 'OFF', 'FULL']
    """
    if setting == "auto":
        effort = max((e for e, frames in COMPILE_FROM.items() if max_frame >= frames), default=Effort.OFF)
        return Effort.OFF if effort is Effort.QUICK and needs_inductor(net) else effort
    return Effort.FULL if setting == "on" else Effort.OFF


def choose_device(spec: Spec, device: str, session: int, offset: int, cuda_count: int) -> str:
    """The torch device of a session.

    Args:
        spec: its `net.gpu` decides under `auto`: true takes a GPU where there is one, `auto` does where it pays.
        device: what the user said; `auto`, `cpu`, `cuda` or `cuda:1`.
        session: sessions on `cuda` go round the GPUs.
        offset: first GPU to use.
        cuda_count: GPUs present.

    Raises:
        SpecError: a GPU is asked for by name where there is none, or for a distributed run.
    """
    if spec.meta.distributed:
        if device not in ("auto", "cpu"):
            raise SpecError(
                [f"--device: '{device}', but distributed sessions share the memory of the CPU (cpu or auto)"]
            )
        return "cpu"
    if device == "auto":
        gpu = spec.agent.net.gpu
        wanted = gpu_pays(widest(spec.agent.net), update_rows(spec)) if gpu == "auto" else gpu
        device = "cuda" if wanted and cuda_count else "cpu"
    if device.startswith("cuda") and cuda_count == 0:
        raise SpecError([f"--device: '{device}', but torch finds no GPU here (cpu and auto would do)"])
    if device == "cuda":
        return f"cuda:{(offset + session) % max(1, cuda_count)}"
    return device


def search_shares(spec: Spec) -> tuple[int | None, float | None]:
    """Cores and GPUs that each trial of a search asks for; None: what suits it."""
    asked = spec.meta.search_resources
    return (None, None) if asked is None else (asked.cpu, asked.gpu)


def memory_share(spec: Spec, cores: int) -> float | None:
    """The share of a GPU's memory that one session of a trial may take, so that trials on one GPU keep their places.

    A trial that asks for a part of a GPU gets this part of its memory, in equal shares for the sessions that it runs at
    a time. None: the session may take what there is.
    """
    gpu = search_shares(spec)[1]
    if gpu is None or not 0 < gpu < 1:
        return None
    return gpu / parallel_sessions(spec.meta.max_session, cores)


def take_device(run: "Run") -> str:
    """The device of a session. In a search it takes no more of a GPU's memory than its trial asked for."""
    import torch

    cuda = torch.cuda.device_count() if run.options.device != "cpu" else 0
    device = choose_device(run.spec, run.options.device, run.session // run.batch, run.options.cuda_offset, cuda)
    share = memory_share(run.spec, run.cores) if run.mode == "search" else None
    if share is not None and device.startswith("cuda"):
        torch.cuda.set_per_process_memory_fraction(share, device)
    return device


def share_faults(spec: Spec, cores: int, gpus: float) -> list[str]:
    """Where a trial of a search asks for more cores than the largest machine has, or GPUs than all have."""
    return [
        f"meta.search_resources.{name}: a trial asks for {asked:g}, no machine has more than {there:g}"
        for name, asked, there in zip(("cpu", "gpu"), search_shares(spec), (cores, gpus), strict=True)
        # without any GPU trials run on the CPU
        if asked is not None and asked > there and (name == "cpu" or there)
    ]


def _widths(layers: object) -> list[int]:
    if isinstance(layers, int):
        return [layers]
    if isinstance(layers, list | tuple):
        return [w for part in layers for w in _widths(part)]
    return []


def _linear_widths(written: object) -> list[int]:
    """Outputs of the linear layers of an arc."""
    if isinstance(written, list):
        return [w for part in written for w in _linear_widths(part)]
    if not isinstance(written, dict):
        return []
    widths = []
    for name, inner in written.items():
        if name in ("Linear", "LazyLinear"):
            given = inner.get("out_features") if isinstance(inner, dict) else inner
            # as a list: [out] of a lazy layer, [in, out, ...] of another
            widths += _widths(given[name == "Linear" :][:1] if isinstance(given, list) else given)
        else:
            widths += _linear_widths(inner)
    return widths
