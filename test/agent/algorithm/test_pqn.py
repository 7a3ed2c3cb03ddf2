"""PQN: its targets against the definition, what its gradient steps see, and the kinds of net it learns with."""

from typing import Any

import pytest
import torch
from support.agents import Chance
from support.values import make

from slm_lab.agent.agent import Agent
from slm_lab.agent.algorithm.pqn import PQN
from slm_lab.agent.net.conv import ConvNet, ConvNetSpec
from slm_lab.spec.effect import watching
from slm_lab.spec.load import load_spec
from slm_lab.types import Discrete, EnvInfo, Rollout, Step

RNN = {"type": "RecurrentNet", "rnn_hidden_size": 6, "seq_len": 2, "fc_hid_layers": [5], "layer_norm": True}
CONV = {"type": "ConvNet", "conv_hid_layers": [[4, 3, 1, 0, 1]], "fc_hid_layers": [8], "layer_norm": True}


def rollout(t: int = 4, n: int = 2) -> Rollout:
    g = torch.Generator().manual_seed(3)
    terminated, truncated = torch.zeros(2, t, n, dtype=torch.bool)
    terminated[0, 1] = truncated[1, 0] = True
    return Rollout(
        torch.randn(t + 1, n, 3, generator=g),
        torch.randint(4, (t, n), generator=g),
        torch.randn(t, n, generator=g),
        terminated,
        truncated,
        torch.tensor([2]),
        torch.randn(1, 3, generator=g),
    )


@pytest.mark.parametrize("lam", [0.0, 0.65, 1.0])
@pytest.mark.parametrize("net", [{}, {"net": RNN}], ids=["mlp", "recurrent"])
def test_targets_are_those_of_q_lambda(lam: float, net: dict[str, Any]) -> None:
    algorithm: Any = make("PQN", algorithm__lam=lam, **net).algorithm
    r = rollout()
    with torch.no_grad():
        if net:
            value = algorithm.recall.run(r)[0][0].max(1).values
        else:
            value = algorithm.net(torch.cat([r.obs.flatten(0, 1), r.final_obs]))[0].max(1).values
        found = algorithm.targets(r)
    following, final = value[:10].view(5, 2), value[10]
    y = torch.zeros(4, 2)
    for n in range(2):
        for t in reversed(range(4)):
            if r.terminated[t, n]:
                rest = torch.tensor(0.0)
            elif r.truncated[t, n]:
                rest = final
            elif t == 3:
                rest = following[4, n]
            else:
                rest = (1 - lam) * following[t + 1, n] + lam * y[t + 1, n]
            y[t, n] = r.reward[t, n] + 0.9 * rest
    torch.testing.assert_close(found, y)


def test_an_update_is_epochs_over_all_transitions(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make("PQN", algorithm__training_epoch=3)
    algorithm: Any = agent.algorithm
    seen: list[list[int]] = []
    step = algorithm.learner.step

    def spy(data: Any, index: torch.Tensor, coefs: Any) -> Any:
        seen.append(index.tolist())
        return step(data, index, coefs)

    monkeypatch.setattr(algorithm.learner, "step", spy)
    with torch.no_grad():
        algorithm.update(rollout())
    assert [len(rows) for rows in seen] == [3, 3, 2] * 3
    for epoch in range(3):
        assert sorted(i for rows in seen[3 * epoch : 3 * epoch + 3] for i in rows) == list(range(8))
    assert agent.opt_step == 9


def test_the_loss_moves_the_action_taken_to_its_target() -> None:
    algorithm: Any = make("PQN", net__layer_norm=True).algorithm
    g = torch.Generator().manual_seed(1)
    obs, action, target = torch.randn(6, 3, generator=g), torch.arange(6) % 4, torch.randn(6, generator=g)
    q = algorithm.net(obs)[0]
    loss, stats = algorithm.loss(obs, action, target)
    taken = q[torch.arange(6), action]
    torch.testing.assert_close(loss, ((taken - target) ** 2).mean())
    torch.testing.assert_close(stats["q_value"], taken.mean())


@pytest.mark.parametrize(("net", "shape"), [(CONV, (2, 5, 5)), (RNN, (4,))], ids=["conv", "recurrent"])
def test_it_learns_with_every_kind_of_net_and_goes_on_bitwise(net: dict[str, Any], shape: tuple[int, ...]) -> None:
    raw = {
        "name": "tiny",
        "agent": {
            "name": "PQN",
            "algorithm": {
                "name": "PQN",
                "explore_var_spec": {"name": "no_decay", "start_val": 0.3},
                "time_horizon": 4,
                "minibatch_size": 4,
            },
            "memory": {"name": "OnPolicyBatchReplay"},
            "net": net,
        },
        "env": {"name": "Fake-v0", "num_envs": 2, "max_frame": 1000},
        "meta": {},
    }
    info = EnvInfo("Fake-v0", shape, "float32", Discrete(4), 2, None)

    def play(agent: Agent, world: Chance, steps: int, frame: int) -> None:
        for _ in range(steps):
            obs = world.obs
            action = agent.act(obs)
            agent.observe(obs, action, world.step())
            frame += 2
            agent.maybe_update(frame)

    class World(Chance):
        def _obs(self) -> Any:
            return self.rng.normal(size=(2, *shape)).astype("float32")

        def step(self) -> Any:
            draw = self.rng.random(2)
            final = self._obs()
            ended = ((draw < 0.1) | (draw > 0.9)).reshape(2, *[1] * len(shape))
            self.obs = self._obs() * ended + final * ~ended
            reward = self.rng.normal(size=2).astype("float32")
            return Step(self.obs, reward, draw < 0.1, draw > 0.9, final, [], [])

    whole, half = Agent(load_spec(raw), info, seed=7), Agent(load_spec(raw), info, seed=7)
    before = whole.weights()
    world = World(info)
    play(whole, world, 24, 0)
    play(half, World(info), 10, 0)
    resumed = Agent(load_spec(raw), info, seed=8)
    resumed.load_state_dict(half.state_dict())
    later = World(info)
    for _ in range(10):
        later.step()
    play(resumed, later, 14, 20)
    assert whole.opt_step == resumed.opt_step > 0
    weights, same = whole.weights(), resumed.weights()
    assert all(torch.equal(weights[k], same[k]) for k in weights)
    assert any(not torch.equal(before[k], weights[k]) for k in weights)


def test_layer_norm_of_images_is_by_image() -> None:
    net = ConvNet(ConvNetSpec(**CONV), (2, 5, 5), {"q": 4})
    seen: list[torch.Tensor] = []
    net.body[1].register_forward_hook(lambda module, args, out: seen.append(out.detach()))
    obs = torch.randn(3, 2, 5, 5) * 7 + 3
    net(obs)
    torch.testing.assert_close(seen[0].mean((1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0].var((1, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_a_minibatch_above_the_rollout_is_a_key_without_effect() -> None:
    setting = make("PQN", algorithm__minibatch_size=9).algorithm.setting
    with watching(setting.spec) as watch:
        PQN(setting)
    assert watch.idle()["algorithm.minibatch_size"].startswith("a rollout has 8 transitions")
