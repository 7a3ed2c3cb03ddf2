"""ConvNet by itself, and every algorithm on a tiny world of images."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from slm_lab.agent.agent import Agent
from slm_lab.agent.net.conv import ConvNet, ConvNetSpec
from slm_lab.agent.net.critic import StateActionNet, feature_size
from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import load_spec
from slm_lab.types import Discrete, EnvInfo, Step

NATURE = {"conv_hid_layers": [[32, 8, 4, 0, 1], [64, 4, 2, 0, 1], [64, 3, 1, 0, 1]], "fc_hid_layers": [512]}
SMALL = {"conv_hid_layers": [[4, 3, 2, 1, 1], [8, 3, 1, 0, 1]], "fc_hid_layers": [16]}


def make(shape: tuple[int, ...] = (2, 8, 8), heads: dict[str, int] | None = None, **keys: Any) -> ConvNet:
    spec = ConvNetSpec.model_validate({"type": "ConvNet", **SMALL, **keys})
    return ConvNet(spec.for_role("actor"), shape, {"policy": 3} if heads is None else heads)


def test_nature_layout() -> None:
    net = make((4, 84, 84), {"q": 6}, **NATURE)
    assert sum(p.numel() for p in net.parameters()) == 1_687_206  # as counted by Mnih et al.'s table of layers
    assert net(torch.zeros(2, 4, 84, 84, dtype=torch.uint8))[0].shape == (2, 6)
    assert feature_size(net) == 512


def test_padding_and_dilation_are_honoured() -> None:
    net = make((1, 9, 9), conv_hid_layers=[[2, 3, 1, 2, 3]], fc_hid_layers=[])
    # 9 + 2 * 2 - 3 * (3 - 1) = 7
    assert feature_size(net) == 2 * 7 * 7


def test_uint8_is_divided_by_255_and_reals_are_not() -> None:
    net, image = make(), torch.randint(0, 256, (3, 2, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(net(image)[0], net(image.float() / 255)[0])
    raw = make(normalize=False)
    torch.testing.assert_close(raw(image)[0], raw(image.float())[0])


def test_heads_and_their_gain() -> None:
    net = make(heads={"policy": 3, "value": 1}, init_fn="orthogonal_", init_std=0.01)
    policy, value = net(torch.zeros(2, 2, 8, 8))
    assert (policy.shape, value.shape) == ((2, 3), (2, 1))
    assert torch.linalg.matrix_norm(net.heads["policy"].weight, 2).item() == pytest.approx(0.01, rel=1e-4)
    assert all((m.bias == 0).all() for m in net.modules() if hasattr(m, "bias") and m.bias is not None)


def test_batch_norm_uses_running_statistics_where_no_gradient_is_taken() -> None:
    net = make(batch_norm=True)
    x = torch.rand(16, 2, 8, 8)
    for _ in range(50):
        net(x)
    with torch.no_grad():
        one_by_one = torch.cat([net(x[i : i + 1])[0] for i in range(16)])
        together = net(x)[0]
    torch.testing.assert_close(one_by_one, together)
    assert not torch.allclose(net(x[:4])[0], together[:4])


def test_an_image_without_channels_has_one() -> None:
    torch.manual_seed(0)
    plane = make((9, 8))
    torch.manual_seed(0)
    image = make((1, 9, 8))
    x = torch.randint(0, 256, (5, 9, 8), dtype=torch.uint8)
    assert torch.equal(plane(x)[0], image(x.unsqueeze(1))[0])


def test_no_image_and_nothing_left_of_one() -> None:
    known = r"\[channels, height, width\] or \[height, width\]"
    for shape in ((4,), (2, 4, 20, 20)):
        with pytest.raises(SpecError, match=rf"ConvNet reads images {known} \(got {re.escape(str([*shape]))}\)"):
            make(shape)
    with pytest.raises(SpecError, match=r"nothing is left of an image of \[4, 20, 20\]"):
        make((4, 20, 20), **NATURE)


def test_critic_on_features_depends_on_both() -> None:
    spec = ConvNetSpec.model_validate({"type": "ConvNet", **SMALL, "init_fn": "orthogonal_"})
    critic = StateActionNet(ConvNet, spec.for_role("critic"), (2, 8, 8), 2)
    obs = torch.randint(0, 256, (5, 2, 8, 8), dtype=torch.uint8)
    action = torch.rand(5, 2, requires_grad=True)
    q = critic(obs, action)
    assert q.shape == (5,)
    (grad,) = torch.autograd.grad(q.sum(), action)
    assert grad.std(0).min() > 1e-5


def test_the_output_of_a_critic_on_features_has_its_keys() -> None:
    keys = {"init_std": 0.01, "out_layer_activation": "tanh"}
    spec = ConvNetSpec.model_validate({"type": "ConvNet", **SMALL, **keys})
    critic = StateActionNet(ConvNet, spec.for_role("critic"), (2, 8, 8), 2)
    assert torch.linalg.vector_norm(critic.head.weight).item() == pytest.approx(0.01, rel=1e-4)
    assert (critic.head.bias == 0).all()
    assert critic(torch.zeros(1, 2, 8, 8), torch.full((1, 2), 1e6)).abs() <= 1


class Bright:
    """An image is bright on the left or on the right; the action that says which earns 1. Each episode is a step."""

    def __init__(self, num_envs: int) -> None:
        self.info = EnvInfo("Bright-v0", (1, 8, 8), "uint8", Discrete(2), num_envs, 1)
        self.rng = np.random.default_rng(0)
        self.obs = self._draw()

    def _draw(self) -> Any:
        self.side = self.rng.integers(0, 2, self.info.num_envs)
        obs = self.rng.integers(0, 100, (self.info.num_envs, 1, 8, 8)).astype(np.uint8)
        for i, side in enumerate(self.side):
            obs[i, 0, :, 4 * side : 4 * side + 4] += 120
        return obs

    def step(self, action: Any) -> Step:
        reward = (action == self.side).astype(np.float32)
        n = self.info.num_envs
        self.obs = self._draw()
        yes, no = np.ones(n, np.bool_), np.zeros(n, np.bool_)
        return Step(self.obs, reward, yes, no, self.obs, reward.tolist(), [1] * n)


ON_POLICY = {"name": "OnPolicyBatchReplay"}
REPLAY = {"name": "Replay", "batch_size": 32, "max_size": 1000}
DECAY = {"name": "linear_decay", "start_val": 1.0, "end_val": 0.05, "end_step": 2000}
ALGORITHMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Reinforce": ({"training_frequency": 16}, ON_POLICY),
    "ActorCritic": ({"lam": 0.9, "training_frequency": 16}, ON_POLICY),
    "PPO": (
        {"clip_eps_spec": {"name": "no_decay", "start_val": 0.2}, "time_horizon": 16, "training_epoch": 4},
        ON_POLICY,
    ),
    "SoftActorCritic": ({"training_start_step": 100, "training_frequency": 8, "training_iter": 2}, REPLAY),
    "DQN": (
        {
            "training_start_step": 100,
            "training_frequency": 8,
            "training_iter": 2,
            "training_batch_iter": 1,
            "action_policy": "epsilon_greedy",
            "explore_var_spec": DECAY,
        },
        REPLAY,
    ),
}


@pytest.mark.parametrize(("name", "kind"), [*((name, "ConvNet") for name in ALGORITHMS), ("DQN", "DuelingConvNet")])
def test_it_learns_what_it_sees(name: str, kind: str) -> None:
    keys, memory = ALGORITHMS[name]
    net = {
        "type": kind,
        "conv_hid_layers": [[4, 3, 2, 0, 1]],
        "fc_hid_layers": [16],
        "optim_spec": {"name": "Adam", "lr": 0.003},
        "update_type": "polyak",
        "polyak_coef": 0.05,
    }
    if name == "Reinforce":
        net = {k: v for k, v in net.items() if k not in ("update_type", "polyak_coef")}
    raw = {
        "name": "bright",
        "agent": {"name": name, "algorithm": {"name": name, "gamma": 0.9, **keys}, "memory": memory, "net": net},
        "env": {"name": "Bright-v0", "num_envs": 8, "max_frame": 4000},
        "meta": {},
    }
    env = Bright(8)
    agent = Agent(load_spec(raw), env.info, seed=0)
    obs, frame = env.obs, 0
    while frame < 4000:
        action = agent.act(obs)
        step = env.step(action)
        agent.observe(obs, action, step)
        frame += 8
        agent.maybe_update(frame)
        obs = step.obs.copy()
    right = [(agent.act(env._draw(), explore=False) == env.side).mean() for _ in range(25)]
    assert np.mean(right) > 0.95
