"""Notes: what is kept while acting is what a pass over the rollout says afterwards."""

from typing import Any

import numpy as np
import pytest
import torch
from support.agents import DISCRETE, Chance, make_info, make_spec

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm import acting, learner
from slm_lab.agent.algorithm.notes import Notes
from slm_lab.lib.compile import CompileError
from slm_lab.lib.compiler import Effort
from slm_lab.types import Act, EnvInfo, Evaluated, ObsPart, PackedShape, Rollout, Step

CONV: dict[str, Any] = {"type": "ConvNet", "conv_hid_layers": [[4, 3, 2, 0, 1]], "fc_hid_layers": [8], "shared": True}
SHAPE = (2, 12, 12)


class Pictures(Chance):
    """Random images of bytes."""

    def _obs(self) -> np.ndarray:
        return self.rng.integers(0, 256, (self.info.num_envs, *self.info.obs_shape), dtype=np.uint8)

    def step(self) -> Step:
        draw = self.rng.random(self.info.num_envs)
        terminated, truncated = draw < 0.1, draw > 0.8
        final = self._obs()
        self.obs = np.where((terminated | truncated)[:, None, None, None], self._obs(), final)
        ended = [1.0] * int((terminated | truncated).sum())
        reward = self.rng.normal(size=self.info.num_envs).astype(np.float32)
        return Step(self.obs, reward, terminated, truncated, final, ended, [1] * len(ended))


def make(name: str = "ppo", info: EnvInfo | None = None, **net: Any) -> Agent:
    info = info or EnvInfo("none", SHAPE, "uint8", DISCRETE, 3, 20)
    return Agent(make_spec(name, **(net or CONV)), info, seed=0, device="cpu", compile=False)


def play(agent: Agent, env: Pictures, steps: int, *, greedy: tuple[int, ...] = ()) -> None:
    for t in range(steps):
        obs = env.obs.copy()
        action = agent.act(obs, explore=t not in greedy)
        agent.observe(obs, action, env.step())


def evaluated(agent: Agent) -> tuple[Rollout, Evaluated, bool]:
    """The rollout, what is thought of it, and whether the notes were complete."""
    rollout = agent.memory.sample()
    asked: list[int] = []
    algorithm: Any = agent.algorithm
    judge = algorithm._judge
    algorithm._judge = lambda obs, action: asked.append(len(obs)) or judge(obs, action)
    try:
        with torch.no_grad():
            found = algorithm.evaluate(rollout)
    finally:
        del algorithm._judge
    return rollout, found, asked != [(len(rollout.reward) + 1) * 3 + len(rollout.final_obs)]


def afterwards(agent: Agent, rollout: Rollout) -> Evaluated:
    algorithm: Any = agent.algorithm
    algorithm.notes = None
    with torch.no_grad():
        return algorithm.evaluate(rollout)


@pytest.mark.parametrize("name", ["ppo", "a2c_gae", "a2c_nstep"])
def test_they_say_what_a_pass_says_afterwards(name: str) -> None:
    agent, env = make(name), Pictures(EnvInfo("none", SHAPE, "uint8", DISCRETE, 3, 20))
    for _ in range(2):
        play(agent, env, 8)
        rollout, found, noted = evaluated(agent)
        assert noted
        assert len(rollout.final_obs)
    for ours, theirs in zip(found, afterwards(agent, rollout), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_rollout_with_a_gap_is_evaluated_afterwards() -> None:
    agent, env = make(), Pictures(EnvInfo("none", SHAPE, "uint8", DISCRETE, 3, 20))
    play(agent, env, 8, greedy=(3,))
    rollout, found, noted = evaluated(agent)
    assert not noted
    for ours, theirs in zip(found, afterwards(agent, rollout), strict=True):
        assert torch.equal(ours, theirs)
    # the next one is complete again
    agent = make()
    play(agent, env, 8, greedy=(0,))
    evaluated(agent)
    play(agent, env, 8)
    assert evaluated(agent)[2]


def test_another_action_than_the_chosen_one_leaves_a_gap() -> None:
    agent, env = make(), Pictures(EnvInfo("none", SHAPE, "uint8", DISCRETE, 3, 20))
    for _ in range(8):
        obs = env.obs.copy()
        agent.observe(obs, (agent.act(obs) + 1) % 3, env.step())
    assert not evaluated(agent)[2]


def test_other_parameters_leave_a_gap() -> None:
    agent, env = make(), Pictures(EnvInfo("none", SHAPE, "uint8", DISCRETE, 3, 20))
    play(agent, env, 3)
    agent.load_policy_state(agent.policy_state())
    play(agent, env, 5)
    assert not evaluated(agent)[2]


def test_they_are_part_of_the_state() -> None:
    info = EnvInfo("none", SHAPE, "uint8", DISCRETE, 3, 20)
    agent, env = make(), Pictures(info)
    play(agent, env, 5)
    other, there = make(), Pictures(info)
    other.load_state_dict(agent.state_dict())
    there.rng.bit_generator.state, there.obs = env.rng.bit_generator.state, env.obs
    found = []
    for each, world in ((agent, env), (other, there)):
        play(each, world, 3)
        _, values, noted = evaluated(each)
        assert noted
        found.append(values)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_none_are_taken_where_a_pass_afterwards_costs_less() -> None:
    assert make().algorithm.notes is not None
    assert make(**{**CONV, "shared": False}).algorithm.notes is None
    assert make(info=make_info(), type="MLPNet", hid_layers=[8], shared=True).algorithm.notes is None


def test_images_lie_as_convolutions_want_them() -> None:
    agent, env = make(), Pictures(EnvInfo("none", SHAPE, "uint8", DISCRETE, 3, 20))
    seen = []
    for _ in range(8):
        seen.append(env.obs.copy())
        agent.observe(env.obs, agent.act(env.obs), env.step())
    obs = agent.memory.sample().obs
    assert obs.shape == (9, 3, *SHAPE)
    assert obs.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(obs.numpy(), np.stack([*seen, env.obs]))


def test_what_does_not_belong_to_a_step_is_not_kept() -> None:
    notes, act = Notes(2, 1, torch.device("cpu")), Act(torch.zeros(1), torch.full((1,), -1.0), torch.full((1,), 5.0))
    notes.add(None)
    notes.add(Act(torch.zeros(1)))
    notes.add(act)
    assert notes.take() is None
    for _ in range(3):
        notes.add(act)
    taken = notes.take()
    assert taken is not None
    assert [t.tolist() for t in taken] == [[[-1.0], [-1.0]], [[5.0], [5.0]]]
    assert notes.take() is None


class Rows(Chance):
    """Random rows of bytes, each an image among parts."""

    def _obs(self) -> np.ndarray:
        return self.rng.integers(0, 256, (self.info.num_envs, *self.info.obs_shape), dtype=np.uint8)


def test_every_rollout_has_notes_of_its_own_where_nets_of_parts_can_not_be_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise CompileError("no")

    for module in (acting, learner):
        monkeypatch.setattr(module, "compile_function", refuse)
    shape = PackedShape((64,), (ObsPart("screen", (1, 8, 8), "uint8", 0, 64, True),))
    info = EnvInfo("none", shape, "uint8", DISCRETE, 3, 20)
    agent = Agent(make_spec("ppo", type="MultiInputNet", shared=True), info, seed=0, compile=Effort.QUICK)
    algorithm: Any = agent.algorithm
    assert algorithm.notes is not None
    env = Rows(info)
    for _ in range(3):
        play(agent, env, 8)  # type: ignore[arg-type]
        rollout = agent.memory.sample()
        with torch.no_grad():
            log_prob, value, *_ = algorithm._study(rollout)
            theirs = algorithm._judge(rollout.obs[:-1].flatten(0, 1), rollout.action.flatten(0, 1))
        torch.testing.assert_close((log_prob.flatten(), value.flatten()), theirs)
