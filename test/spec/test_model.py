"""The spec itself: frozen, strict, and the same after a round trip."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.specs import replace

from slm_lab.lib.registry import lookup
from slm_lab.spec.files import bundled_files
from slm_lab.spec.load import load_spec, read_file
from slm_lab.spec.model import NetSpec, Spec
from slm_lab.spec.variables import variables

SETS = {"env": "CartPole-v1", "max_frame": "1e6"}
"""For specs that leave them open."""


def test_round_trip(raw: dict[str, Any]) -> None:
    raw["agent"]["net"] |= {"actor_optim_spec": {"name": "SGD", "lr": 1, "nesterov": True}, "critic_init_std": 1}
    raw["env"] |= {"continuous": True, "max_frame": 1e6}
    raw["agent"]["algorithm"]["clip_eps_spec"] = {"name": "no_decay", "start_val": 0.2}
    spec = Spec.model_validate({"name": "x", **raw})
    again = Spec.model_validate(spec.to_dict())
    assert again == spec
    assert again.to_dict() == spec.to_dict() == {"name": "x", **raw}
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("path", bundled_files(), ids=lambda p: p.name)
def test_round_trip_of_the_bundled_specs(path: Path) -> None:
    for name, data in read_file(path).items():
        spec = load_spec(path, name, sets={k: v for k, v in SETS.items() if k in variables(data)})
        assert Spec.model_validate(spec.to_dict()) == spec


def test_frozen(raw: dict[str, Any]) -> None:
    spec = load_spec(raw)
    with pytest.raises(ValidationError, match="frozen"):
        spec.env.name = "x"  # type: ignore[misc]


def test_replace(raw: dict[str, Any]) -> None:
    spec = load_spec(raw)
    changed = replace(spec, "agent.algorithm.gamma", 0.5)
    assert (changed.agent.algorithm.gamma, spec.agent.algorithm.gamma) == (0.5, 0.99)
    assert replace(changed, "agent.net.hid_layers[1]", 7).agent.net.hid_layers == [4, 7]  # type: ignore[attr-defined]
    with pytest.raises(ValidationError):
        replace(spec, "agent.algorithm.gamma", 5)
    with pytest.raises(ValidationError):
        replace(spec, "agent.algorithm.gama", 0.5)


@pytest.mark.parametrize("name", ["a/b", "", ".a", "a b", "ä", "x" * 101, "a\n"])
def test_names_that_no_folder_should_have(raw: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match="run's folder"):
        Spec.model_validate({**raw, "name": name})


@pytest.mark.parametrize("key", ["max_session", "random_seed", "checkpoint_interval"])
def test_true_is_no_number(raw: dict[str, Any], key: str) -> None:
    raw["meta"][key] = True
    with pytest.raises(ValidationError, match="must be a number"):
        load_spec_strict(raw)


def load_spec_strict(raw: dict[str, Any]) -> Spec:
    return Spec.model_validate({**raw, "name": "x"})


def test_memory_must_fit(raw: dict[str, Any]) -> None:
    raw["agent"]["memory"]["name"] = "Bag"
    with pytest.raises(ValidationError, match="Climber needs an on-policy memory, such as Rope"):
        load_spec_strict(raw)


def net(toys: None, **keys: Any) -> NetSpec:
    spec: NetSpec = lookup("net", "Boot").Spec(type="Boot", hid_layers=[4], **keys)
    return spec


class TestRoles:
    """actor_ and critic_ before a key of a net."""

    def test_every_key_but_those_that_join_the_two(self, toys: None) -> None:
        fields = lookup("net", "Boot").Spec.model_fields
        base = [key for key in fields if key.partition("_")[0] not in NetSpec.roles]
        joining = {"type", "shared", "use_same_optim"}
        assert {k for k in fields if k not in base} == {
            f"{r}_{k}" for k in base if k not in joining for r in NetSpec.roles
        }

    def test_prefixed_keys_count_for_one(self, toys: None) -> None:
        spec = net(toys, init_std=0.5, actor_init_std=0.01, critic_optim_spec={"lr": 0.1}, critic_hid_layers=[8])
        actor, critic = spec.for_role("actor"), spec.for_role("critic")
        assert (actor.init_std, critic.init_std) == (0.01, 0.5)
        assert (actor.optim_spec.lr, critic.optim_spec.lr) == (1e-3, 0.1)
        assert (actor.hid_layers, critic.hid_layers) == ([4], [8])  # type: ignore[attr-defined]
        assert type(actor) is type(spec)
        assert not [k for k in actor.model_fields_set if k.startswith(("actor_", "critic_"))]
        assert type(actor).model_validate(actor.model_dump(exclude_unset=True)) == actor

    @pytest.mark.parametrize("joined", ["shared", "use_same_optim"])
    def test_joined_nets_take_the_actors_keys(self, toys: None, joined: str) -> None:
        """All but the gain of the output layer, which is the point of having two heads."""
        keys = {"actor_hid_layers": [8], "critic_hid_layers": [9], "actor_init_std": 0.01, "critic_init_std": 1.0}
        critic = net(toys, **keys, **{joined: True}).for_role("critic")
        assert critic.hid_layers == [8]  # type: ignore[attr-defined]
        assert critic.init_std == 1.0

    def test_prefixed_keys_are_checked_as_the_key_itself(self, toys: None) -> None:
        for keys in ({"actor_hid_layers": [0]}, {"critic_clip_grad_val": -1}, {"actor_optim_spec": None}):
            with pytest.raises(ValidationError):
                net(toys, **keys)
        assert net(toys, clip_grad_val=1.0, critic_clip_grad_val=None).for_role("critic").clip_grad_val is None

    def test_model_keeps_its_name_and_text(self, toys: None) -> None:
        model = lookup("net", "Boot").Spec
        assert model.__name__ == "BootSpec"
        assert model.__doc__ == "Keys of Boot."
        assert model.model_fields["actor_hid_layers"].description == "hid_layers of the actor alone"
