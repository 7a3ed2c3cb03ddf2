"""What is told of a spec before it runs: keys without effect, and all faults in one round."""

import copy
from typing import Any, ClassVar

import pytest
from support.specs import TINY, replace

from slm_lab import api
from slm_lab.agent.algorithm.random import Random
from slm_lab.experiment.trial.check import check_spec, load_spec, load_specs, require_search
from slm_lab.lib import registry
from slm_lab.lib.errors import SpecError
from slm_lab.spec.model import AlgorithmSpec, Spec

PPO = {
    "name": "PPO",
    "time_horizon": 16,
    "training_epoch": 1,
    "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
}
DQN = {"name": "DQN", "training_frequency": 4, "explore_var_spec": {"name": "no_decay", "start_val": 0.1}}
REPLAY = {"name": "Replay", "batch_size": 8, "max_size": 100}
NO_READER = "does not use it"


def spec(sets: dict[str, str], algorithm: Any = None, memory: Any = None) -> dict[str, Any]:
    raw = copy.deepcopy(TINY)
    raw["agent"]["algorithm"] = algorithm or raw["agent"]["algorithm"]
    raw["agent"]["memory"] = memory or raw["agent"]["memory"]
    return raw


def faults(sets: dict[str, str], algorithm: Any = None, memory: Any = None) -> list[str]:
    checked = check_spec(spec(sets, algorithm, memory), "tiny", sets=sets)
    return checked.faults + checked.unsearchable


BOTH = {"agent.net.actor_optim_spec": '{"lr": 0.1}', "agent.net.critic_optim_spec": '{"lr": 0.1}'}
SAME = "agent.net.use_same_optim"


@pytest.mark.parametrize(
    ("sets", "algorithm", "memory", "lines"),
    [
        ({"agent.net.critic_optim_spec.lr": "0.9"}, None, None, []),
        (BOTH, None, None, ["agent.net.optim_spec: has no effect: agent.net.actor_optim_spec and agent.net.critic_o"]),
        ({SAME: "true", "agent.net.critic_hid_layers": "[4]"}, None, None, ["critic_hid_layers", f"{SAME} counts"]),
        ({"agent.net.shared": "true", "agent.net.critic_optim_spec.lr": "1"}, None, None, ["agent.net.shared counts"]),
        ({"agent.net.critic_gpu": "true"}, None, None, [NO_READER]),
        ({"agent.net.log_std_init": "0.0"}, None, None, ["agent.net.log_std_init", NO_READER]),
        ({"agent.net.update_frequency": "3"}, PPO, None, [NO_READER]),
        ({"agent.net.actor_polyak_coef": "0.1"}, PPO, None, [NO_READER]),
        ({"agent.net.polyak_coef": "0.1"}, DQN, REPLAY, ["it would with agent.net.update_type 'polyak'"]),
        ({"agent.net.polyak_coef": "0.1", "agent.net.update_type": "polyak"}, DQN, REPLAY, []),
        ({"agent.net.actor_hid_layers": "[4]"}, DQN, REPLAY, ["DQN has no actor"]),
        ({"agent.algorithm.num_step_returns": "5"}, None, None, ["agent.algorithm.lam counts instead"]),
        ({"agent.algorithm.minibatch_size": "65"}, PPO, None, ["a rollout has 64 transitions"]),
        ({"agent.algorithm.minibatch_size": "64"}, PPO, None, []),
        ({"agent.memory.max_size": "7"}, DQN, REPLAY, ["a memory of max_size 7 never holds a batch of 8"]),
        ({"agent.memory.alpha": "0.5"}, PPO, None, [NO_READER]),
        ({"agent.algorithm.action_pdtype": "Categorical"}, DQN, REPLAY, ["epsilon_greedy draws from Argmax"]),
        (
            {"meta.eval_frequency": "500"},
            None,
            None,
            ["has no effect: it needs meta.rigorous_eval"],
        ),
        ({"meta.eval_frequency": "500", "meta.rigorous_eval": "1"}, None, None, []),
        # another rate for all is what this key is for; then none of the others can be given beside it
        ({"agent.algorithm.lr": "0.1"}, None, None, []),
        (
            {"agent.algorithm.lr": "0.1", "agent.net.optim_spec.lr": "0.2"},
            None,
            None,
            ["agent.algorithm.lr is the rate"],
        ),
        # what says no more than the default does no harm
        ({"agent.net.update_type": "replace", "meta.eval_frequency": "10000"}, PPO, None, []),
    ],
)
def test_a_key_without_effect_is_a_fault(sets: Any, algorithm: Any, memory: Any, lines: list[str]) -> None:
    found = faults(sets, algorithm, memory)
    assert len(found) == bool(lines)
    assert all(line in found[0] for line in lines)


class IdleSpec(AlgorithmSpec):
    """Keys of Idle."""

    training_frequency: int = 1
    used: int = 1
    later: int = 1
    never: int = 1
    if_used: int = 1


class Idle(Random):
    """Reads some of its keys when it is made, and one when it learns."""

    Spec: ClassVar[Any] = IdleSpec

    def __init__(self, setting: Any) -> None:
        super().__init__(setting)
        self.never = self.spec.used
        if self.spec.used > 1:
            self.if_used = self.spec.if_used

    def update(self, batch: Any) -> Any:
        return {"never": self.never, "later": self.spec.later}


NOISY = {"agent.net.noisy_std": "0.5"}
POLICY, SCHEDULE = "agent.algorithm.action_policy", "agent.algorithm.explore_var_spec"
NOISE = "has no effect: the noise of the net explores"


@pytest.mark.parametrize(
    ("sets", "policy", "line"),
    [
        ({}, "epsilon_greedy", None),
        ({SCHEDULE: "null"}, "epsilon_greedy", None),
        ({POLICY: "default"}, "epsilon_greedy", None),
        ({}, "boltzmann", f"{POLICY}: {NOISE}"),
        ({POLICY: "epsilon_greedy"}, "default", f"{POLICY}: {NOISE}"),
        ({f"{SCHEDULE}.start_val": "0.2"}, "default", f"{SCHEDULE}: {NOISE}"),
    ],
)
def test_noise_takes_the_place_of_epsilon(sets: dict[str, str], policy: str, line: str | None) -> None:
    algorithm = {**DQN, "action_policy": policy}
    assert faults(NOISY | sets, algorithm, REPLAY) == ([] if line is None else [line])


def test_keys_of_any_class_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names("algorithm")
    monkeypatch.setitem(registry._classes["algorithm"], "Idle", Idle)
    algorithm = {"name": "Idle", "used": 2, "later": 2, "never": 2, "if_used": 2}
    assert [f.partition(":")[0] for f in faults({}, algorithm) if "net." not in f] == ["agent.algorithm.never"]
    found = faults({}, {"name": "Idle", "if_used": 2})
    assert found[0] == "agent.algorithm.if_used: has no effect: it needs agent.algorithm.used" or NO_READER in found[0]


def test_a_slip_in_the_code_that_reads_a_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slip(Random):
        Spec: ClassVar[Any] = IdleSpec

        def update(self, batch: Any) -> Any:
            return {"later": self.spec.latter}

    registry.names("algorithm")
    monkeypatch.setitem(registry._classes["algorithm"], "Slip", Slip)
    found = [f for f in faults({}, {"name": "Slip", "later": 2}) if "later" in f]
    assert found == ["agent.algorithm.later: has no effect: the code reads 'latter', which is no key; is that a slip?"]


def test_an_error_in_a_users_own_code_comes_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Idle):
        def __init__(self, setting: Any) -> None:
            super().__init__(setting)
            self.never = self.spec.usde

    registry.names("algorithm")
    monkeypatch.setitem(registry._classes["algorithm"], "Broken", Broken)
    [fault] = faults({}, {"name": "Broken"})
    line = Broken.__init__.__code__.co_firstlineno + 2
    assert fault == f"AttributeError: 'IdleSpec' object has no attribute 'usde' ({__file__}, line {line}, in __init__)"


def test_of_an_old_spec_keys_without_effect_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    old = spec({}, PPO)
    old["agent"]["net"] |= {"update_type": "polyak", "critic_gpu": True}
    old["meta"] |= {"distributed": False, "max_trial": 1, "eval_frequency": 500}
    checked = check_spec(old, "old")
    assert checked.faults == []
    for key in ("agent.net.update_type", "agent.net.critic_gpu", "meta.eval_frequency"):
        assert f"{key}: left out: it has no effect here" in checked.left_out
    assert checked.spec is not None
    assert "update_type" not in checked.spec.agent.net.model_fields_set
    # but not those that were given just now
    [fault] = check_spec(old, "old", sets={"agent.net.polyak_coef": "0.5"}).faults
    assert fault.startswith("agent.net.polyak_coef: has no effect")


def test_faults_come_in_one_round() -> None:
    sets = {
        "agent.algorithm.gamma": "2",
        "agent.algorithm.entropy_coef_spec.start_val": "-1",
        "agent.algorithm.training_frequency": "0",
        "agent.algorithm.action_pdtype": "Beta",
        "agent.net.optim_spec": '{"name": "Adm", "lr": -1}',
        "agent.net.init_fn": "xavier",
        "agent.net.hid_layer": "[4]",
        "env.max_frame": "-5",
        "meta.log_frequency": "x",
    }
    found = faults(sets)
    assert {f.partition(":")[0] for f in found} == {
        "agent.algorithm.gamma",
        "agent.algorithm.entropy_coef_spec.start_val",
        "agent.algorithm.training_frequency",
        "agent.algorithm.action_pdtype",
        "agent.net.optim_spec.name",
        "agent.net.optim_spec.lr",
        "agent.net.init_fn",
        "agent.net.hid_layer",
        "env.max_frame",
        "meta.log_frequency",
    }


@pytest.mark.parametrize(
    ("sets", "lines"),
    [
        ({"agent.net.optim_spec.lr": "-1", "meta.eval_frequency": "8"}, ["optim_spec.lr: must", "meta.rigorous_eval"]),
        (
            {"agent.algorithm.gamma": "2", SAME: "true", "agent.net.critic_hid_layers": "[4]"},
            ["agent.algorithm.gamma: must", f"agent.net.critic_hid_layers: has no effect: {SAME} counts"],
        ),
        # what decides of it is wrong itself
        ({"meta.rigorous_eval": "-1", "meta.eval_frequency": "8"}, ["meta.rigorous_eval: must"]),
        ({"agent.net.update_type": "polyac", "agent.net.polyak_coef": "0.1"}, ["agent.net.update_type: must"]),
    ],
)
def test_keys_without_effect_are_told_beside_other_faults(sets: dict[str, str], lines: list[str]) -> None:
    algorithm, memory = (DQN, REPLAY) if "agent.net.update_type" in sets else (None, None)
    told = faults(sets, algorithm, memory)
    assert len(told) == len(lines)
    for fault, line in zip(told, lines, strict=True):
        assert line in fault


def test_names_are_looked_up_beside_a_wrong_algorithm() -> None:
    found = faults({"agent.algorithm.name": "PPOO", "agent.net.optim_spec.name": "Adm", "env.name": "CartPol-v1"})
    assert [f.partition(":")[0] for f in found] == ["agent.algorithm.name", "env.name", "agent.net.optim_spec.name"]


def test_load_spec_checks_as_much_as_validate() -> None:
    with pytest.raises(SpecError, match="has no 'Adm'"):
        api.load_spec(TINY, sets={"agent.net.optim_spec.name": "Adm"})
    with pytest.raises(SpecError, match="has no effect"):
        api.load_spec(TINY, sets=BOTH)
    with pytest.raises(SpecError, match="has no effect"):
        api.run(replace(Spec.model_validate(TINY), "meta.eval_frequency", 5))


def test_a_search_over_a_key_without_effect_is_a_fault() -> None:
    axes = '{"agent.net.optim_spec.lr__loguniform": [1e-4, 1e-2], "agent.algorithm.gamma__uniform": [0.9, 0.99]}'
    assert faults({"search": axes}) == []
    [fault] = faults({"search": axes, "agent.algorithm.lr": "0.1"})
    assert fault.startswith("search.agent.net.optim_spec.lr__loguniform: has no effect: agent.algorithm.lr")
    axes = '{"agent.net.critic_hid_layers__choice": [[4], [8]], "agent.net.shared__choice": [true, false]}'
    assert faults({"search": axes}) == []  # it has one where shared is false


def test_a_search_asks_for_what_the_machine_has() -> None:
    sets = {"search": '{"agent.algorithm.gamma__uniform": [0.9, 0.99]}', "meta.search_resources.cpu": "100000"}
    with pytest.raises(SpecError, match=r"meta\.search_resources\.cpu: a trial asks for 100000, no machine has more"):
        require_search(load_spec(TINY, sets=sets), "cpu", cluster=False)
    require_search(load_spec(TINY, sets=sets), "cpu", cluster=True)


def test_a_spec_that_only_cannot_be_searched_loads(log_text: list[str]) -> None:
    sets = {"search": '{"agent.algorithm.gama__uniform": [0.9, 0.99]}'}
    assert check_spec(TINY, "tiny", sets=sets).unsearchable
    assert len(load_specs(TINY, sets=sets)) == 1
    # and says nothing of a search that nobody asked for
    spec = load_spec(TINY, sets=sets)
    assert not log_text
    with pytest.raises(SpecError, match=r"names nothing in the spec, did you mean 'agent\.algorithm\.gamma'"):
        require_search(spec, "cpu", cluster=True)


def test_a_whole_block_must_be_an_object() -> None:
    [fault] = faults({"search": "{1"})
    assert fault == "-s search: must be a JSON object (got '{1')"


@pytest.mark.parametrize("name", ["rainbow/rainbow_cartpole.json", "dqn/ddqn_per_cartpole.json"])
def test_bundled_specs_of_memories_with_schedules_are_without_fault(name: str) -> None:
    assert load_specs(name)
