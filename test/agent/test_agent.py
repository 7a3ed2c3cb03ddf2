"""The agent over every algorithm: it learns when due, the same compiled or not, and is saved and restored exactly."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger
from support.agents import ALGORITHMS, BOX, DISCRETE, Chance, make_info, make_spec

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.learner import NonFiniteLoss
from slm_lab.lib.errors import SpecError
from slm_lab.spec.model import Spec
from slm_lab.types import ActionSpace, Step

NETS: dict[str, dict[str, Any]] = {
    "separate": {},
    "shared": {"shared": True},
    "two optimizers": {
        "actor_optim_spec": {"name": "RMSprop", "lr": 0.01, "alpha": 0.9},
        "critic_optim_spec": {"name": "SGD", "lr": 0.01, "momentum": 0.9},
        "lr_scheduler_spec": {"name": "LinearToZero", "frame": 500},
    },
    "free std": {"log_std_init": -0.5, "layer_norm": True, "init_fn": "orthogonal_", "actor_init_std": 0.01},
    "torch's own optimizer": {"optim_spec": {"name": "NAdam", "lr": 0.01}},
}


def play(agent: Agent, world: Chance, steps: int, frame: int = 0) -> int:
    for _ in range(steps):
        obs = world.obs
        action = agent.act(obs)
        agent.observe(obs, action, world.step())
        frame += world.info.num_envs
        agent.maybe_update(frame)
    return frame


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("idle", [0, 1, 2])
def test_debug_names_what_no_update_changes(idle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """idle: 0 no update changes anything, 1 each does, 2 every second one."""
    told: list[str] = []
    handler = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    agent = Agent(make_spec("ppo"), make_info(), seed=0, debug=True)
    update, updates = agent.algorithm.update, 0

    def now_and_then(batch: Any) -> Any:
        nonlocal updates
        updates += 1
        return update(batch) if idle and updates % idle == 0 else {}

    monkeypatch.setattr(agent.algorithm, "update", now_and_then)
    play(agent, Chance(agent.info), 400)
    logger.remove(handler)
    assert updates > 20
    assert len(told) == (not idle)
    if told:
        assert "none of the first 10 updates changed" in told[0]
        assert "heads" in told[0]


@pytest.mark.parametrize("device", ["mps:7", "cuda:77", "gpu"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(SpecError, match=f"--device: '{device}' can't be used here: "):
        Agent(make_spec("ppo"), make_info(), seed=0, device=device)


@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_restored_agent_goes_on_as_if_never_stopped(algorithm: str, net: str, action: ActionSpace) -> None:
    info = make_info(action)
    spec = make_spec(algorithm, **NETS[net])
    whole, half = Agent(spec, info, seed=7), Agent(spec, info, seed=7)
    world, half_world = Chance(info), Chance(info)
    play(whole, world, 21)
    frame = play(half, half_world, 21)
    resumed = Agent(spec, info, seed=99)
    resumed.load_state_dict(through_a_file(half.state_dict()))
    play(whole, world, 150, frame)
    play(resumed, half_world, 150, frame)
    assert whole.opt_step == resumed.opt_step > 0
    assert whole.variables() == resumed.variables()
    for name, weight in whole.weights().items():
        assert torch.equal(weight, resumed.weights()[name]), name


@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("algorithm", ["a2c_gae", "ppo"])
def test_every_parameter_learns(algorithm: str, action: ActionSpace) -> None:
    info = make_info(action)
    agent = Agent(make_spec(algorithm, log_std_init=0.0), info, seed=0)
    before = agent.weights()
    play(agent, Chance(info), 8)
    for name, weight in agent.weights().items():
        assert not torch.equal(weight, before[name]), name


def test_seed_decides_everything() -> None:
    a, b, c = (Agent(make_spec("ppo"), make_info(), seed=s) for s in (1, 1, 2))
    for agent in (a, b, c):
        play(agent, Chance(make_info()), 24)
    assert all(torch.equal(w, b.weights()[k]) for k, w in a.weights().items())
    assert not all(torch.equal(w, c.weights()[k]) for k, w in a.weights().items())


def test_global_streams_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    play(Agent(make_spec("ppo"), make_info(), seed=1), Chance(make_info()), 24)
    assert torch.equal(torch.rand(4), expected)


def test_greedy_is_the_likeliest_action_and_draws_nothing() -> None:
    agent = Agent(make_spec("ppo"), make_info(), seed=0)
    obs = Chance(make_info()).obs
    state = agent.state_dict()
    greedy = agent.act(obs, explore=False)
    with torch.no_grad():
        dist = agent.algorithm.net.policy(torch.from_numpy(obs))  # type: ignore[attr-defined]
    assert np.array_equal(greedy, dist.log_p.argmax(-1).numpy())
    assert torch.equal(agent.state_dict()["generator"], state["generator"])


def test_learns_only_when_due() -> None:
    chance = Chance(make_info())
    agent = Agent(make_spec("a2c_gae"), make_info(), seed=0)
    play(agent, chance, 7)
    assert agent.opt_step == 0
    play(agent, chance, 1)
    assert agent.opt_step == 2  # one step of the actor, one of the critic


def test_schedules_follow_the_frames() -> None:
    chance = Chance(make_info())
    agent = Agent(make_spec("ppo", lr_scheduler_spec={"name": "LinearToZero", "frame": 96}), make_info(), seed=0)
    assert agent.variables() == pytest.approx({"lr": 0.01, "entropy_coef": 0.05, "clip_eps": 0.2})
    play(agent, chance, 16)  # 48 frames, the half
    assert agent.variables() == pytest.approx({"lr": 0.005, "entropy_coef": 0.05 * 0.52, "clip_eps": 0.2})
    play(agent, chance, 32, 48)
    assert agent.variables() == pytest.approx({"lr": 0.0, "entropy_coef": 0.0, "clip_eps": 0.2})


def test_one_step_of_one_env_teaches_the_policy_too() -> None:
    raw = make_spec("a2c_nstep").to_dict()
    raw["agent"]["algorithm"] |= {"num_step_returns": 1, "entropy_coef_spec": None}
    raw["env"]["num_envs"] = 1
    info = make_info(num_envs=1)
    agent = Agent(Spec.model_validate(raw), info, seed=0)
    before = agent.weights()
    play(agent, Chance(info), 3)
    assert all(not torch.equal(w, before[k]) for k, w in agent.weights().items() if k.startswith("net."))


def test_non_finite_loss_stops() -> None:
    chance = Chance(make_info())
    agent = Agent(make_spec("ppo"), make_info(), seed=0)
    play(agent, chance, 7)
    step = chance.step()
    bad = Step(*step[:1], np.full(3, np.inf, np.float32), *step[2:])
    agent.observe(chance.obs, agent.act(chance.obs), bad)
    with pytest.raises(NonFiniteLoss, match="the loss or a parameter is not finite"):
        agent.maybe_update(24)


def test_what_is_not_finite_and_came_from_the_env_is_told() -> None:
    for name, place in (("rewards", 1), ("observations", 0)):
        chance = Chance(make_info())
        agent = Agent(make_spec("ppo"), make_info(), seed=0)
        play(agent, chance, 7)
        step = list(chance.step())
        step[place] = np.full_like(step[place], np.nan)
        agent.observe(chance.obs, agent.act(chance.obs), Step(*step))
        with pytest.raises(NonFiniteLoss, match=f"^{name} that came from the env are not finite, hence the loss"):
            agent.maybe_update(24)


@pytest.mark.parametrize(("name", "place"), [("rewards", 1), ("observations", 0)])
def test_so_it_is_with_a_replay_memory(name: str, place: int) -> None:
    raw = make_spec("ppo").to_dict()
    raw["agent"]["algorithm"] = {"name": "DQN", "training_frequency": 3}
    raw["agent"]["memory"] = {"name": "Replay", "batch_size": 64, "max_size": 90}
    chance, agent = Chance(make_info()), Agent(Spec.model_validate(raw), make_info(), seed=0)
    play(agent, chance, 30)

    def go_on() -> None:
        obs = chance.obs
        for frame in range(93, 123, 3):
            step = list(chance.step())
            step[place] = np.full_like(step[place], np.nan)
            agent.observe(obs, agent.act(obs), Step(*step))
            agent.maybe_update(frame)
            obs = step[0]

    with pytest.raises(NonFiniteLoss, match=f"^{name} that came from the env are not finite, hence the loss"):
        go_on()


def test_misfits_are_told_with_their_key() -> None:
    spec = make_spec("ppo", optim_spec={"name": "Adan"})
    with pytest.raises(SpecError, match=r"agent.net.optim_spec.name: torch.optim has no 'Adan', did you mean 'Adam'"):
        Agent(spec, make_info(), seed=0)
    with pytest.raises(SpecError, match=r"agent.net.optim_spec.learning_rate: Adam takes no such argument"):
        Agent(make_spec("ppo", optim_spec={"name": "Adam", "learning_rate": 1}), make_info(), seed=0)
    with pytest.raises(SpecError, match=r"agent.net.init_fn: torch.nn.init has no 'orthogonal', did you mean"):
        Agent(make_spec("ppo", init_fn="orthogonal"), make_info(), seed=0)
    with pytest.raises(SpecError, match=r"agent.net.loss_spec.name: torch.nn has no loss 'MSE'"):
        Agent(make_spec("ppo", loss_spec={"name": "MSE"}), make_info(), seed=0)
    with pytest.raises(SpecError, match=r"agent.net.lr_scheduler_spec.name: unknown schedule 'LinearToOne'"):
        Agent(make_spec("ppo", lr_scheduler_spec={"name": "LinearToOne"}), make_info(), seed=0)
