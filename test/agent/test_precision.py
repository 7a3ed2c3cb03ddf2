"""`meta.precision: bf16`: products are rounded, and nothing else is."""

import copy
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger
from support.agents import ALGORITHMS, BOX, DISCRETE, Chance, make_info, make_spec
from support.specs import replace
from torch import Tensor, nn

from slm_lab.agent import agent as agent_module
from slm_lab.agent.agent import Agent
from slm_lab.agent.net import precision
from slm_lab.agent.net.critic import StateActionNet
from slm_lab.agent.net.precision import reduced, why_not_bf16
from slm_lab.lib.errors import SpecError
from slm_lab.lib.log import renew_notes
from slm_lab.lib.registry import lookup
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec
from slm_lab.types import ActionSpace, EnvInfo

CPU = torch.device("cpu")
CONV = {"conv_hid_layers": [[4, 3, 2, 0, 1], [4, 3, 1, 0, 1]], "fc_hid_layers": [8]}
BODIES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "MLPNet": ({"hid_layers": [16, 8]}, (4,)),
    "DuelingMLPNet": ({"hid_layers": [16, 8]}, (4,)),
    "ConvNet": (CONV, (2, 12, 12)),
    "DuelingConvNet": (CONV, (2, 12, 12)),
}
REPLAY = {"name": "Replay", "batch_size": 16, "max_size": 200}
OFF_POLICY: dict[str, dict[str, Any]] = {
    "dqn": {"name": "DQN", "training_frequency": 3},
    "ddqn": {"name": "DoubleDQN", "training_frequency": 3},
    "sac": {"name": "SoftActorCritic", "training_iter": 1, "training_start_step": 16},
}
needs_compiler = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")


@pytest.fixture(autouse=True)
def capable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any CPU can do it, if slowly."""
    if "honest" not in request.keywords:
        monkeypatch.setattr(agent_module, "why_not_bf16", lambda device: None)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []
    handler = logger.add(lambda message: found.append(message.record["message"]), level="WARNING")
    yield found
    logger.remove(handler)


def spec_of(name: str, bf16: bool) -> Spec:
    if name in ALGORITHMS:
        spec = make_spec(name)
    else:
        net = {"type": "MLPNet", "hid_layers": [16], "optim_spec": {"name": "Adam", "lr": 0.01}}
        agent = {"name": "test", "algorithm": OFF_POLICY[name], "memory": REPLAY, "net": net}
        spec = load_spec({"name": "test", "agent": agent, "env": {"name": "CartPole-v1", "max_frame": 100}, "meta": {}})
    return replace(spec, "meta.precision", "bf16") if bf16 else spec


def live(agent: Agent, steps: int = 24) -> list[dict[str, Tensor]]:
    """Act greedily on chance observations, so that what was seen and done does not hang on the precision."""
    world, found = Chance(agent.info), []
    rng = np.random.default_rng(1)
    for t in range(steps):
        obs = world.obs
        action = agent.act(obs, explore=False)
        if action.dtype == np.int64:
            action = rng.integers(3, size=action.shape)
        agent.observe(obs, action, world.step())
        stats = agent.maybe_update(3 * (t + 1))
        if stats is not None:
            found.append(stats)
    return found


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_are_reduced_and_heads_are_not(kind: str) -> None:
    keys, shape = BODIES[kind]
    cls = lookup("net", kind)
    torch.manual_seed(0)
    net: nn.Module = cls(cls.Spec.model_validate({"type": kind, **keys}), shape, {"a": 3, "b": 1})
    seen: dict[str, set[torch.dtype]] = {"body": set(), "heads": set()}
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            part = seen[name.partition(".")[0]]
            layer.register_forward_hook(lambda m, args, out, part=part: part.add(out.dtype))
    obs = torch.randint(0, 256, (5, *shape), dtype=torch.uint8) if len(shape) == 3 else torch.randn(5, *shape)
    exact = net(obs)
    seen["body"].clear()
    with reduced(CPU):
        rounded = net(obs)
    assert seen == {"body": {torch.bfloat16}, "heads": {torch.float32}}
    assert [x.dtype for x in rounded] == [torch.float32] * 2
    assert not torch.equal(exact[0], rounded[0])
    torch.testing.assert_close(exact, rounded, rtol=0.03, atol=0.01)
    sum(x.sum() for x in rounded).backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in net.parameters() if p.grad is not None)


def test_a_critic_of_images_gives_values_in_full_precision() -> None:
    cls = lookup("net", "ConvNet")
    torch.manual_seed(0)
    critic = StateActionNet(cls, cls.Spec.model_validate({"type": "ConvNet", **CONV}), (2, 12, 12), 2)
    assert critic.between is not None
    seen: list[torch.dtype] = []
    critic.between.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
    obs, action = torch.randint(0, 256, (5, 2, 12, 12), dtype=torch.uint8), torch.rand(5, 2)
    exact = critic(obs, action)
    with reduced(CPU):
        rounded = critic(obs, action)
    assert (seen, rounded.dtype) == ([torch.float32, torch.bfloat16], torch.float32)
    torch.testing.assert_close(exact, rounded, rtol=0.03, atol=0.02)


@pytest.mark.parametrize("name", [*ALGORITHMS, *OFF_POLICY])
def test_updates_are_rounded_and_state_is_not(name: str) -> None:
    info = make_info()
    exact, rounded = (Agent(spec_of(name, bf16), info, seed=0) for bf16 in (False, True))
    with torch.random.fork_rng():
        stats = [live(agent) for agent in (exact, rounded)]
    assert len(stats[0]) == len(stats[1]) > 0
    torch.testing.assert_close(stats[0][0], stats[1][0], rtol=0.05, atol=0.02)
    for ours, theirs in zip(exact.weights().items(), rounded.weights().items(), strict=True):
        assert ours[1].dtype == theirs[1].dtype == torch.float32
    assert any(not torch.equal(w, rounded.weights()[k]) for k, w in exact.weights().items())
    assert all(s.dtype == torch.float32 for o in rounded.algorithm.optims.values() for s in o.state.values())
    assert not torch.is_autocast_enabled("cpu")


def test_acting_is_not_rounded() -> None:
    exact, rounded = (Agent(spec_of("sac", bf16), make_info(BOX), seed=0) for bf16 in (False, True))
    obs = Chance(exact.info).obs
    assert np.array_equal(exact.act(obs, explore=False), rounded.act(obs, explore=False))


@pytest.mark.ci
@needs_compiler
@pytest.mark.parametrize(("name", "action"), [("dqn", DISCRETE), pytest.param("sac", BOX, marks=pytest.mark.slow)])
def test_compiled_equals_eager(name: str, action: ActionSpace) -> None:
    """As far as eight bits go: a graph leaves out roundings between operations that it fuses."""
    agents = [Agent(spec_of(name, bf16=True), make_info(action), seed=0, compile=on) for on in (False, True)]
    first, second = (live(agent, 10) for agent in agents)
    assert agents[1].algorithm.learner.compile  # type: ignore[attr-defined]
    assert len(first) == len(second) > 0
    torch.testing.assert_close(first[0], second[0], rtol=0.03, atol=0.01)
    exact = live(Agent(spec_of(name, bf16=False), make_info(action), seed=0), 10)
    far = max(abs(float(exact[0][k] - second[0][k])) for k in exact[0])
    assert far > 1e-5, "the graph was not reduced"


def test_a_gradient_behind_a_head_is_not_rounded() -> None:
    """Backward passes are out of autocast: the head's weights get the gradient of float32 products."""
    agents = [Agent(spec_of("dqn", bf16), make_info(), seed=0) for bf16 in (False, True)]
    heads = []
    for agent in agents:
        net = agent.algorithm.nets["net"]
        with torch.no_grad():  # a body whose features bfloat16 can tell: all differences come from behind it
            for p in net.body.parameters():
                p.copy_(p.sign() * 0.5)
            net.body[0].bias.zero_()
        agent.algorithm.optims["net"].lr.zero_()
        world = Chance(agent.info)
        for t in range(8):
            obs = np.sign(world.obs)
            step = world.step()
            agent.observe(obs, np.zeros(3, np.int64), step._replace(obs=np.sign(step.obs), final_obs=np.sign(step.obs)))
            world.obs = np.sign(step.obs)
            agent.maybe_update(3 * (t + 1))
        heads.append(net.heads["q"].weight.grad.clone())
    assert heads[0].abs().sum() > 0
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-5, atol=1e-7)


def test_where_it_would_be_slower_it_is_not_used(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    monkeypatch.setattr(agent_module, "why_not_bf16", lambda device: "this CPU is too old")
    renew_notes()
    agents = [Agent(spec_of("ppo", bf16), make_info(), seed=0) for bf16 in (False, True)]
    Agent(spec_of("ppo", True), make_info(), seed=0)  # as the check of a spec does before the session
    assert warnings == ["meta.precision: float32 in place of bf16: this CPU is too old"]
    for agent in agents:
        live(agent, 10)
    assert all(torch.equal(w, agents[1].weights()[k]) for k, w in agents[0].weights().items())


def test_what_speaks_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(precision.torch.cpu, name, lambda: False)
    assert why_not_bf16(CPU) == "this CPU has no bf16 instructions (avx512_bf16 or AMX)"
    monkeypatch.setattr(precision.torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert why_not_bf16(CPU) is None
    assert why_not_bf16(torch.device("mps")) == "not known to be faster on a device of type 'mps'"


def test_other_names_are_refused() -> None:
    raw = copy.deepcopy(spec_of("dqn", bf16=False).to_dict())
    raw["meta"]["precision"] = "fp16"
    with pytest.raises(SpecError, match=r"meta\.precision.*'float32', 'tf32' or 'bf16'.*'fp16'"):
        load_spec(raw)


def test_conv_ppo() -> None:
    raw = make_spec("ppo").to_dict()
    raw["agent"]["net"] = {"type": "ConvNet", **CONV, "shared": True, "optim_spec": {"name": "Adam", "lr": 0.01}}
    raw["meta"]["precision"] = "bf16"
    info = EnvInfo("none", (2, 12, 12), "uint8", DISCRETE, 3, 20)
    agent = Agent(Spec.model_validate(raw), info, seed=0)
    rng = np.random.default_rng(0)
    world = Chance(make_info())
    image = rng.integers(0, 256, (3, 2, 12, 12), dtype=np.uint8)
    stats = None
    for t in range(10):
        after = rng.integers(0, 256, image.shape, dtype=np.uint8)
        action = agent.act(image)
        agent.observe(image, action, world.step()._replace(obs=after, final_obs=after))
        image = after
        stats = agent.maybe_update(3 * (t + 1)) or stats
    assert stats is not None
    assert all(torch.isfinite(v) for v in stats.values())


def test_tf32_is_noted_where_there_is_none(warnings: list[str]) -> None:
    spec = replace(make_spec("ppo"), "meta.precision", "tf32")
    agent = Agent(spec, make_info(), seed=0)
    assert agent.precision == "float32"
    [text] = warnings
    assert text == (
        "meta.precision: float32 in place of tf32: only NVIDIA GPUs from compute capability 8.0 on have TF32"
    )


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_set_on_a_gpu_and_put_back(tf32: bool) -> None:
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [b.allow_tf32 for b in backends]
    with precision.float32_products(CPU, tf32=tf32):
        assert [b.allow_tf32 for b in backends] == before
    # the flags can be set without a GPU
    with precision.float32_products(torch.device("cuda"), tf32=tf32):
        assert [b.allow_tf32 for b in backends] == [tf32, tf32]
    assert [b.allow_tf32 for b in backends] == before
