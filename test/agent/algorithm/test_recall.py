"""Memory in acting and learning: trained on is what was acted on; it is saved, restored, compiled; and it is of use."""

import io
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from support.agents import ALGORITHMS, BOX, DISCRETE, Chance, make_info, make_spec
from support.cue import CueWorld, cue_agent, play_cue
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.actor_critic import ActorCritic
from slm_lab.spec.model import Spec
from slm_lab.types import ActionSpace, Rollout, Sequences, Step

RNN: dict[str, Any] = {"type": "RecurrentNet", "rnn_hidden_size": 6, "seq_len": 4, "fc_hid_layers": [5]}
SARSA = {"name": "SARSA", "gamma": 0.9, "training_frequency": 8}
needs_compiler = pytest.mark.skipif(not any(shutil.which(c) for c in ("g++", "clang++")), reason="no C++ compiler")


def recurrent_spec(algorithm: str, memory: str = "OnPolicyBatchReplay", **net: Any) -> Spec:
    spec = make_spec("ppo" if algorithm == "sarsa" else algorithm, **RNN | net).to_dict()
    spec["agent"]["memory"]["name"] = memory
    if algorithm == "sarsa":
        epsilon = {"name": "no_decay", "start_val": 0.3}
        spec["agent"]["algorithm"] = SARSA | {"explore_var_spec": epsilon}
    if memory == "OnPolicyReplay":
        spec["agent"]["algorithm"] |= {"time_horizon" if algorithm == "ppo" else "training_frequency": 2}
        spec["agent"]["algorithm"].pop("num_step_returns", None)
    return Spec.model_validate(spec)


def play(agent: Agent, world: Chance, steps: int, frame: int = 0) -> int:
    for _ in range(steps):
        obs = world.obs
        action = agent.act(obs)
        agent.observe(obs, action, world.step())
        frame += world.info.num_envs
        agent.maybe_update(frame)
    return frame


CASES = [(a, "OnPolicyBatchReplay") for a in [*ALGORITHMS, "sarsa"]]
CASES += [(a, "OnPolicyReplay") for a in ("reinforce", "a2c_gae", "ppo", "sarsa")]


@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize(("algorithm", "memory"), CASES)
def test_restored_agent_goes_on_as_if_never_stopped(
    algorithm: str, memory: str, shared: bool, action: ActionSpace
) -> None:
    if algorithm == "sarsa" and action == BOX:
        return
    spec = recurrent_spec(algorithm, memory, shared=shared, cell_type="LSTM" if shared else "GRU")
    info = make_info(action)
    whole, half = Agent(spec, info, seed=7), Agent(spec, info, seed=7)
    world, half_world = Chance(info), Chance(info)
    before = whole.weights()
    play(whole, world, 21)
    frame = play(half, half_world, 21)
    resumed = Agent(spec, info, seed=99)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    play(whole, world, 60, frame)
    play(resumed, half_world, 60, frame)
    assert whole.opt_step == resumed.opt_step > 0
    for name, weight in whole.weights().items():
        assert torch.equal(weight, resumed.weights()[name]), name
        assert not torch.equal(weight, before[name]), name


class Watching:
    """Plays rollouts by hand and keeps what the policy said while it acted."""

    def __init__(self, action: ActionSpace = DISCRETE, **net: Any) -> None:
        self.info = make_info(action)
        self.agent = Agent(recurrent_spec("a2c_gae", **net), self.info, seed=3)
        algorithm = self.agent.algorithm
        assert isinstance(algorithm, ActorCritic)
        self.algorithm = algorithm
        self.world = Chance(self.info, seed=1)
        self.log_prob: list[Tensor] = []
        self.value: list[Tensor] = []
        self.final_value = torch.zeros(8, 3)
        self.critic_state = torch.zeros(3, self.algorithm.net.bodies[-1].state_size)

    def rollout(self, t: int = 8) -> Rollout:
        """As the memory gives it; the critic is asked step by step too, with a state carried here."""
        net, recall = self.algorithm.net, self.algorithm.recall
        assert recall is not None
        self.log_prob, self.value = [], []
        critic: Any = net.bodies[-1]
        for i in range(t):
            obs = torch.from_numpy(self.world.obs)
            with torch.no_grad():
                dist = net.actor.distribution(net.bodies[0].step(obs, recall.state)[0][0])  # type: ignore[operator]
                outs, self.critic_state = critic.step(obs, self.critic_state)
            action = self.agent.act(self.world.obs)
            self.log_prob.append(dist.log_prob(torch.from_numpy(action)))
            self.value.append(outs[-1].squeeze(-1))
            acted_on, step = self.world.obs, self.world.step()
            cut = torch.from_numpy(step.truncated & ~step.terminated)
            with torch.no_grad():
                final = critic.step(torch.from_numpy(step.final_obs), self.critic_state)[0][-1].squeeze(-1)
            self.final_value[i] = torch.where(cut, final, 0.0)
            self.agent.observe(acted_on, action, step)
            ended = torch.from_numpy(step.terminated | step.truncated)
            self.critic_state = torch.where(ended[:, None], 0.0, self.critic_state)
        assert self.agent.memory.ready()
        batch: Rollout = self.agent.memory.sample()
        return batch


@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("cell", ["GRU", "LSTM", "RNN"])
def test_what_is_learned_from_is_what_was_acted_on(cell: str, shared: bool, action: ActionSpace) -> None:
    """Over three rollouts, with ends of both kinds inside: log probs, values, values of what was cut off."""
    watch = Watching(action, cell_type=cell, shared=shared, rnn_num_layers=2)
    seen: dict[str, bool] = {"terminated": False, "truncated": False}
    for _ in range(3):
        batch = watch.rollout()
        seen = {k: v or bool(getattr(batch, k).any()) for k, v in seen.items()}
        with torch.no_grad():
            evaluated = watch.algorithm.evaluate(batch)
            data = watch.algorithm.learner_data(batch, batch.action, evaluated.log_prob, evaluated.value[:-1])
        torch.testing.assert_close(evaluated.log_prob, torch.stack(watch.log_prob))
        torch.testing.assert_close(evaluated.value[:-1], torch.stack(watch.value))
        torch.testing.assert_close(evaluated.final_value, watch.final_value)
        # and so do the sequences that the loss gets, each from its stored state
        obs, reset, state, acted, log_prob, value = data
        assert obs.shape == (6, 4, 4)
        assert reset.shape == log_prob.shape == value.shape == (6, 4)
        with torch.no_grad():
            dist, again = watch.algorithm.net.policy_value(Sequences(obs.transpose(0, 1), reset.transpose(0, 1), state))
        torch.testing.assert_close(dist.log_prob(acted.transpose(0, 1).flatten(0, 1)), log_prob.T.flatten())
        torch.testing.assert_close(again, value.T.flatten())
    assert all(seen.values())


def test_evaluation_has_a_memory_of_its_own() -> None:
    agents = [Agent(recurrent_spec("ppo"), make_info(), seed=0) for _ in range(2)]
    worlds = [Chance(make_info()) for _ in range(2)]
    for agent, world in zip(agents, worlds, strict=True):
        play(agent, world, 5)
    other = Chance(make_info(num_envs=2), seed=5)
    with agents[0].apart(2):
        first = agents[0].act(other.obs, explore=False)
        agents[0].act(other.obs, explore=False)
    with agents[0].apart(2):
        assert np.array_equal(agents[0].act(other.obs, explore=False), first)
    for agent, world in zip(agents, worlds, strict=True):
        play(agent, world, 30)
    assert all(torch.equal(w, agents[1].weights()[k]) for k, w in agents[0].weights().items())


def test_an_end_is_forgotten_in_that_env_alone() -> None:
    agent = Agent(recurrent_spec("ppo"), make_info(), seed=0)
    recall: Any = agent.algorithm.recall
    obs = np.ones((3, 4), np.float32)
    action = agent.act(obs)
    end = np.array([False, True, False])
    agent.observe(obs, action, Step(obs, np.zeros(3, np.float32), end, ~np.ones(3, np.bool_), obs, [1.0], [1]))
    assert recall.state.any(-1).tolist() == [True, False, True]
    agent.forget()
    assert not recall.state.any()


@needs_compiler
@pytest.mark.parametrize("cell", ["GRU", pytest.param("LSTM", marks=pytest.mark.ci)])
def test_compiled_equals_eager(cell: str) -> None:
    keys: dict[str, Any] = {"cell_type": cell, "seq_len": 2, "shared": cell == "LSTM"}
    agents = [Agent(recurrent_spec("ppo", **keys), make_info(), seed=0, compile=on) for on in (False, True)]
    for agent in agents:
        world = Chance(make_info())
        for t in range(24):
            obs = world.obs
            agent.observe(obs, agent.act(obs, explore=False), world.step())
            agent.maybe_update(3 * (t + 1))
    eager, compiled = agents
    assert compiled.algorithm.learner.compile  # type: ignore[attr-defined]
    assert compiled.opt_step == eager.opt_step > 0
    for name, weight in eager.weights().items():
        torch.testing.assert_close(weight, compiled.weights()[name], rtol=1e-4, atol=1e-5)


def test_a_cue_is_remembered_for_eight_steps() -> None:
    """A net with a memory learns to repeat it; one without can't do better than to guess, 1 of 4."""
    scores = {}
    for net in ("RecurrentNet", "MLPNet"):
        agent, world = cue_agent(net), CueWorld()
        for update in range(120 if net == "RecurrentNet" else 30):
            play_cue(agent, world, 36, explore=True)
            if update % 10 == 9 and (score := play_cue(agent, CueWorld(seed=1), 360, explore=False)) > 0.95:
                break
        scores[net] = score
    assert scores["RecurrentNet"] > 0.95
    assert scores["MLPNet"] < 0.5


def test_what_is_learned_is_taken_over_without_what_is_remembered() -> None:
    spec, info = recurrent_spec("ppo", "OnPolicyBatchReplay", shared=True, cell_type="GRU"), make_info()
    ours, theirs = Agent(spec, info, seed=1), Agent(spec, info, seed=2)
    for agent, seed in ((ours, 1), (theirs, 2)):
        play(agent, Chance(info, seed), 3)
    recall = ours.algorithm.recall
    assert recall is not None
    before = recall.state.clone()
    ours.load_learned(theirs.state_dict())
    assert torch.equal(recall.state, before)
    assert all(torch.equal(w, theirs.weights()[k]) for k, w in ours.weights().items())
